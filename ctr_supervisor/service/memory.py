"""Lack of memory in containers, watched for as long as somebody wants to be told."""

import time
from collections.abc import Callable, Collection
from typing import Any

from ctr_common.errors import CtrError
from ctr_supervisor.engine import notify
from ctr_supervisor.service.loop import Loop

# Beside the levels of pressure (engine/notify.py): processes that were killed.
OOM = "oom"
PRESSURE = "memory-pressure"


class MemoryWatches:
    """Notifications of memory cgroups.

    Args:
        tell: gets the events.
    """

    def __init__(self, loop: Loop, tell: Callable[[dict[str, Any]], None]) -> None:
        self.loop = loop
        self._tell = tell
        self._watches: dict[str, dict[str, notify.Notification]] = {}

    def ids(self) -> list[str]:
        """Ids of containers that are watched."""
        return list(self._watches)

    def watch(self, container_id: str, paths: dict[str, str], kinds: Collection[str]) -> None:
        """Watches for these kinds and no others; what can't be watched is left out.

        Args:
            paths: the container's cgroups by controller.
            kinds: OOM and levels of pressure.
        """
        self.only(container_id, kinds)
        for kind in kinds:
            try:
                self.add(container_id, paths, kind)
            except CtrError:
                # Without a memory cgroup there is nothing to tell.
                continue

    def add(self, container_id: str, paths: dict[str, str], kind: str) -> None:
        """Watches for one more kind.

        Raises:
            CgroupError: the container has no memory cgroup, or it can't be watched.
            NotSupported: the kernel has no pressure stall information.
        """
        if kind in self._watches.get(container_id, ()):
            return
        made = notify.oom(paths) if kind == OOM else notify.memory_pressure(paths, kind)
        self._watches.setdefault(container_id, {})[kind] = made
        self.loop.add(made.fileno(), lambda _: self._take(container_id, kind))

    def take(self, container_id: str) -> None:
        """Tells of what has happened by now."""
        for kind in list(self._watches.get(container_id, ())):
            if kind == OOM:
                # A look at pressure that nothing has announced would count as one.
                self._take(container_id, kind)

    def _take(self, container_id: str, kind: str) -> None:
        notification = self._watches.get(container_id, {}).get(kind)
        if notification is None:
            return
        count = notification.take()
        if count:
            told: dict[str, Any] = {"event": OOM} if kind == OOM else {"event": PRESSURE, "level": kind}
            self._tell({**told, "id": container_id, "time": time.time(), "count": count})
        if notification.gone:
            self._forget(container_id, kind)

    def only(self, container_id: str, kinds: Collection[str]) -> None:
        """Ends the watch for all other kinds."""
        for kind in [kind for kind in self._watches.get(container_id, ()) if kind not in kinds]:
            self._forget(container_id, kind)

    def _forget(self, container_id: str, kind: str) -> None:
        notification = self._watches[container_id].pop(kind)
        if not self._watches[container_id]:
            del self._watches[container_id]
        self.loop.remove(notification.fileno())
        notification.close()
