"""What the command line says about a new process, and whether it goes together."""

from ctr_common.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ctr_common.spec.types import Process


class ProcessOptions:
    """What create and exec have in common.

    Args:
        console_socket: unix socket that gets the pty's master.
        pid_file: file that gets the pid.
        pidfd_socket: unix socket that gets the pidfd.
        detach: nobody stays in the foreground for it.
        preserve_fds: how many fds from 3 on the process inherits.

    Attributes:
        relayed: a terminal's output is copied to the caller's stdout as it is; the command line sets it.
    """

    __slots__ = ("console_socket", "detach", "pid_file", "pidfd_socket", "preserve_fds", "relayed")

    def __init__(
        self,
        console_socket: str = "",
        pid_file: str = "",
        pidfd_socket: str = "",
        detach: bool = False,
        preserve_fds: int = 0,
    ) -> None:
        self.console_socket = console_socket
        self.pid_file = pid_file
        self.pidfd_socket = pidfd_socket
        self.detach = detach
        self.preserve_fds = preserve_fds
        self.relayed = False


class CreateOptions(ProcessOptions):
    """What the command line says about a creation.

    Args:
        no_pivot: move the root with MS_MOVE instead of pivot_root (a root file system on a ramdisk).
        no_new_keyring: keep the caller's session keyring.
        listen_fds: how many further fds the caller got by socket activation (LISTEN_FDS).
        networks: networks of libcontainer's kind; see ctr_supervisor/network/config.py.
        others: of ProcessOptions.
    """

    __slots__ = ("listen_fds", "networks", "no_new_keyring", "no_pivot")

    def __init__(
        self,
        console_socket: str = "",
        pid_file: str = "",
        pidfd_socket: str = "",
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        preserve_fds: int = 0,
        detach: bool = True,
        listen_fds: int = 0,
        networks: "Sequence[Any]" = (),
    ) -> None:
        super().__init__(console_socket, pid_file, pidfd_socket, detach, preserve_fds)
        self.no_pivot = no_pivot
        self.no_new_keyring = no_new_keyring
        self.listen_fds = listen_fds
        self.networks = networks


class ExecOptions(ProcessOptions):
    """What the command line says about an exec.

    Args:
        ignore_paused: exec into a paused container; the process freezes with it.
        cgroup: sub-cgroups to put the process in, `path` or `controller[,controller]:path`.
        no_subreaper: don't adopt orphans.
        others: of ProcessOptions.
    """

    __slots__ = ("cgroup", "ignore_paused", "no_subreaper")

    def __init__(
        self,
        console_socket: str = "",
        pid_file: str = "",
        pidfd_socket: str = "",
        detach: bool = False,
        preserve_fds: int = 0,
        ignore_paused: bool = False,
        cgroup: "Sequence[str]" = (),
        no_subreaper: bool = False,
    ) -> None:
        super().__init__(console_socket, pid_file, pidfd_socket, detach, preserve_fds)
        self.ignore_paused = ignore_paused
        self.cgroup = cgroup
        self.no_subreaper = no_subreaper


def check_terminal(process: "Process", options: ProcessOptions) -> None:
    """Holds terminal, detaching and console socket against each other, with the texts that engines know.

    Raises:
        ConfigError: they don't go together.
    """
    terminal = bool(process.get("terminal"))
    if options.detach and terminal and not options.console_socket:
        raise ConfigError("cannot allocate tty if ctrun will detach without setting console socket")
    if (not options.detach or not terminal) and options.console_socket:
        raise ConfigError("cannot use console socket if ctrun will not detach or allocate tty")
