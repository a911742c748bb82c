"""How processes of containers end: waiting, reaping, exit statuses, whoever's children they are."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Iterable
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


class Children:
    """All children of this program that are processes of containers, and have not been reaped.

    The end of a pid namespace waits until each process in it is reaped, those that came by `exec` by their parent: so
    whoever waits for an init process has to reap the others meanwhile.
    """

    def __init__(self) -> None:
        # Reentrant: the garbage collector may drop a child while this thread is in here.
        self._lock = threading.RLock()
        self._all: weakref.WeakSet[Child] = weakref.WeakSet()
        # Those that nobody refers to any more, and that still run.
        self._abandoned: set[Child] = set()
        self._watchers: set[int] = set()

    def add(self, child: Child, *, abandoned: bool = False) -> None:
        """There is one more; whoever waits is told."""
        with self._lock:
            self._all.add(child)
            if abandoned:
                self._abandoned.add(child)
            for watcher in self._watchers:
                os.eventfd_write(watcher, 1)

    def living(self) -> dict[int, Child]:
        """Those that have not been reaped, by pidfd."""
        with self._lock:
            found = list(self._all)
        return {fd: child for child in found if (fd := child.unreaped()) >= 0}

    def bury(self, child: Child) -> None:
        """Reaps a child that has ended; how it ended is remembered as long as anybody asks."""
        child.bury()
        with self._lock:
            abandoned = child in self._abandoned and child.unreaped() < 0
            if abandoned:
                self._abandoned.remove(child)
        if abandoned:
            child.close()

    def bury_all(self) -> None:
        """Reaps all that have ended, which writes down how containers did."""
        for child in self.living().values():
            self.bury(child)

    def watch(self) -> Fd:
        """An eventfd that tells of new children, until `unwatch`."""
        watcher = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        with self._lock:
            self._watchers.add(watcher.fileno())
        return watcher

    def unwatch(self, watcher: Fd) -> None:
        """Closes it."""
        with self._lock:
            self._watchers.discard(watcher.fileno())
        watcher.close()


children = Children()


def wait_for_init(pidfd: int, timeout: float | None) -> bool:
    """Waits for the end of an init process, and reaps whatever else of ours ends meanwhile.

    Args:
        timeout: seconds; None waits for ever.

    Returns:
        Whether it has ended.
    """
    deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
    watcher = children.watch()
    try:
        while True:
            living = children.living()
            living.pop(pidfd, None)
            poll = select.poll()
            for fd in (pidfd, watcher.fileno(), *living):
                poll.register(fd, select.POLLIN)
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(None if left is None else min(left, 2**31 - 1)))
            if pidfd in ready:
                return True
            if not ready and deadline is not None and time.monotonic() >= deadline:
                return False
            take_news(ready, living, watcher)
    finally:
        children.unwatch(watcher)


def take_news(ready: Iterable[int], living: dict[int, Child], watcher: Fd) -> None:
    """Buries those that have ended.

    Args:
        ready: fds that became readable.
        living: from `Children.living`.
        watcher: from `Children.watch`.
    """
    for fd in ready:
        if fd == watcher.fileno():
            try:
                os.eventfd_read(fd)
            except BlockingIOError:
                pass
        elif fd in living:
            children.bury(living[fd])


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
        self._lost = False

    def unreaped(self) -> int:
        """The pidfd as long as the process was not reaped, -1 afterwards."""
        return self._pidfd.number if self._status is None and not self._lost else -1

    def bury(self) -> None:
        """Reaps the process if it has ended."""
        with self._lock:
            if self.unreaped() >= 0 and wait_until(self._pidfd.fileno(), 0):
                try:
                    self._status = shell_status(self._reap())
                except WrongState:
                    pass  # somebody else has reaped it; `status` says so

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
                self._lost = True
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
            if self.unreaped() >= 0 and not wait_until(self._pidfd.fileno(), 0):
                heir = Child(self.pid, Fd(self._pidfd.take()), self._directory)
                self._directory = None
                children.add(heir, abandoned=True)
                return
        self.bury()
        with self._lock:
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


def wait(handle: Handle, timeout: float | None, what: str, *, init: bool) -> int:
    """Waits for the end of a process.

    Args:
        init: it is a container's init process.
        timeout: seconds; None waits for ever.
        what: names it in errors.

    Returns:
        Its exit status as a shell shows it: 0 to 255, or 128 + the signal.

    Raises:
        TimeoutError: it still runs.
        CtrError: its exit status is lost.
    """
    if not (wait_for_init if init else wait_until)(handle.fileno(), timeout):
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
