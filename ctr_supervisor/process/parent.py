"""Whose children container processes are: the one who starts ctr-init, waits for its end, and stays in the foreground.

By itself the engine's process is that one. Where a supervisor does the thinking for a client, or keeps containers of
its own, another parent stands in its place (ctr_supervisor/service/parents.py), and nothing else of the engine changes.
"""

import os

from ctr_common import paths
from ctr_common.errors import ConfigError, InitError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from ctr_common.bootstrap import Attributes
    from ctr_supervisor.engine.launch import Launched
    from ctr_supervisor.process.notify import NotifySocket

    class Attendance(Protocol):
        """Somebody who stays in the foreground for a process."""

        def attend(self, launched: Launched, console_master: Fd, notify: NotifySocket | None = None) -> int | None:
            """Serves the process until it ends; its exit status, or None where somebody else sees to its end."""


# For a process that does nothing else but a command: should it not come back, it ends.
OWN_HOME = -2
FIRST_FREE_FD = 3
FD_CLOEXEC = 1
F_GETFD = 1


class Parent:
    """The process that this is.

    Args:
        stdio: fds that become stdin, stdout and stderr of the container process.
        home: pidfd of a process that leads back from a container's namespaces (ctr_init/inside.py); OWN_HOME for a
            process that may go there by itself; -1 for none, then a worker is forked for what has to be done there.

    Attributes:
        keeper: pid of the process that stays as the container process's parent in this one's place, 0 for none.
    """

    __slots__ = ("home", "keeper", "stdio")

    def __init__(self, stdio: "tuple[int, int, int]" = (0, 1, 2), home: int = -1) -> None:
        self.stdio = stdio
        self.home = home
        self.keeper = 0

    def bootstrap(self, status_directory: str, index: int) -> "tuple[Attributes, Sequence[int]]":
        """What BOOTSTRAP has to say beside the rest, and fds that it points to, which the caller closes.

        Args:
            status_directory: where a keeper would write the exit status; "" for a process that nobody keeps.
            index: number that the first of the fds gets in the message.
        """
        return (), ()

    def spawn(self, socket: int, preserve_fds: int) -> int:
        """Starts stage 0 of ctr-init.

        Args:
            socket: the start-up protocol's; stays the caller's.
            preserve_fds: how many fds from 3 on it inherits.

        Returns:
            Its pid.

        Raises:
            InitError: it can't be run.
        """
        target = FIRST_FREE_FD + preserve_fds
        fd_map = [(fd, number) for number, fd in enumerate(self.stdio)] if self.stdio != (0, 1, 2) else []
        fd_map += [(fd, fd) for fd in range(FIRST_FREE_FD, target)]
        fd_map.append((socket, target))
        with executable() as file:
            try:
                pid, pidfd = _kernel.spawn(file.fileno(), ["ctr-init"], [f"CTR_INIT_SOCKET={target}"], fd_map)
            except OSError as error:
                raise cannot_run(error) from None
        os.close(pidfd)
        return pid

    def stage0_done(self, pid: int) -> None:
        """It made the container process, and ends or becomes its keeper."""
        os.waitpid(pid, 0)

    def stage0_failed(self, pid: int) -> None:
        """It reported its failure, or is silent beyond every limit: in both cases nothing of it may stay."""
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
        os.waitpid(pid, 0)

    def wait(self, pid: int) -> int:
        """Waits for the container process's end and gives its exit status as a shell would.

        Raises:
            ChildProcessError: somebody has done so already.
        """
        _, status = os.waitpid(pid, 0)
        return shell_status(status)

    def check_preserved_fds(self, count: int) -> None:
        """Makes sure that the caller really passed the fds that it asks to preserve.

        All fds of our own are close-on-exec, so one that is not came from the caller; handing one of ours to a
        container would be CVE-2024-21626 again.

        Raises:
            ConfigError: one of them is not open.
        """
        import fcntl

        for fd in range(FIRST_FREE_FD, FIRST_FREE_FD + count):
            try:
                inherited = not fcntl.fcntl(fd, F_GETFD) & FD_CLOEXEC
            except OSError:
                inherited = False
            if not inherited:
                raise ConfigError(f"--preserve-fds: file descriptor {fd} was not passed by the caller")

    def foreground(self, subreaper: bool, delete: "tuple[str, str] | None" = None) -> "Attendance":
        """Gets ready to stay in the foreground; called before the process is made, so that no signal is lost.

        Args:
            subreaper: adopt the container's orphans.
            delete: state root and id of the container that the caller will delete when the process has ended; for
                whoever has to do that in its place.
        """
        from ctr_supervisor.process.foreground import Foreground

        return Foreground(subreaper)


def executable() -> Fd:
    """ctr-init in a sealed memfd.

    Raises:
        InitError: it can't be read.
    """
    binary = paths.init_binary()
    try:
        with Fd(os.open(binary, os.O_RDONLY | os.O_CLOEXEC)) as file:
            # CVE-2019-5736: the container process must not be a way to write to the file that the next start runs.
            return Fd(_kernel.memfd_sealed("ctr-init", file.fileno()))
    except OSError as error:
        raise cannot_run(error) from None


def cannot_run(error: OSError) -> InitError:
    """ctr-init did not start."""
    return InitError(
        "cannot run ctr-init",
        path=paths.init_binary(),
        syscall=getattr(error, "syscall", ""),
        errno=error.errno or 0,
    )


def shell_status(status: int) -> int:
    """A wait status as a shell shows it.

    Args:
        status: as from waitpid(2).
    """
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
