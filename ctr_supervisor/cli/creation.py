"""What `create` and `run` have in common: their flags, and what these mean for the engine."""

import os

from ctr_common.errors import CtrError
from ctr_supervisor.cli.parser import BOOL, INT, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings
    from ctr_supervisor.engine.options import CreateOptions
    from ctr_supervisor.engine.runtime import Runtime

BUNDLE = Flag("bundle", "directory of the bundle; without it, the current directory", short="b")
CONSOLE_SOCKET = Flag("console-socket", "AF_UNIX socket that gets the master of the container's terminal")
PIDFD_SOCKET = Flag("pidfd-socket", "AF_UNIX socket that gets a pidfd of the new process")
PID_FILE = Flag("pid-file", "file to write the process id to")
NO_PIVOT = Flag("no-pivot", "do not use pivot_root: for root file systems on a ramdisk", BOOL)
NO_NEW_KEYRING = Flag("no-new-keyring", "keep the session keyring of the caller instead of making a new one", BOOL)
PRESERVE_FDS = Flag(
    "preserve-fds", "hand on this many further file descriptors, from 3 on (after those of $LISTEN_FDS)", INT, default=0
)
DETACH = Flag("detach", "return once the process runs, do not wait for it", BOOL, "d")


def enter_bundle(path: str) -> str:
    """Makes the bundle the working directory, as relative paths in it and hooks expect; returns its absolute path.

    Args:
        path: --bundle; "" for the current directory.

    Raises:
        CtrError: it is not there.
    """
    try:
        if path:
            os.chdir(path)
        return os.getcwd()
    except OSError as error:
        raise CtrError(f"chdir {path or '.'}", errno=error.errno or 0) from None


def absolute(path: str) -> str:
    """An absolute form of a path that is named before the working directory changes; "" stays "".

    Args:
        path: from the command line.
    """
    return os.path.abspath(path) if path else ""


def listen_fds() -> int:
    """How many fds the caller passed by socket activation (sd_listen_fds(3)), to be handed on after stdio."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    text = os.environ.get("LISTEN_FDS", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def prepare(
    surroundings: "Surroundings", arguments: "Arguments", *, detach: bool
) -> "tuple[Runtime, str, CreateOptions]":
    """What the engine needs to create a container: its runtime, the bundle, the options.

    Args:
        surroundings: as from the command line.
        arguments: of `create` or `run`.
        detach: nobody stays in the foreground.

    Raises:
        CtrError: a flag asks for something that is not possible; the working directory is the bundle afterwards.
    """
    rootless = surroundings.rootless_choice()
    pid_file = absolute(arguments.string("pid-file"))
    bundle = enter_bundle(arguments.string("bundle"))

    from ctr_supervisor.engine.options import CreateOptions

    options = CreateOptions(
        console_socket=arguments.string("console-socket"),
        pid_file=pid_file,
        pidfd_socket=arguments.string("pidfd-socket"),
        no_pivot=arguments.boolean("no-pivot"),
        no_new_keyring=arguments.boolean("no-new-keyring"),
        preserve_fds=max(0, arguments.integer("preserve-fds")),
        detach=detach,
        listen_fds=listen_fds(),
    )
    options.relayed = not detach
    return surroundings.runtime(rootless), bundle, options
