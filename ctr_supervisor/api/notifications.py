"""Notifications of a container's memory cgroup."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctr_common.fd import Fd
from ctr_supervisor.api import ends
from ctr_supervisor.api.waiting import Waiter

if TYPE_CHECKING:
    from ctr_supervisor.engine import notify


class Notification:
    """Something that may happen to a container until it ends, behind a fd that becomes readable.

    To be waited for by `wait`, by iteration, or by poll(2) and its like on `fileno()` with `take()` after it. Any
    thread may close it while another one waits.

    Args:
        source: the cgroup's; owned here from now on.
        pidfd: of the init process, likewise; None when it has ended, -1 where the source tells of that.

    Attributes:
        gone: the container has ended; nothing will come.
    """

    def __init__(self, source: notify.Notification, pidfd: int | None) -> None:
        self._source = source
        self._init = Fd(-1 if pidfd is None else pidfd)
        self._both = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._both.register(source.fileno(), select.EPOLLIN)
        self.gone = pidfd is None
        if self._init.number >= 0:
            self._both.register(self._init.number, select.EPOLLIN)
        self._waiter = Waiter(self._release)

    def _release(self) -> None:
        self._both.close()
        self._init.close()
        self._source.close()

    def __enter__(self) -> Notification:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[int]:
        """How often it happened, each time that it did, until the container ends or the notification is closed."""
        while not self.gone and not self._waiter.closed:
            count = self.wait()
            if count:
                yield count

    def fileno(self) -> int:
        """The fd, readable once there is something to `take`, or the container has ended; still owned here.

        Raises:
            ValueError: it was closed.
        """
        return self._both.fileno()

    def take(self) -> int:
        """How often it happened since the last call. Never waits.

        Raises:
            ValueError: it was closed.
        """
        # The end first: what came before it is counted then.
        if self._init.number >= 0:
            self.gone = self.gone or bool(ends.wait_until(self._init.number, 0))
        count = self._source.take()
        self.gone = self.gone or self._source.gone
        return count

    def wait(self, timeout: float | None = None) -> int:
        """Waits until it happens.

        Args:
            timeout: seconds; None waits until the container ends.

        Returns:
            How often it has happened; 0 when the time is over, the container has ended, or it was closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.gone and not self._waiter.closed:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._waiter.wait({self.fileno(): select.POLLIN}, left):
                return 0
            count = self.take()
            if count:
                return count
        return 0

    def close(self) -> None:
        """Ends the notifications; does nothing the second time."""
        self._waiter.close()
