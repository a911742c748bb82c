"""`ctrun exec`."""

import os

from ctr_common.errors import ConfigError, UsageError
from ctr_common.log import quote
from ctr_supervisor.cli import creation
from ctr_supervisor.cli.parser import BOOL, INTS, STRINGS, Flag, parse_int
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Capabilities, Process, User
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "exec",
    "run a further process in a running container",
    arguments="<container-id> <command> [args...]\n-p process.json <container-id>",
    description="""\
Runs a command in the namespaces, cgroups and root file system of a
container, waits for its end and returns its exit status. What no flag says
is taken from the container's own process, except the terminal.

    # ctrun exec web ps
    # ctrun exec -t -u 1000:1000 -e TERM=xterm web sh""",
    flags=(
        creation.CONSOLE_SOCKET,
        creation.PIDFD_SOCKET,
        Flag("cwd", "working directory in the container"),
        Flag("env", "set an environment variable, NAME=value; may be repeated", STRINGS, "e"),
        Flag("tty", "allocate a terminal", BOOL, "t"),
        Flag("user", "user id, and after a colon the group id (format: <uid>[:<gid>])", short="u"),
        Flag("additional-gids", "supplementary group id; may be repeated", INTS, "g"),
        Flag("process", "file with the whole process, as in config.json", short="p"),
        creation.DETACH,
        creation.PID_FILE,
        Flag("process-label", "SELinux label of the process"),
        Flag("apparmor", "AppArmor profile of the process"),
        Flag("no-new-privs", "set no_new_privs for the process", BOOL),
        Flag("cap", "add a capability; may be repeated", STRINGS, "c"),
        creation.PRESERVE_FDS,
        Flag(
            "cgroup",
            "run in an existing cgroup below the container's, [<controller>:]<cgroup>; may be repeated",
            STRINGS,
        ),
        Flag("ignore-paused", "allow it in a paused container, where the process waits for resume", BOOL),
    ),
    minimum=1,
    maximum=None,
    flags_first=True,
    failure="exec failed: ",
    failure_status=255,
)

