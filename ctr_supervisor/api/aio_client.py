"""A running supervisor for asyncio, on one socket of the loop's."""

from __future__ import annotations

import asyncio
import builtins
import errno
import itertools
import os
import socket
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ctr_common.errors import CtrError, ProtocolError, WrongState, from_dict
from ctr_common.fd import Fd
from ctr_common.wire import ERROR, Packet, Wire
from ctr_supervisor.api import direct, ends, operations
from ctr_supervisor.api.aio_base import Container, EventStream, Notification, Process, done
from ctr_supervisor.api.connection import HELLO_TIMEOUT, open_wire
from ctr_supervisor.api.container import checkpoint_options, restore_options
from ctr_supervisor.api.events import FINAL, Event
from ctr_supervisor.api.operations import Ask, Made, Operations
from ctr_supervisor.api.supervised import event_of

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.types import (
        Config,
        ContainerState,
        Network,
        PressureLevel,
        Resources,
        Stats,
        Status,
        SupervisorStatus,
    )

T = TypeVar("T")


async def connect(path: str | None = None) -> Supervisor:
    """Connects to a running `ctr-supervisor`; see `connect` of this package."""
    connected, wire = await asyncio.to_thread(open_wire, operations.socket_path(path))
    connection = Connection(connected, wire)
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            await connection.greeted
    except BaseException:
        connection.close()
        raise
    return Supervisor(connection)


class Connection:
    """One socket, read by the loop.

    Args:
        connected: owns the fd.
        wire: on the same fd; hello has been said.

    Attributes:
        hello: the supervisor's greeting, once it is there.
        greeted: done then.
    """

    def __init__(self, connected: socket.socket, wire: Wire) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._seq = itertools.count(1)
        self._sending = asyncio.Lock()
        self._pending: dict[int, asyncio.Future[Packet]] = {}
        self._subscriptions: dict[int, asyncio.Queue[dict[str, Any] | None]] = {}
        self._failure: CtrError | None = None
        self.hello: dict[str, Any] = {}
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(wire.fileno(), self._read)

    def _read(self) -> None:
        try:
            packet = self._wire.receive()
            if packet is None:
                raise ProtocolError("the supervisor closed the connection")
            self._dispatch(packet)
        except CtrError as error:
            if not (isinstance(error, ProtocolError) and error.errno == errno.EAGAIN):
                self._fail(error)

    def _dispatch(self, packet: Packet) -> None:
        seq = packet.body.get("seq")
        if not self.greeted.done():
            with packet:
                if packet.type == ERROR:
                    raise packet.error()
                self.hello = operations.check_hello(packet)
                self.greeted.set_result(None)
            return
        if packet.type == "event":
            with packet:
                events = self._subscriptions.get(seq) if isinstance(seq, int) else None
                if events is not None:
                    events.put_nowait(packet.body)
            return
        future = self._pending.pop(seq, None) if isinstance(seq, int) else None
        if future is None or future.done():
            packet.close()
            if packet.type == ERROR and not isinstance(seq, int):
                raise packet.error()
        elif packet.type == ERROR:
            packet.close()
            future.set_exception(packet.error())
        else:
            future.set_result(packet)

    def _fail(self, error: CtrError) -> None:
        if self._failure is not None:
            return
        self._failure = error
        self._loop.remove_reader(self._wire.fileno())
        if not self.greeted.done():
            self.greeted.set_exception(error)
        for future in self._pending.values():
            if not future.done():
                future.set_exception(from_dict(error.as_dict()))
        self._pending.clear()
        for events in self._subscriptions.values():
            events.put_nowait(None)

    async def _send(self, ask: Ask, seq: int) -> None:
        async with self._sending:
            while True:
                try:
                    self._wire.send(ask.type, ask.fds or None, **ask.fields, seq=seq)
                    return
                except ProtocolError as error:
                    if error.errno != errno.EAGAIN:
                        raise
                await self._writable()

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._wire.fileno(), done, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._wire.fileno())

    async def request(self, ask: Ask, events: asyncio.Queue[dict[str, Any] | None] | None = None) -> tuple[int, Packet]:
        """Sends a request and waits for its answer; any number of tasks at a time.

        Args:
            events: gets the events that follow with the same seq.

        Returns:
            seq and answer, which the caller closes.
        """
        if self._failure is not None:
            raise from_dict(self._failure.as_dict())
        seq = next(self._seq)
        future: asyncio.Future[Packet] = self._loop.create_future()
        self._pending[seq] = future
        if events is not None:
            self._subscriptions[seq] = events
        try:
            await self._send(ask, seq)
            return seq, await future
        except BaseException:
            self._pending.pop(seq, None)
            self._subscriptions.pop(seq, None)
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
            raise

    async def forget(self, seq: int) -> None:
        """Nobody reads the events of a subscription any more."""
        events = self._subscriptions.pop(seq, None)
        if events is not None:
            events.put_nowait(None)
            try:
                (await self.request(Ask("unsubscribe", {"to": seq})))[1].close()
            except CtrError:
                pass  # the connection has ended meanwhile

    async def drive(self, operation: Generator[Ask, Packet, T]) -> T:
        """Carries an operation out."""
        try:
            ask = next(operation)
            while True:
                try:
                    _, packet = await self.request(ask)
                except BaseException as error:
                    ask = operation.throw(error)
                    continue
                with packet:
                    ask = operation.send(packet)
        except StopIteration as ended:
            result: T = ended.value
            return result

    def close(self) -> None:
        """Ends the connection; does nothing the second time."""
        if self._socket.fileno() >= 0:
            self._fail(ProtocolError("the connection was closed"))
            if self.greeted.done() and not self.greeted.cancelled():
                self.greeted.exception()
            self._socket.close()


