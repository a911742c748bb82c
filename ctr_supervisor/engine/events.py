"""`events`: statistics at intervals, and the kills for lack of memory, until the container ends."""

import os
import select
import time

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import stats
from ctr_supervisor.engine.notify import (
    CRITICAL,
    LEVELS,
    LOW,
    MEDIUM,
    Notification,
    notify_memory_pressure,
    notify_oom,
)
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = [
    "CRITICAL",
    "LEVELS",
    "LOW",
    "MEDIUM",
    "Notification",
    "events",
    "notify_memory_pressure",
    "notify_oom",
    "stats_event",
]

# poll(2) takes milliseconds in an int; a longer wait is waited for in parts.
POLL_MAX = 2**31 - 1


def stats_event(container: containers.Container) -> "dict[str, Any]":
    """The statistics of this moment in the shape that runc prints."""
    return {"type": "stats", "id": container.id, "data": stats.of_container(container)}


def events(runtime: Runtime, container_id: str, interval: int, reader: int = -1) -> "Iterator[dict[str, Any]]":
    """The events of a container as they come; ends when its init process does, or when nobody listens any more.

    Waits in poll(2) and nowhere else.

    Args:
        interval: nanoseconds between statistics; the first come after one interval.
        reader: fd that the events are written to, to notice that its other end was closed; -1 for none.

    Raises:
        ContainerNotFound: there is no such container.
        WrongState: it has stopped.
    """
    container = containers.load(runtime, container_id)
    stats.check_running(container)
    pidfd = container.open_pidfd()
    if pidfd is None:
        return
    with Fd(pidfd):
        oom = _watch_oom(container)
        try:
            yield from _follow(container, interval, pidfd, oom, reader)
        finally:
            if oom is not None:
                oom.close()


def _watch_oom(container: containers.Container) -> "Notification | None":
    """The OOM notification; a container without a memory cgroup still has statistics."""
    runtime = container.runtime
    if runtime.rootless_cgroups:
        runtime.warn("getting OOM notifications may fail if you don't have the full access to cgroups")
    try:
        return notify_oom(container)
    except CtrError as error:
        runtime.ignore(error.within("no OOM notifications"))
        return None


def _follow(
    container: containers.Container, interval: int, pidfd: int, oom: "Notification | None", reader: int
) -> "Iterator[dict[str, Any]]":
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if oom is not None:
        poll.register(oom.fileno(), select.POLLIN)
    if _can_hang_up(reader):
        poll.register(reader, 0)
    due = time.monotonic_ns() + interval
    while True:
        wait = max(due - time.monotonic_ns(), 0)
        ready = dict(poll.poll(min(-(-wait // 1_000_000), POLL_MAX)))
        # What killed the container is told before its end.
        if oom is not None and (oom.fileno() in ready or pidfd in ready):
            for _ in range(oom.take()):
                yield {"type": "oom", "id": container.id}
            if oom.gone:
                return
        if pidfd in ready or reader in ready:
            return
        now = time.monotonic_ns()
        if now >= due:
            # A tick that was missed is not made up for.
            due = max(due + interval, now)
            try:
                yield stats_event(container)
            except CtrError as error:
                container.runtime.ignore(error)


def _can_hang_up(fd: int) -> bool:
    """Whether poll(2) can tell that nobody reads any more; it calls a closed number an event, too."""
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True
