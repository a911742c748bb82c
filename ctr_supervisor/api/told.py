"""Notifications that a supervisor tells of, in place of fds of the kernel's that this program may not have."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from ctr_common.fd import Fd
from ctr_supervisor.api.events import FINAL
from ctr_supervisor.engine import notify

OOM, PRESSURE = "oom", "memory-pressure"


class Told(notify.Notification):
    """Counts the events of a subscription behind an eventfd. Takes them as a queue does, from any thread.

    Args:
        event: which of them count.
        on_close: ends the subscription.
    """

    __slots__ = ("_count", "_counter", "_ended", "_event", "_lock", "on_close")

    def __init__(self, event: str, on_close: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.on_close = on_close
        self._event = event
        self._count = 0
        self._ended = False
        self._lock = threading.Lock()
        self._counter = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def put(self, told: dict[str, Any] | None) -> None:
        """Something happened; None when the subscription has ended."""
        with self._lock:
            if told is None or told["event"] in FINAL:
                self._ended = True
            elif told["event"] == self._event:
                self._count += int(told.get("count", 1))
            else:
                return
            if self._counter.number >= 0:
                os.eventfd_write(self._counter.number, 1)

    put_nowait = put

    def fileno(self) -> int:
        """The eventfd."""
        return self._counter.fileno()

    def take(self) -> int:
        """How often it happened since the last call; see the base."""
        with self._lock:
            try:
                os.eventfd_read(self.fileno())
            except BlockingIOError:
                pass
            count, self._count = self._count, 0
            self.gone = self._ended
            return count

    def close(self) -> None:
        """Ends the subscription."""
        with self._lock:
            self._counter.close()
        self.on_close()


def subscription(container_id: str, level: str = "") -> tuple[str, dict[str, Any]]:
    """Which event counts, and the fields of a `subscribe` for it.

    Args:
        level: of pressure; "" for oom.
    """
    if level:
        return PRESSURE, {"id": container_id, "memory_pressure": level}
    return OOM, {"id": container_id}
