"""How processes of containers end: waiting, reaping, exit statuses, whoever's children they are."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Protocol

from ctr_common.errors import CtrError, WrongState
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_supervisor.process.parent import shell_status

STATUS_FILE = "exit-status"
# How long a dead process may take to be reaped by whoever is its parent: until then nobody else knows its status.
REAPED_WITHIN = 2.0


class Handle(Protocol):
    """A process of a container that was started here."""

    pid: int

    def fileno(self) -> int:
        """A pidfd, still owned by the handle."""

    def status(self) -> int:
        """The exit status of the process, which has ended."""

    def close(self) -> None:
        """Lets go of it; it goes on."""


def wait_until(fd: int, timeout: float | None, events: int = select.POLLIN) -> bool:
    """Waits for a fd.

    Args:
        timeout: seconds; None waits for ever.
        events: of poll(2).

    Returns:
        Whether it is ready.
    """
    poll = select.poll()
    poll.register(fd, events)
    deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if poll.poll(None if left is None else min(left, 2**31 - 1)):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False


# Children that nobody refers to any more and that still run; those that have ended are buried with the next start.
_abandoned: list[Child] = []
_abandoned_lock = threading.Lock()


def bury_abandoned() -> None:
    """Reaps children that ended after the last reference to them was gone."""
    with _abandoned_lock:
        ended = [child for child in _abandoned if wait_until(child.fileno(), 0)]
        for child in ended:
            _abandoned.remove(child)
    for child in ended:
        child.close()


class Child:
    """A process that is a child of this one.

    Args:
        pidfd: owned here from now on.
        status_directory: the state directory, open, for the exit status of a container's init process; None for others.
    """

    def __init__(self, pid: int, pidfd: Fd, status_directory: Fd | None = None) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._directory = status_directory
        self._lock = threading.Lock()
        self._status: int | None = None

    def fileno(self) -> int:
        """The pidfd.

        Raises:
            ValueError: the handle was closed.
        """
        return self._pidfd.fileno()

    def status(self) -> int:
        """Reaps the process, which has ended, and gives its exit status as a shell would; any number of times.

        Raises:
            WrongState: somebody else has reaped it, and this kernel (before 6.15) tells nobody how it ended.
        """
        with self._lock:
            if self._status is None:
                self._status = shell_status(self._reap())
            return self._status

    def _reap(self) -> int:
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd.fileno(), os.WEXITED)
        except ChildProcessError:
            # A handler of SIGCHLD that reaps every child, or SIGCHLD ignored.
            known = told(self._pidfd.fileno())
            if known is None:
                raise WrongState(
                    f"somebody else has waited for process {self.pid}, and its exit status is lost"
                ) from None
            return known
        assert found is not None
        status = found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status
        self._write_down(status)
        return status

    def _write_down(self, status: int) -> None:
        """Leaves the status for whoever looks at the container next, as a keeper does (c/nsexec/keeper.c)."""
        if self._directory is None or self._directory.number < 0:
            return
        with self._directory as directory:
            number, partial = directory.fileno(), f".{STATUS_FILE}.new"
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                with Fd(os.open(partial, flags, 0o600, dir_fd=number)) as file:
                    os.write(file.fileno(), f"{status}\n".encode())
                os.rename(partial, STATUS_FILE, src_dir_fd=number, dst_dir_fd=number)
            except OSError:
                pass  # the container was deleted meanwhile

    def close(self) -> None:
        """Lets go of it; it is reaped some time after its end all the same."""
        with self._lock:
            if self._pidfd.number < 0:
                return
            if self._status is None and not wait_until(self._pidfd.fileno(), 0):
                heir = Child(self.pid, Fd(self._pidfd.take()), self._directory)
                self._directory = None
                with _abandoned_lock:
                    _abandoned.append(heir)
                return
            if self._status is None:
                try:
                    self._status = shell_status(self._reap())
                except WrongState:
                    pass  # somebody else has reaped it
            self._pidfd.close()
            if self._directory is not None:
                self._directory.close()

    def __del__(self) -> None:
        try:
            self.close()
        except (AttributeError, TypeError, OSError):
            pass  # the interpreter is ending, or __init__ failed


class Foreign:
    """A process that somebody else is the parent of.

    Args:
        pidfd: owned here from now on.
        directory: state directory of the container whose init process it is.
    """

    def __init__(self, pid: int, pidfd: Fd, directory: str) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._directory = directory

    def fileno(self) -> int:
        """The pidfd; errors as of `Child`."""
        return self._pidfd.fileno()

    def status(self) -> int:
        """The exit status of the process, which has ended.

        Raises:
            WrongState: nobody knows it.
        """
        status = status_of_other(self._pidfd.fileno(), self._directory)
        if status is None:
            raise WrongState(f"process {self.pid} was not ours to wait for, and its exit status is lost")
        return status

    def close(self) -> None:
        """Lets go of it."""
        self._pidfd.close()


def told(pidfd: int) -> int | None:
    """The wait status of a process that somebody has reaped; None where the kernel does not say."""
    try:
        return _kernel.pidfd_info(pidfd)
    except OSError:
        return None


def status_of_other(pidfd: int, directory: str) -> int | None:
    """The exit status of a process that has ended, and need not be a child of this one.

    Args:
        pidfd: open since before its end.
        directory: state directory of the container whose init process it was.

    Returns:
        As a shell shows it; None where nobody knows it.
    """
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        found = None
    if found is not None:
        return 128 + found.si_status if found.si_code != os.CLD_EXITED else found.si_status
    # POLLHUP tells that it was reaped, since Linux 6.11; poll(2) reports it without being asked.
    wait_until(pidfd, REAPED_WITHIN, 0)
    status = told(pidfd)
    return shell_status(status) if status is not None else written_down(directory)


def written_down(directory: str) -> int | None:
    """The exit status that a keeper or a `Child` left in a state directory; None where there is none."""
    try:
        with Fd(os.open(f"{directory}/{STATUS_FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            return shell_status(int(os.read(file.fileno(), 32)))
    except (OSError, ValueError):
        return None


def wait(handle: Handle, timeout: float | None, what: str) -> int:
    """Waits for the end of a process.

    Args:
        timeout: seconds; None waits for ever.
        what: names it in errors.

    Returns:
        Its exit status as a shell shows it: 0 to 255, or 128 + the signal.

    Raises:
        TimeoutError: it still runs.
        CtrError: its exit status is lost.
    """
    if not wait_until(handle.fileno(), timeout):
        raise TimeoutError(f"{what} still runs after {timeout:g} seconds")
    return handle.status()


def signal_number(signal: int | str) -> int:
    """Number of a signal.

    Args:
        signal: a number, a member of `signal.Signals`, or a name with or without SIG.

    Raises:
        UsageError: there is none of that name.
    """
    from ctr_supervisor.cli.kill import parse_signal

    return parse_signal(signal) if isinstance(signal, str) else int(signal)


def send_signal(handle: Handle, signal: int | str) -> None:
    """Signals a process through its pidfd.

    Raises:
        WrongState: it has ended.
        UsageError, CtrError: the signal does not exist, or is not allowed.
    """
    number = signal_number(signal)
    try:
        _kernel.pidfd_send_signal(handle.fileno(), number)
    except ProcessLookupError:
        raise WrongState(f"process {handle.pid} has ended") from None
    except OSError as error:
        raise CtrError.from_os_error(error, step=f"sending signal {number} to process {handle.pid}") from None