class Supervisor:
    """A running `ctr-supervisor`; from `connect`. As the `Supervisor` of this package, with coroutines.

    Args:
        connection: to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def root(self) -> str:
        """Its state root."""
        return str(self._connection.hello.get("root", ""))

    @property
    def capabilities(self) -> builtins.list[str]:
        """What it can do: words of docs/PROTOCOL.md."""
        return [str(word) for word in self._connection.hello.get("capabilities", [])]

    def create(
        self,
        id: str,
        config: Config,
        *,
        bundle: str | None = None,
        networks: Sequence[Network] = (),
        systemd_cgroup: bool = False,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
    ) -> Container:
        """A container, which is made when its init process is started; see `Supervisor.create`."""
        waiting = operations.pending(
            id,
            config,
            bundle,
            networks,
            systemd_cgroup=systemd_cgroup,
            no_pivot=no_pivot,
            no_new_keyring=no_new_keyring,
        )
        return SupervisedContainer(self._connection, Operations(id, waiting))

    async def load(self, id: str) -> Container:
        """A container that is there; see `Supervisor.load`."""
        await self._connection.drive(Operations(id).state())
        return SupervisedContainer(self._connection, Operations(id))

    async def list(self) -> builtins.list[Container]:
        """All containers; see `Supervisor.list`."""
        body = await self.request("list")
        return [SupervisedContainer(self._connection, Operations(state["id"])) for state in body.get("containers", [])]

    async def events(self) -> EventStream:
        """What happens to any container from now on."""
        return await SupervisedEvents.begin(self._connection, None, None)

    async def status(self) -> SupervisorStatus:
        """What it tells of itself."""
        return cast("SupervisorStatus", await self.request("status"))

    async def features(self) -> dict[str, Any]:
        """What it can do; see `Supervisor.features`."""
        found: dict[str, Any] = (await self.request("features")).get("features", {})
        return found

    async def ping(self) -> None:
        """Makes sure that it answers."""
        await self.request("ping")

    async def upgrade(self) -> None:
        """Has it replace itself; see `Supervisor.upgrade`."""
        await self.request("upgrade")

    async def shutdown(self, *, containers: bool = False, grace: float = 10.0) -> None:
        """Ends it; see `Supervisor.shutdown`."""
        await self.request("shutdown", containers=containers, grace=grace)

    async def request(self, type: str, **fields: Any) -> dict[str, Any]:
        """Sends any request without fds; see `Supervisor.request`."""
        _, packet = await self._connection.request(Ask(type, fields))
        with packet:
            return {name: value for name, value in packet.body.items() if name not in ("type", "seq")}

    def close(self) -> None:
        """Ends the connection; containers go on."""
        self._connection.close()


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
        await self._connection.forget(self._seq)


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
                status = await self._connection.drive(self._ops.wait(0 if process.init else made.pid))
            except CtrError:
                pass  # the container is gone; the kernel may still know
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

    async def notify_oom(self) -> Notification:
        """See the base."""
        container = await asyncio.to_thread(direct.load, str(self._connection.hello["root"]), self.id)
        return Notification(await asyncio.to_thread(container.notify_oom))

    async def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See the base."""
        container = await asyncio.to_thread(direct.load, str(self._connection.hello["root"]), self.id)
        return Notification(await asyncio.to_thread(container.notify_memory_pressure, level))

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
