"""The flags that stand before the verb, the environment, and what follows from both: state root, log, options."""

import os

from ctr_common.errors import CtrError, UsageError
from ctr_common.log import FORMATS, TEXT, Log, open_file, quote
from ctr_supervisor.cli.parser import BOOL, INVALID_SYNTAX, OPTIONAL, Flag, parse_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.engine.runtime import Runtime
    from ctr_supervisor.process.parent import Parent

PROGRAM = "ctrun"
DEFAULT_ROOT = "/run/ctrun"

FLAGS = (
    Flag("debug", "write debug lines to the log", BOOL),
    Flag("log", "file to append the log to (default is '/dev/stderr')"),
    Flag("log-format", "format of the log, 'text' or 'json'", default=TEXT),
    Flag("root", "directory that holds the state of the containers, best on a tmpfs", default=DEFAULT_ROOT),
    Flag("trace", "file to write the time of each step to, for chrome://tracing or Perfetto"),
    Flag("criu", "path of the criu binary for checkpoint and restore", default="criu"),
    Flag("systemd-cgroup", 'let systemd make the cgroups; cgroupsPath then reads "slice:prefix:name"', BOOL),
    Flag("rootless", "tolerate failures with cgroups: 'true', 'false' or 'auto'", default="auto"),
    # c/client takes it off the command line: what comes here was given to the direct program, which ignores it.
    Flag("supervisor", "let the running supervisor do it, at its usual socket or at this one", OPTIONAL),
    Flag("version", "print the version", BOOL, "v"),
)


class Surroundings:
    """What a verb gets beside its own arguments.

    Args:
        root: state root, absolute.
        log: where log lines go.
        debug: --debug was given.
        criu: --criu.
        systemd_cgroup: --systemd-cgroup was given.
        rootless: --rootless, unchecked.
        parent: whose children container processes become; None for this process.
    """

    __slots__ = ("criu", "debug", "log", "parent", "root", "rootless", "systemd_cgroup")

    def __init__(
        self,
        root: str,
        log: Log,
        *,
        debug: bool = False,
        criu: str = "",
        systemd_cgroup: bool = False,
        rootless: str = "auto",
        parent: "Parent | None" = None,
    ) -> None:
        self.root = root
        self.parent = parent
        self.log = log
        self.debug = debug
        self.criu = criu
        self.systemd_cgroup = systemd_cgroup
        self.rootless = rootless

    def runtime(self, rootless: str = "auto") -> "Runtime":
        """The engine's view of it.

        Args:
            rootless: "true", "false" or "auto".
        """
        from ctr_supervisor.engine.runtime import Runtime
        from ctr_supervisor.process.parent import OWN_HOME, Parent

        return Runtime(
            self.root,
            systemd_cgroup=self.systemd_cgroup,
            rootless=rootless,
            criu=self.criu,
            debug=self.debug,
            log=self.log.write,
            parent=self.parent or Parent(home=OWN_HOME),
        )

    def rootless_choice(self) -> str:
        """--rootless as "true", "false" or "auto"; only the verbs that make a container look at it.

        Raises:
            UsageError: it is something else.
        """
        if self.rootless == "" or self.rootless.lower() == "auto":
            return "auto"
        try:
            return "true" if parse_bool(self.rootless) else "false"
        except ValueError:
            complaint = f"strconv.ParseBool: parsing {quote(self.rootless)}: {INVALID_SYNTAX}"
            raise UsageError(complaint, hint="--rootless takes 'true', 'false' or 'auto'") from None


def from_arguments(arguments: "Arguments", parent: "Parent | None" = None) -> Surroundings:
    """The surroundings that the global flags and the environment ask for.

    Raises:
        UsageError: a value is not possible.
        CtrError: the log can't be opened, the root can't be made.
    """
    root = _root(arguments)
    form = arguments.string("log-format")
    if form not in FORMATS:
        raise UsageError(f"invalid log-format: {form}")
    debug = arguments.boolean("debug")
    fd = 2
    path = arguments.string("log")
    if path:
        try:
            fd = open_file(path)
        except OSError as error:
            raise CtrError(f"open {path}", errno=error.errno or 0) from None
    return Surroundings(
        root,
        Log(fd, form, debug=debug),
        debug=debug,
        criu=arguments.string("criu"),
        systemd_cgroup=arguments.boolean("systemd-cgroup"),
        rootless=arguments.string("rootless"),
        parent=parent,
    )


def _root(arguments: "Arguments") -> str:
    if arguments.has("root"):
        root = os.path.abspath(arguments.string("root"))
        if root.strip("/") == "":
            raise UsageError("option --root must not be /: every directory there would be taken for a container")
        return root
    if not _honours_xdg():
        return DEFAULT_ROOT
    root = os.environ["XDG_RUNTIME_DIR"] + "/" + PROGRAM
    try:
        os.makedirs(root, 0o700, exist_ok=True)
    except OSError as error:
        hint = "the path in $XDG_RUNTIME_DIR must be writable by the user"
        raise CtrError(f"mkdir {error.filename or root}", errno=error.errno or 0, hint=hint) from None
    try:
        # Without the sticky bit it may be cleaned up while containers run (XDG Base Directory Specification).
        os.chmod(root, 0o1700)
    except OSError as error:
        hint = "check who owns the path in $XDG_RUNTIME_DIR"
        raise CtrError(f"chmod {root}", errno=error.errno or 0, hint=hint) from None
    return root


def _honours_xdg() -> bool:
    """Whether the default root is below $XDG_RUNTIME_DIR: for plain users, and for a root that is only mapped to 0."""
    if not os.environ.get("XDG_RUNTIME_DIR"):
        return False
    if os.geteuid() != 0:
        return True
    from ctr_supervisor.engine.runtime import in_initial_user_namespace

    return not in_initial_user_namespace() and os.environ.get("USER") != "root"
