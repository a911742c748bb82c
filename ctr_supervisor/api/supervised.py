"""A container of a supervisor, as a blocking program sees it."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from ctr_common.errors import CtrError, WrongState
from ctr_common.fd import Fd
from ctr_supervisor.api import ends
from ctr_supervisor.api.connection import Connection
from ctr_supervisor.api.container import Container, checkpoint_options, restore_options
from ctr_supervisor.api.events import FINAL, Event, EventStream
from ctr_supervisor.api.operations import Ask, Made, Operations

if TYPE_CHECKING:
    from ctr_supervisor.api.client import Supervisor
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.notifications import Notification
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.types import Config, ContainerState, PressureLevel, Resources, Stats, Status


class Remote:
    """A process that the supervisor, or a keeper of its, is the parent of.

    Args:
        container: its operations.
        pidfd: owned here from now on.
    """

    def __init__(self, connection: Connection, container: Operations, pid: int, pidfd: Fd) -> None:
        self.pid = pid
        self._connection = connection
        self._container = container
        self._pidfd = pidfd
        self._status: int | None = None

    def fileno(self) -> int:
        """The pidfd.

        Raises:
            ValueError: the handle was closed.
        """
        return self._pidfd.fileno()

    def status(self) -> int:
        """The exit status of the process, which has ended.

        Raises:
            WrongState: nobody knows it.
        """
        if self._status is None:
            try:
                known = self._connection.drive(self._container.wait(self.pid))
            except CtrError:
                known = None  # the supervisor knows nothing of it; the kernel may still know
            self._status = known if known is not None else ends.status_of_other(self.fileno(), "")
        if self._status is None:
            raise WrongState(f"the exit status of process {self.pid} is lost")
        return self._status

    def close(self) -> None:
        """Lets go of it; it goes on."""
        self._pidfd.close()


class SupervisedEvents(EventStream):
    """A subscription.

    Args:
        container: whose events alone; None for all.
        interval: seconds between statistics of that container; None for none.
    """

    def __init__(self, connection: Connection, container: Operations | None, interval: float | None = None) -> None:
        self._connection = connection
        self._container = container
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._interval = interval
        self._due = None if interval is None else time.monotonic() + interval
        self._ended = False
        fields = {"id": container.id} if container is not None else {}
        self._seq, packet = connection.request(Ask("subscribe", fields), None, self._events)
        packet.close()

    def next(self, timeout: float | None = None) -> Event | None:
        """See the base."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            limits = [each for each in (deadline, self._due) if each is not None]
            try:
                told = self._events.get(timeout=max(0.0, min(limits) - time.monotonic()) if limits else None)
            except queue.Empty:
                if self._due is not None and time.monotonic() >= self._due:
                    event = self._stats()
                    if event is not None:
                        return event
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                continue
            if told is None:
                self._ended = True
                break
            event = event_of(told)
            if self._container is not None and event.type in FINAL:
                self.close()
            return event
        return None

    def _stats(self) -> Event | None:
        assert self._container is not None
        assert self._interval is not None
        self._due = time.monotonic() + self._interval
        try:
            stats = self._connection.drive(self._container.stats())
        except CtrError:
            return None  # it has ended; the event of that comes
        return Event("stats", self._container.id, time.time(), {"stats": stats})

    def close(self) -> None:
        """Ends the subscription."""
        self._ended = True
        self._connection.forget(self._seq)

    def __del__(self) -> None:
        # Nobody would ever read what is collected for it.
        if hasattr(self, "_seq"):
            self.close()


def event_of(told: dict[str, Any]) -> Event:
    """An event as the protocol has it."""
    data = {name: value for name, value in told.items() if name not in ("type", "seq", "event", "id", "time")}
    return Event(str(told.get("event", "")), str(told.get("id", "")), float(told.get("time", 0)), data)


