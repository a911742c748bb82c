"""Waiting for several fds, in a way that another thread can end."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from ctr_common.fd import Fd


class Waiter:
    """Waits with poll(2), until `close` is called from wherever.

    Args:
        release: closes what is waited for; called once nobody waits any more.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._wake = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._lock = threading.Lock()
        self._inside = 0
        self._release = release
        self._released = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed, by whatever thread."""
        return self._closed

    def wait(self, fds: dict[int, int], timeout: float | None) -> dict[int, int]:
        """Waits for one of the fds.

        Args:
            fds: events of poll(2) by fd.
            timeout: seconds; None waits until `close`.

        Returns:
            What happened, by fd; nothing after the timeout, and after `close`.
        """
        with self._lock:
            if self._closed:
                return {}
            self._inside += 1
        try:
            poll = select.poll()
            for fd, events in fds.items():
                poll.register(fd, events)
            wake = self._wake.fileno()
            poll.register(wake, select.POLLIN)
            deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                ready = dict(poll.poll(None if left is None else min(left, 2**31 - 1)))
                if wake in ready:
                    return {}
                if ready or (deadline is not None and time.monotonic() >= deadline):
                    return ready
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closed and self._inside == 0 and not self._released
            self._released = self._released or last
        if last:
            self._wake.close()
            self._release()

    def close(self) -> None:
        """Ends every wait, now and later; does nothing the second time."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._inside += 1
            os.eventfd_write(self._wake.fileno(), 1)
        self._leave()
