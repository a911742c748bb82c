"""A connection to a supervisor, on a socket of the event loop's."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from ctr_common.errors import CtrError, ProtocolError, from_dict
from ctr_common.wire import ERROR, Packet, Wire
from ctr_supervisor.api import operations
from ctr_supervisor.api.aio_base import done
from ctr_supervisor.api.operations import Ask

T = TypeVar("T")


class Events(Protocol):
    """Where the events of a subscription go; a queue is one."""

    def put_nowait(self, told: dict[str, Any] | None, /) -> None:
        """One more, or None: there will be no more."""


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
        self._subscriptions: dict[int, Events] = {}
        # The loop itself keeps no task alive.
        self._tasks: set[asyncio.Task[None]] = set()
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

    async def request(self, ask: Ask, events: Events | None = None) -> tuple[int, Packet]:
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

    def forget_soon(self, seq: int) -> None:
        """As `forget`, for those who can't wait for it."""
        if not self._loop.is_closed():
            task = self._loop.create_task(self.forget(seq))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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