class SupervisedContainer(Container):
    """A container of a supervisor.

    Args:
        supervisor: kept open as long as the container is in use.
        operations: what can be asked about it.
    """

    def __init__(self, supervisor: Supervisor, connection: Connection, operations: Operations) -> None:
        self._supervisor = supervisor
        self._connection = connection
        self._ops = operations
        self._init: Process | None = None
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Its id."""
        return self._ops.id

    @property
    def status(self) -> Status:
        """See the base."""
        return self._connection.drive(self._ops.status())

    @property
    def state(self) -> ContainerState:
        """See the base."""
        return self._connection.drive(self._ops.state())

    @property
    def config(self) -> Config:
        """See the base."""
        return self._connection.drive(self._ops.config())

    @property
    def pid(self) -> int:
        """See the base."""
        return self._connection.drive(self._ops.pid())

    @property
    def exit_status(self) -> int | None:
        """See the base."""
        return self._connection.drive(self._ops.exit_status())

    def _started(self, process: Process, made: Made) -> Process:
        handle = Remote(self._connection, self._ops, made.pid, made.pidfd)
        process.started(handle, made.streams.files(), made.console)
        if process.init:
            self._init = process
        return process

    def _start(self, process: Process, *, at_once: bool) -> Process:
        if not process.init:
            return self._started(process, self._connection.drive(self._ops.start(process)))
        # Two threads that start the same container: the second one shall see what the first one did.
        with self._lock:
            return self._started(process, self._connection.drive(self._ops.start(process, at_once=at_once)))

    def start(self, process: Process) -> Process:
        """See the base."""
        return self._start(process, at_once=False)

    def run(self, process: Process) -> Process:
        """See the base; in one request."""
        return self._start(process, at_once=True)

    def exec(self) -> None:
        """See the base."""
        self._connection.drive(self._ops.exec())

    def _abandon(self, process: Process) -> None:
        """Never: the supervisor does."""

    def wait(self, timeout: float | None = None) -> int | None:
        """See the base."""
        if self._init is not None and timeout is not None:
            try:
                return self._init.wait(timeout)
            except ValueError:
                pass  # its handle was closed
        try:
            return self._connection.drive(self._ops.wait(), timeout)
        except TimeoutError:
            raise TimeoutError(f"container {self.id} still runs after {timeout:g} seconds") from None

    def signal(self, signal: int | str, *, all: bool = False) -> None:
        """See the base."""
        self._connection.drive(self._ops.signal(signal, all=all))

    def pause(self) -> None:
        """See the base."""
        self._connection.drive(self._ops.pause())

    def resume(self) -> None:
        """See the base."""
        self._connection.drive(self._ops.resume())

    def destroy(self, *, force: bool = False) -> None:
        """See the base."""
        self._connection.drive(self._ops.destroy(force=force))

    def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """See the base."""
        self._connection.drive(self._ops.set(resources, l3_cache_schema, mem_bw_schema))

    def stats(self) -> Stats:
        """See the base."""
        return self._connection.drive(self._ops.stats())

    def processes(self) -> list[int]:
        """See the base."""
        return self._connection.drive(self._ops.processes())

    def events(self, interval: float | None = None) -> EventStream:
        """See the base."""
        return SupervisedEvents(self._connection, self._ops, interval)

    def _notified(self, level: str = "") -> Notification:
        from ctr_supervisor.api.notifications import Notification
        from ctr_supervisor.api.told import Told, subscription

        event, fields = subscription(self.id, level)
        source = Told(event)
        seq, packet = self._connection.request(Ask("subscribe", fields), None, source)
        packet.close()
        source.on_close = lambda: self._connection.forget(seq)
        if self.status == "stopped":
            # Nothing will come, not even its end.
            source.put(None)
        return Notification(source, -1)

    def notify_oom(self) -> Notification:
        """See the base."""
        return self._notified()

    def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See the base."""
        return self._notified(level)

    def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return self._connection.drive(self._ops.checkpoint(checkpoint_options(options)))

    def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return self._connection.drive(self._ops.checkpoint(checkpoint_options(options), pre_dump=True))

    def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """See the base."""
        wanted = restore_options(options, process)
        with self._lock:
            return self._started(process, self._connection.drive(self._ops.restore(process, wanted)))
