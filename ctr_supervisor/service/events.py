"""The stream of events: what happens to containers, told to whoever subscribed, and never waiting for any of them.

registry (created, started, paused, resumed, exited, deleted) ─┐
jobs (updated, exec-started, exec-exited) ─────────────────────┼─▶ Hub ──▶ a bounded queue for each subscriber
memory cgroups (oom, memory-pressure), while somebody listens ─┘
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_common.errors import CtrError
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.memory import OOM, PRESSURE, MemoryWatches
from ctr_supervisor.service.registry import Registry

# Events that wait for a subscriber who does not read; of the rest he gets the number.
QUEUE_MAX = 1024

# Takes an event, or says False when there is no room for it now.
Deliver = Callable[[dict[str, Any]], bool]


class Subscription:
    """Somebody who listens.

    Args:
        deliver: called with each event, in order.
        container_id: whose events alone are wanted; "" for all.
        pressure: level of memory pressure from which on it is told of; "" for never.
    """

    __slots__ = ("_deliver", "_lost", "_queue", "container_id", "pressure")

    def __init__(self, deliver: Deliver, container_id: str = "", pressure: str = "") -> None:
        self.container_id = container_id
        self.pressure = pressure
        self._deliver = deliver
        self._queue: deque[dict[str, Any]] = deque()
        self._lost = 0

    def wants(self, container_id: str) -> bool:
        """Whether events of that container are for this subscriber."""
        return self.container_id in ("", container_id)

    def wants_event(self, event: dict[str, Any]) -> bool:
        """Whether this subscriber is told of it."""
        return self.wants(event["id"]) and (event["event"] != PRESSURE or event["level"] == self.pressure)

    def offer(self, event: dict[str, Any]) -> None:
        """An event for this subscriber: now, later, or as one of those that were lost."""
        if not self._queue and not self._lost and self._deliver(event):
            return
        if self._lost or len(self._queue) >= QUEUE_MAX:
            # What comes after a lost one is told only behind the number of those, so it is lost too until then.
            self._lost += 1
        else:
            self._queue.append(event)

    def resume(self) -> None:
        """There is room again."""
        while self._queue and self._deliver(self._queue[0]):
            self._queue.popleft()
        if not self._queue and self._lost:
            lost = {"event": "lost", "id": self.container_id, "time": time.time(), "count": self._lost}
            if self._deliver(lost):
                self._lost = 0

    @property
    def backlog(self) -> tuple[list[dict[str, Any]], int]:
        """Events that wait, and how many were lost behind them: what another process needs to go on."""
        return list(self._queue), self._lost

    def restore(self, queue: list[dict[str, Any]], lost: int) -> None:
        """Goes on where the subscription with that `backlog` was."""
        self._queue.extend(queue)
        self._lost = lost


class Hub:
    """Brings events from where they arise to the subscribers.

    Args:
        registry: told to look at changes at once while somebody listens.
    """

    def __init__(self, loop: Loop, registry: Registry) -> None:
        self.loop = loop
        self.registry = registry
        self._subscriptions: list[Subscription] = []
        self._memory = MemoryWatches(loop, self._tell)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(
        self, deliver: Deliver, container_id: str = "", pressure: str = "", *, later: bool = False
    ) -> Subscription:
        """Starts to tell somebody of what happens from now on.

        Args:
            deliver, container_id, pressure: see `Subscription`.
            later: more subscribers follow who are to hear the same; `resume` begins for all of them.
        """
        if not self._subscriptions and not later:
            self.registry.tell_at_once(True)
        self._subscriptions.append(made := Subscription(deliver, container_id, pressure))
        if not later:
            self._watch_memory()
        return made

    def resume(self) -> None:
        """Begins to tell those who subscribed for later."""
        for subscription in self._subscriptions:
            subscription.resume()
        self.registry.tell_at_once(bool(self._subscriptions))
        self._watch_memory()

    def check_pressure(self, container_id: str, level: str) -> None:
        """Finds out whether the pressure of a container can be told.

        Raises:
            CgroupError: it has no memory cgroup, or there is no such level.
            NotSupported: the kernel has no pressure stall information.
            ContainerNotFound, UsageError, StateError: see `Registry.describe`.
        """
        self._memory.add(container_id, self.registry.state(container_id).get("cgroup_paths") or {}, level)

    def _watch_memory(self) -> None:
        for live_id, paths in self.registry.live():
            self._memory.watch(live_id, paths, self._kinds(live_id))

    def _kinds(self, container_id: str) -> set[str]:
        """What somebody wants to be told of the memory of a container."""
        wanting = [subscription for subscription in self._subscriptions if subscription.wants(container_id)]
        return {one.pressure for one in wanting if one.pressure} | ({OOM} if wanting else set())

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tells no more; does nothing the second time."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        for container_id in self._memory.ids():
            self._memory.only(container_id, self._kinds(container_id))
        if not self._subscriptions:
            self.registry.tell_at_once(False)

    def publish(self, event: dict[str, Any]) -> None:
        """Tells everybody who wants to know.

        Args:
            event: with `event`, `id` and `time`.
        """
        if not self._subscriptions:
            return
        container_id = event["id"]
        if event["event"] in ("exited", "deleted"):
            self._memory.take(container_id)
            self._memory.only(container_id, ())
        self._tell(event)
        if event["event"] in ("created", "started") and (kinds := self._kinds(container_id)):
            try:
                self._memory.watch(container_id, self.registry.state(container_id).get("cgroup_paths") or {}, kinds)
            except CtrError:
                # It is gone already.
                pass

    def happened(self, event: str, container_id: str, **fields: Any) -> None:
        """Tells of something that only the caller knows, as of now."""
        self.publish({"event": event, "id": container_id, "time": time.time(), **fields})

    def _tell(self, event: dict[str, Any]) -> None:
        for subscription in list(self._subscriptions):
            if subscription.wants_event(event):
                subscription.offer(event)

    def close(self) -> None:
        """Lets go of everything."""
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)
