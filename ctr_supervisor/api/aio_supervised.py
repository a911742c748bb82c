"""A container of a supervisor, for asyncio."""

from __future__ import annotations

import asyncio
import builtins
import os
import time
from typing import TYPE_CHECKING, Any

from ctr_common.errors import CtrError, WrongState
from ctr_common.fd import Fd
from ctr_supervisor.api import ends
from ctr_supervisor.api.aio_base import Container, EventStream, Notification, Process
from ctr_supervisor.api.aio_connection import Connection
from ctr_supervisor.api.container import checkpoint_options, restore_options
from ctr_supervisor.api.events import FINAL, Event
from ctr_supervisor.api.operations import Ask, Made, Operations
from ctr_supervisor.api.supervised import event_of

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.types import Config, ContainerState, PressureLevel, Resources, Stats, Status


class SupervisedEvents(EventStream):
    """A subscription; from `begin`."""

    def __init__(self, connection: Connection, container: Operations | None, interval: float | None) -> None:
        self._connection = connection
        self._container = container
        self._interval = interval
        self._due = None if interval is None else time.monotonic() + interval
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._seq = 0
        self._ended = False

    @classmethod
    async def begin(
        cls, connection: Connection, container: Operations | None, interval: float | None
    ) -> SupervisedEvents:
        """Subscribes.

        Args:
            container: whose events alone; None for all.
            interval: seconds between its statistics; None for none.
        """
        stream = cls(connection, container, interval)
        fields = {"id": container.id} if container is not None else {}
        stream._seq, packet = await connection.request(Ask("subscribe", fields), stream._events)
        packet.close()
        return stream

    async def next(self, timeout: float | None = None) -> Event | None:
        """See the base."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            limits = [each for each in (deadline, self._due) if each is not None]
            try:
                async with asyncio.timeout(max(0.0, min(limits) - time.monotonic()) if limits else None):
                    told = await self._events.get()
            except TimeoutError:
                if self._due is not None and time.monotonic() >= self._due:
                    event = await self._stats()
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
                await self.close()
            return event
        return None

    async def _stats(self) -> Event | None:
        assert self._container is not None
        assert self._interval is not None
        self._due = time.monotonic() + self._interval
        try:
            stats = await self._connection.drive(self._container.stats())
        except CtrError:
            return None  # it has ended; the event of that comes
        return Event("stats", self._container.id, time.time(), {"stats": stats})

    async def close(self) -> None:
        """See the base."""
        self._ended = True
        self._connection.forget(self._seq)

    def __del__(self) -> None:
        # Nobody would ever read what is collected for it.
        self._connection.forget_soon(self._seq)


class Remote:
    """A process that the supervisor, or a keeper of its, is the parent of.

    Args:
        pidfd: owned here from now on.
    """

    def __init__(self, pid: int, pidfd: Fd) -> None:
        self.pid = pid
        self._pidfd = pidfd

    def fileno(self) -> int:
        """The pidfd.

        Raises:
            ValueError: the handle was closed.
        """
        return self._pidfd.fileno()

    def status(self) -> int:
        """Never: it takes a request.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("await wait() instead")

    def close(self) -> None:
        """Lets go of it; it goes on."""
        self._pidfd.close()


class SupervisedContainer(Container):
    """A container of a supervisor.

    Args:
        operations: what can be asked about it.
    """

    def __init__(self, connection: Connection, operations: Operations) -> None:
        self._connection = connection
        self._ops = operations

    @property
    def id(self) -> str:
        """Its id."""
        return self._ops.id

    async def status(self) -> Status:
        """See the base."""
        return await self._connection.drive(self._ops.status())

    async def state(self) -> ContainerState:
        """See the base."""
        return await self._connection.drive(self._ops.state())

    async def config(self) -> Config:
        """See the base."""
        return await self._connection.drive(self._ops.config())

    async def pid(self) -> int:
        """See the base."""
        return await self._connection.drive(self._ops.pid())

    async def exit_status(self) -> int | None:
        """See the base."""
        return await self._connection.drive(self._ops.exit_status())

    async def _started(self, process: Process, made: Made) -> Process:
        async def ask_status() -> int:
            status = None
            try:
                status = await self._connection.drive(self._ops.wait(made.pid))
            except CtrError:
                pass  # the supervisor knows nothing of it; the kernel may still know
            if status is None:
                pidfd = os.dup(process.pidfd)
                with Fd(pidfd):
                    status = await asyncio.to_thread(ends.status_of_other, pidfd, "")
            if status is None:
                raise WrongState(f"the exit status of process {made.pid} is lost")
            return status

        process.started(Remote(made.pid, made.pidfd), made.streams.files(), made.console)
        process._ask_status = ask_status
        await process.attach()
        return process

    async def start(self, process: Process) -> Process:
        """See the base."""
        return await self._started(process, await self._connection.drive(self._ops.start(process)))

    async def run(self, process: Process) -> Process:
        """See the base; in one request."""
        return await self._started(process, await self._connection.drive(self._ops.start(process, at_once=True)))

    async def exec(self) -> None:
        """See the base."""
        await self._connection.drive(self._ops.exec())

    async def wait(self, timeout: float | None = None) -> int | None:
        """See the base."""
        try:
            async with asyncio.timeout(timeout):
                return await self._connection.drive(self._ops.wait())
        except TimeoutError:
            raise TimeoutError(f"container {self.id} still runs after {timeout:g} seconds") from None

    async def signal(self, signal: int | str, *, all: bool = False) -> None:
        """See the base."""
        await self._connection.drive(self._ops.signal(signal, all=all))

    async def pause(self) -> None:
        """See the base."""
        await self._connection.drive(self._ops.pause())

    async def resume(self) -> None:
        """See the base."""
        await self._connection.drive(self._ops.resume())

    async def destroy(self, *, force: bool = False) -> None:
        """See the base."""
        await self._connection.drive(self._ops.destroy(force=force))

    async def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """See the base."""
        await self._connection.drive(self._ops.set(resources, l3_cache_schema, mem_bw_schema))

    async def stats(self) -> Stats:
        """See the base."""
        return await self._connection.drive(self._ops.stats())

    async def processes(self) -> builtins.list[int]:
        """See the base."""
        return await self._connection.drive(self._ops.processes())

    async def events(self, interval: float | None = None) -> EventStream:
        """See the base."""
        return await SupervisedEvents.begin(self._connection, self._ops, interval)

    async def _notified(self, level: str = "") -> Notification:
        from ctr_supervisor.api import notifications
        from ctr_supervisor.api.told import Told, subscription

        event, fields = subscription(self.id, level)
        source = Told(event)
        seq, packet = await self._connection.request(Ask("subscribe", fields), source)
        packet.close()
        source.on_close = lambda: self._connection.forget(seq)
        if await self.status() == "stopped":
            # Nothing will come, not even its end.
            source.put(None)
        return Notification(notifications.Notification(source, -1))

    async def notify_oom(self) -> Notification:
        """See the base."""
        return await self._notified()

    async def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See the base."""
        return await self._notified(level)

    async def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return await self._connection.drive(self._ops.checkpoint(checkpoint_options(options)))

    async def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return await self._connection.drive(self._ops.checkpoint(checkpoint_options(options), pre_dump=True))

    async def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """See the base."""
        wanted = restore_options(options, process)
        return await self._started(process, await self._connection.drive(self._ops.restore(process, wanted)))