# One below the largest number, which means "leave it alone" to setresuid(2).
ID_MAXIMUM = 2**32 - 2


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Runs the process; returns its exit status, 0 if detached."""
    from ctr_supervisor.engine import container
    from ctr_supervisor.engine import exec as engine
    from ctr_supervisor.engine.options import ExecOptions

    found = container.load(surroundings.runtime(), arguments.rest[0])
    path = arguments.string("process")
    if path:
        from ctr_common.spec.load import load_process

        process = load_process(path)
    else:
        process = merge_process(found.config.get("process") or {}, arguments)
    check_process(process)
    check_cgroups(arguments.strings("cgroup"))
    options = ExecOptions(
        console_socket=arguments.string("console-socket"),
        pid_file=creation.absolute(arguments.string("pid-file")),
        pidfd_socket=arguments.string("pidfd-socket"),
        detach=arguments.boolean("detach"),
        preserve_fds=max(0, arguments.integer("preserve-fds")),
        ignore_paused=arguments.boolean("ignore-paused"),
        cgroup=arguments.strings("cgroup"),
    )
    options.relayed = not options.detach
    return engine.exec_process(found, process, options)


def merge_process(config_process: "Process", arguments: "Arguments") -> "Process":
    """The process to run: the container's own, changed by what the command line says.

    Args:
        config_process: `.process` of the container's config; left as it is.
        arguments: of `exec`.

    Raises:
        UsageError: a value is not possible.
    """
    process = config_process.copy()
    process["args"] = arguments.rest[1:]
    if arguments.string("cwd"):
        process["cwd"] = arguments.string("cwd")
    if arguments.string("apparmor"):
        process["apparmorProfile"] = arguments.string("apparmor")
    if arguments.string("process-label"):
        process["selinuxLabel"] = arguments.string("process-label")
    if arguments.strings("cap"):
        process["capabilities"] = add_capabilities(process.get("capabilities") or {}, arguments.strings("cap"))
    process["env"] = [*(process.get("env") or ()), *arguments.strings("env")]
    # A terminal of the container's own process says nothing about this one.
    process["terminal"] = arguments.boolean("tty")
    if arguments.has("no-new-privs"):
        process["noNewPrivileges"] = arguments.boolean("no-new-privs")
    process["user"] = merge_user(process.get("user") or {}, arguments)
    return process


def add_capabilities(capabilities: "Capabilities", added: "list[str]") -> "Capabilities":
    """Capability sets with further members.

    Args:
        capabilities: the container's; left as they are.
        added: names for the bounding, effective and permitted sets, and for the ambient one where the inheritable set
            has them, which the kernel asks for.
    """
    merged = capabilities.copy()
    # Never the inheritable set: CVE-2022-29162.
    merged["bounding"] = [*(capabilities.get("bounding") or ()), *added]
    merged["effective"] = [*(capabilities.get("effective") or ()), *added]
    merged["permitted"] = [*(capabilities.get("permitted") or ()), *added]
    inheritable = capabilities.get("inheritable") or ()
    ambient = [name for name in added if name in inheritable]
    if ambient:
        merged["ambient"] = [*(capabilities.get("ambient") or ()), *ambient]
    return merged


def merge_user(user: "User", arguments: "Arguments") -> "User":
    """Ids of the process.

    Args:
        user: the container's; left as it is.
        arguments: of `exec`.

    Raises:
        UsageError: an id is no number or out of range.
    """
    merged = user.copy()
    if arguments.string("user"):
        uid, colon, gid = arguments.string("user").partition(":")
        if colon:
            merged["gid"] = _parse_id(gid, "gid")
        merged["uid"] = _parse_id(uid, "uid")
    added = arguments.integers("additional-gids")
    for gid_number in added:
        if gid_number < 0:
            raise UsageError(f"additional-gids must be a positive number {gid_number}")
        _check_id(gid_number, "additional gid")
    if added:
        merged["additionalGids"] = [*(user.get("additionalGids") or ()), *added]
    return merged


def _parse_id(text: str, kind: str) -> int:
    try:
        number = parse_int(text)
    except ValueError as error:
        complaint = f"strconv.Atoi: parsing {quote(text)}: {error}"
        hint = "exec --user takes numbers: <uid>[:<gid>]"
        raise UsageError(f"parsing {text} as int for {kind} failed: {complaint}", hint=hint) from None
    _check_id(number, kind)
    return number


def _check_id(number: int, kind: str) -> None:
    if not 0 <= number <= ID_MAXIMUM:
        raise UsageError(f"{kind} {number} is not in the range 0-{ID_MAXIMUM}")


def check_process(process: "Process") -> None:
    """Holds the working directory against what the specification asks; the engine judges the rest.

    Raises:
        ConfigError: it is missing or relative.
    """
    if not process.get("cwd"):
        raise ConfigError("Cwd property must not be empty")
    if not os.path.isabs(process["cwd"]):
        raise ConfigError("Cwd must be an absolute path")


def check_cgroups(cgroups: "list[str]") -> None:
    """Makes sure that each --cgroup is a path for all hierarchies, or a path for controllers that no other one names.

    Args:
        cgroups: values of --cgroup.

    Raises:
        UsageError: one of them is neither.
    """
    seen: set[str] = set()
    for value in cgroups:
        controllers, colon, path = value.partition(":")
        if ":" in path:
            raise UsageError(f"invalid --cgroup argument: {value}")
        if not colon:
            if len(cgroups) > 1:
                raise UsageError(f"invalid --cgroup argument: {value} (missing <controller>: prefix)")
            continue
        for controller in controllers.split(","):
            if not controller:
                raise UsageError(f"invalid --cgroup argument: {value} (empty <controller> prefix)")
            if controller in seen:
                raise UsageError(f"invalid --cgroup argument(s): controller {controller} specified multiple times")
            seen.add(controller)
