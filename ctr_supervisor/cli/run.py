"""`ctrun run`."""

from ctr_common import trace
from ctr_supervisor.cli import creation
from ctr_supervisor.cli.parser import BOOL, Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "run",
    "create and run a container",
    arguments="<container-id>",
    description="""\
Makes the container of a bundle, starts it, waits for its end and deletes it.
The exit status is that of its process, 128 plus the number of the signal if
one killed it.

What the process is, the property "args" in config.json says; "ctrun spec"
writes a config.json to begin with.

"<container-id>" is a name of your choice, unique on this host.""",
    flags=(
        creation.BUNDLE,
        creation.CONSOLE_SOCKET,
        creation.PIDFD_SOCKET,
        creation.DETACH,
        Flag("keep", "do not delete the container when its process has ended", BOOL),
        creation.PID_FILE,
        Flag("no-subreaper", "do not adopt and reap orphaned processes of the container", BOOL),
        creation.NO_PIVOT,
        creation.NO_NEW_KEYRING,
        creation.PRESERVE_FDS,
    ),
    minimum=1,
    maximum=1,
    failure="ctrun run failed: ",
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Runs the container; returns the exit status of its process."""
    detach = arguments.boolean("detach")
    with trace.span("import engine, prepare"):
        runtime, bundle, options = creation.prepare(surroundings, arguments, detach=detach)
        from ctr_supervisor.engine import run

    return run.run(
        runtime,
        arguments.rest[0],
        bundle,
        options,
        detach=detach,
        keep=arguments.boolean("keep"),
        no_subreaper=arguments.boolean("no-subreaper"),
    )
