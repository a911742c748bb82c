"""What happens to containers, as a stream."""

from __future__ import annotations

import os
import select
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctr_common.errors import ContainerNotFound, CtrError, StateError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import IN_DELETE, IN_DELETE_SELF, IN_IGNORED, IN_MOVED_TO
from ctr_common.state import CONFIG_FILE, FIFO_FILE, STATE_FILE
from ctr_supervisor.api import ends
from ctr_supervisor.api.waiting import Waiter

if TYPE_CHECKING:
    from ctr_supervisor.engine.container import Container as EngineContainer
    from ctr_supervisor.engine.notify import Notification

FINAL = ("exited", "deleted")
# How long the rest of a start may take when the program has ended already, in seconds.
START_LIMIT = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        type: created, started, paused, resumed, updated, deleted, exited, exec-started, exec-exited, oom, stats, or
            lost (events that this reader was too slow for). In-process nobody is told of pauses and execs. A supervisor
            may see a program that ends at once exit before it sees the start.
        id: of the container.
        time: seconds since the epoch.
        data: what belongs to it: `pid`, `status` (the exit status, where it is known), `count` of lost ones, `stats`.
    """

    type: str
    id: str
    time: float
    data: dict[str, Any] = field(default_factory=dict)


class EventStream(ABC):
    """Events as they come; an iterator, which ends with the container. Any thread may close it."""

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self.next()
        if event is None:
            raise StopIteration
        return event

    @abstractmethod
    def next(self, timeout: float | None = None) -> Event | None:
        """Waits for the next event.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            None when the time is over, or the stream has ended.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the stream; does nothing the second time."""


class DirectEvents(EventStream):
    """The events of one container, from the kernel: its state directory, its process, its memory cgroup.

    Args:
        load: gives the container as it is at the moment.
        interval: seconds between statistics; None for none.

    Raises:
        ContainerNotFound: there is none.
    """

    def __init__(self, load: Callable[[], EngineContainer], interval: float | None) -> None:
        self._load = load
        self._interval = interval
        self._queue: deque[Event] = deque()
        self._ended = False
        self._gone = False
        self._pidfd = Fd(-1)
        self._oom: Notification | None = None
        self._watch = Fd(_kernel.inotify_init(os.O_NONBLOCK))
        self._waiter = Waiter(self._release)
        self._due = None if interval is None else time.monotonic() + interval
        try:
            # The watch first: what happens from now on is seen, and what has happened is looked up behind it.
            container = self._container = load()
            try:
                _kernel.inotify_add_watch(
                    self._watch.fileno(), container.directory.path, IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF
                )
            except FileNotFoundError:
                raise ContainerNotFound("container does not exist") from None
            self._attach()
            if self._gone:
                self._end()
        except BaseException:
            self._waiter.close()
            raise

    def _attach(self) -> None:
        """Looks at the process, once there is one, and whether it is gone already."""
        self._container = self._load()
        if self._container.pid and self._pidfd.number < 0:
            pidfd = self._container.open_pidfd()
            if pidfd is None:
                self._gone = True
                return
            self._pidfd = Fd(pidfd)
            from ctr_supervisor.engine import notify

            try:
                self._oom = notify.notify_oom(self._container)
            except CtrError:
                pass  # no memory cgroup, no such events

    def next(self, timeout: float | None = None) -> Event | None:
        """Waits for the next event; see the base."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._queue:
            if self._ended or self._waiter.closed:
                self.close()
                return None
            fds = {self._watch.fileno(): select.POLLIN}
            if self._pidfd.number >= 0:
                fds[self._pidfd.fileno()] = select.POLLIN
            if self._oom is not None:
                fds[self._oom.fileno()] = select.POLLIN
            limits = [each for each in (deadline, self._due) if each is not None]
            ready = self._waiter.wait(fds, min(limits) - time.monotonic() if limits else None)
            if not self._waiter.closed:
                self._take(ready)
            if not ready and not self._queue and deadline is not None and time.monotonic() >= deadline:
                return None
        return self._queue.popleft()

    def _take(self, ready: dict[int, int]) -> None:
        ended = self._pidfd.number >= 0 and self._pidfd.fileno() in ready
        # What killed the container is told before its end.
        if self._oom is not None and (self._oom.fileno() in ready or ended):
            for _ in range(self._oom.take()):
                self._tell("oom")
            if self._oom.gone:
                self._oom.close()
                self._oom = None
        if self._watch.fileno() in ready:
            self._take_changes()
        if (ended or self._gone) and not self._ended:
            self._end()
        if self._due is not None and self._interval is not None and time.monotonic() >= self._due and not self._ended:
            self._due = max(self._due + self._interval, time.monotonic())
            self._tell_stats()

    def _take_changes(self) -> None:
        for _, mask, name in _kernel.read_inotify(self._watch.fileno()):
            if mask & (IN_DELETE_SELF | IN_IGNORED):
                if not self._ended:
                    self._ended = True
                    self._tell("deleted")
            elif mask & IN_MOVED_TO and name == STATE_FILE:
                before = bool(self._container.state.get("prepared"))
                try:
                    self._attach()
                except (ContainerNotFound, StateError):
                    continue
                if self._container.state.get("prepared") and not before:
                    self._tell("created", pid=self._container.pid)
            elif mask & IN_MOVED_TO and name == CONFIG_FILE and self._container.state.get("prepared"):
                self._tell("updated")
            elif mask & IN_DELETE and name == FIFO_FILE and not self._ended and self._was_started():
                self._tell("started", pid=self._container.pid)

    def _was_started(self) -> bool:
        """Whether the fifo went because of the start; a deletion takes everything else as well, after the process."""
        return self._container.is_alive() or os.path.exists(self._container.directory.file(STATE_FILE))

    def _tell_stats(self) -> None:
        from ctr_supervisor.engine import stats

        try:
            if self._container.pid:
                self._tell("stats", stats=stats.of_container(self._container))
        except CtrError:
            pass  # its cgroups are being removed

    def _await_start(self) -> None:
        """Lets a start that is under way finish: the program may have ended before the fifo is removed."""
        directory = self._container.directory
        deadline = time.monotonic() + START_LIMIT
        while not self._ended:
            # Looked at before the watch: a fifo that is removed in between is seen there.
            under_way = directory.has_fifo() and directory.is_locked()
            limit = max(0.0, deadline - time.monotonic()) if under_way else 0.0
            if not self._waiter.wait({self._watch.fileno(): select.POLLIN}, limit):
                return
            self._take_changes()

    def _end(self) -> None:
        if self._container.state.get("prepared"):
            self._await_start()
        if self._ended:
            return
        self._ended = True
        known: dict[str, Any] = {"pid": self._container.pid}
        path = self._container.directory.path
        if self._pidfd.number >= 0:
            status = ends.status_of_other(self._pidfd.fileno(), path)
        else:
            status = ends.written_down(path)
        if status is not None:
            known["status"] = status
        self._tell("exited", **known)

    def _tell(self, type: str, **data: Any) -> None:
        self._queue.append(Event(type, self._container.id, time.time(), data))

    def _release(self) -> None:
        self._watch.close()
        self._pidfd.close()
        if self._oom is not None:
            self._oom.close()

    def close(self) -> None:
        """Ends the stream."""
        self._waiter.close()
