"""The stream of events: what happens to containers, told to whoever subscribed, and never waiting for any of them.

registry (created, started, paused, resumed, exited, deleted) ─┐
jobs (updated, exec-started, exec-exited) ─────────────────────┼─▶ Hub ──▶ a bounded queue for each subscriber
memory cgroups (oom), only while somebody listens ─────────────┘
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_common.errors import CtrError
from ctr_supervisor.engine import notify
from ctr_supervisor.service.loop import Loop
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
    """

    __slots__ = ("_deliver", "_lost", "_queue", "container_id")

    def __init__(self, deliver: Deliver, container_id: str = "") -> None:
        self.container_id = container_id
        self._deliver = deliver
        self._queue: deque[dict[str, Any]] = deque()
        self._lost = 0

    def wants(self, container_id: str) -> bool:
        """Whether events of that container are for this subscriber."""
        return self.container_id in ("", container_id)

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
        self._oom: dict[str, notify.Notification] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, deliver: Deliver, container_id: str = "", *, later: bool = False) -> Subscription:
        """Starts to tell somebody of what happens from now on.

        Args:
            deliver, container_id: see `Subscription`.
            later: more subscribers follow who are to hear the same; `resume` begins for all of them.
        """
        if not self._subscriptions and not later:
            self.registry.tell_at_once(True)
        self._subscriptions.append(made := Subscription(deliver, container_id))
        if not later:
            self._watch_ooms()
        return made

    def resume(self) -> None:
        """Begins to tell those who subscribed for later."""
        for subscription in self._subscriptions:
            subscription.resume()
        self.registry.tell_at_once(bool(self._subscriptions))
        self._watch_ooms()

    def _watch_ooms(self) -> None:
        for live_id, paths in self.registry.live():
            if self._is_wanted(live_id):
                self._watch_oom(live_id, paths)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tells no more; does nothing the second time."""
        if subscription not in self._subscriptions:
            return
        self._subscriptions.remove(subscription)
        for container_id in list(self._oom):
            if not self._is_wanted(container_id):
                self._forget_oom(container_id)
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
            self._take_oom(container_id)
            self._forget_oom(container_id)
        self._tell(event)
        if event["event"] in ("created", "started") and self._is_wanted(container_id):
            try:
                self._watch_oom(container_id, self.registry.state(container_id).get("cgroup_paths") or {})
            except CtrError:
                # It is gone already.
                pass

    def happened(self, event: str, container_id: str, **fields: Any) -> None:
        """Tells of something that only the caller knows, as of now."""
        self.publish({"event": event, "id": container_id, "time": time.time(), **fields})

    def _tell(self, event: dict[str, Any]) -> None:
        for subscription in list(self._subscriptions):
            if subscription.wants(event["id"]):
                subscription.offer(event)

    def _is_wanted(self, container_id: str) -> bool:
        return any(subscription.wants(container_id) for subscription in self._subscriptions)

    # -- processes that were killed for lack of memory

    def _watch_oom(self, container_id: str, paths: dict[str, str]) -> None:
        if container_id in self._oom:
            return
        try:
            notification = notify.oom(paths)
        except CtrError:
            # Without a memory cgroup there is nothing to tell.
            return
        self._oom[container_id] = notification
        self.loop.add(notification.fileno(), lambda _: self._take_oom(container_id))

    def _take_oom(self, container_id: str) -> None:
        notification = self._oom.get(container_id)
        if notification is None:
            return
        if notification.take():
            self._tell({"event": "oom", "id": container_id, "time": time.time()})
        if notification.gone:
            self._forget_oom(container_id)

    def _forget_oom(self, container_id: str) -> None:
        notification = self._oom.pop(container_id, None)
        if notification is not None:
            self.loop.remove(notification.fileno())
            notification.close()

    def close(self) -> None:
        """Lets go of everything."""
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)
