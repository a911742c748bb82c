"""Ends of processes that are nobody's children here, each told by a pidfd."""

import os
import select
from collections.abc import Iterator

from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_supervisor.process import status as process_status
from ctr_supervisor.service.entry import Entry
from ctr_supervisor.service.loop import READABLE


class Pidfds:
    """Pidfds of init processes, on an epoll of their own.

    Args:
        most: how many it holds, unless it must hold one more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[int, Entry] = {}
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """The fd, readable when a process has ended or was reaped."""
        return self._epoll.fileno()

    def hold(self, entry: Entry, *, must: bool = False) -> bool:
        """Gets the pidfd of an entry's process.

        Returns:
            False when the process is gone, or there is no fd left.
        """
        if not must and len(self._entries) >= self._most:
            return False
        pidfd = open_pidfd(entry.pid, entry.start_time)
        if pidfd is None:
            return False
        self.adopt(entry, pidfd)
        return True

    def adopt(self, entry: Entry, pidfd: int) -> None:
        """Goes on with a pidfd of an entry's process, which may have ended."""
        entry.pidfd = Fd(pidfd)
        self._entries[pidfd] = entry
        self._epoll.register(pidfd, 0 if entry.ended else READABLE)

    def expect_reaping(self, entry: Entry) -> None:
        """The process has ended: only the reaping is waited for, which shows as EPOLLHUP, and that is always told."""
        self._epoll.modify(entry.pidfd.number, 0)

    def let_go(self, entry: Entry) -> None:
        """Closes the pidfd of an entry, if it has one."""
        fd = entry.pidfd.number
        if fd >= 0 and self._entries.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        entry.pidfd.close()

    def ended(self) -> Iterator[tuple[Entry, int]]:
        """Entries whose processes have ended, with their EPOLL* events, but for those let go meanwhile."""
        if self._entries:
            for fd, events in self._epoll.poll(0, len(self._entries)):
                entry = self._entries.get(fd)
                if entry is not None:
                    yield entry, events

    def close(self) -> None:
        """Ends the watch; the pidfds are the entries'."""
        self._epoll.close()


def open_pidfd(pid: int, start_time: int) -> int | None:
    """A pidfd that is certainly of that process, which may have ended but is not reaped; None if it is gone."""
    try:
        pidfd = _kernel.pidfd_open(pid)
    except OSError:
        return None
    found = process_status.read_stat(pid)
    if found is not None and found[1] == start_time:
        return pidfd
    os.close(pidfd)
    return None


def kernel_tells_statuses() -> bool:
    """Whether holders of a pidfd are told how a process ended that is not their child (Linux 6.15)."""
    with Fd(_kernel.pidfd_open(os.getpid())) as own:
        try:
            _kernel.pidfd_info(own.fileno())
        except OSError:
            return False
    return True
