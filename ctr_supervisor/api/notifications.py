"""Notifications of a container's memory cgroup."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctr_supervisor.api.waiting import Waiter

if TYPE_CHECKING:
    from ctr_supervisor.engine import notify


class Notification:
    """Something that may happen to a container until it ends, behind a fd that becomes readable.

    To be waited for by `wait`, by iteration, or by poll(2) and its like on `fileno()` with `take()` after it. Any
    thread may close it while another one waits.

    Attributes:
        gone: the container has ended; nothing will come.
    """

    def __init__(self, source: notify.Notification) -> None:
        self._source = source
        self._waiter = Waiter(source.close)
        self.gone = False

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
        return self._source.fileno()

    def take(self) -> int:
        """How often it happened since the last call. Never waits.

        Raises:
            ValueError: it was closed.
        """
        count = self._source.take()
        self.gone = self._source.gone
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
