"""`ctrun ps`."""

from ctr_common.errors import CtrError, UsageError
from ctr_supervisor.cli import output
from ctr_supervisor.cli.parser import Flag, parse_int
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "ps",
    "show the processes of a container",
    arguments="<container-id> [ps options]",
    description="""\
Runs ps(1) and prints those of its lines that belong to the container. The
options of ps are "-ef" unless you name others; its output must have a column
PID.""",
    flags=(
        Flag(
            "format", "format of the output: table or json, which is a list of process ids", short="f", default="table"
        ),
    ),
    minimum=1,
    maximum=None,
    flags_first=True,
)

DEFAULT_OPTIONS = ["-ef"]


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Prints the processes."""
    from ctr_supervisor.engine import ps

    pids = ps.pids(surroundings.runtime(), arguments.rest[0])
    form = arguments.string("format")
    if form == "json":
        output.write_json(pids or None)
    elif form == "table":
        output.write(select(run_ps(arguments.rest[1:] or DEFAULT_OPTIONS), frozenset(pids)))
    else:
        raise UsageError("invalid format option")
    return 0


def run_ps(options: "list[str]") -> str:
    """The output of ps(1).

    Args:
        options: its command line.

    Raises:
        CtrError: it is not there, or it failed.
    """
    import subprocess

    try:
        done = subprocess.run(
            ["ps", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError:
        raise CtrError('exec: "ps": executable file not found in $PATH') from None
    text = done.stdout.decode("utf-8", "surrogateescape")
    if done.returncode < 0:
        raise CtrError(f"ps was killed by signal {-done.returncode}: {text}")
    if done.returncode:
        raise CtrError(f"exit status {done.returncode}: {text}")
    return text


def select(text: str, pids: "Container[int]") -> str:
    """The heading and those lines of ps whose process is one of the container's.

    Args:
        text: the output of ps.
        pids: the container's processes.

    Raises:
        CtrError: it has no column PID, or something else than a number in it.
    """
    heading, *lines = text.split("\n")
    titles = heading.split()
    if "PID" not in titles:
        raise CtrError("couldn't find PID field in ps output")
    column = titles.index("PID")
    chosen = [heading]
    for line in lines:
        fields = line.split()
        if not fields:
            continue
        try:
            pid = parse_int(fields[column])
        except (IndexError, ValueError):
            raise CtrError(f"unable to parse pid: {line}") from None
        if pid in pids:
            chosen.append(line)
    return "\n".join(chosen) + "\n"
