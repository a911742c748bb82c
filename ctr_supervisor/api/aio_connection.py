"""A connection to a supervisor, on a socket of the event loop's."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Generator
from typing import Any, TypeVar

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.wire import ERROR, Packet, Wire
from ctr_supervisor.api import operations
from ctr_supervisor.api.aio_base import done
from ctr_supervisor.api.exchange import Events, Exchange
from ctr_supervisor.api.operations import Ask

T = TypeVar("T")


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
        self._sending = asyncio.Lock()
        self._exchange = Exchange()
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
        if self.greeted.done():
            self._exchange.take(packet)
            return
        with packet:
            if packet.type == ERROR:
                raise packet.error()
            self.hello = operations.check_hello(packet)
            self.greeted.set_result(None)

    def _fail(self, error: CtrError) -> None:
        if self._exchange.failure is not None:
            return
        self._loop.remove_reader(self._wire.fileno())
        if not self.greeted.done():
            self.greeted.set_exception(error)
        self._exchange.fail(error)

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
        answer: asyncio.Future[Packet] = self._loop.create_future()
        seq = self._exchange.begin(answer, events)
        try:
            await self._send(ask, seq)
            return seq, await answer
        except BaseException:
            self._exchange.give_up(ask, seq, self._send_if_room)
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().close()
            raise

    def _send_if_room(self, ask: Ask, seq: int) -> None:
        """Sends a request whose answer nobody waits for; a supervisor that takes none now is stuck, or gone."""
        try:
            self._wire.send(ask.type, None, **ask.fields, seq=seq)
        except ProtocolError:
            pass

    def forget(self, seq: int) -> None:
        """Nobody reads the events of a subscription any more."""
        self._exchange.forget(seq, self._send_if_room)

    def forget_soon(self, seq: int) -> None:
        """As `forget`, from any thread, and when the loop may be over."""
        try:
            self._loop.call_soon_threadsafe(self.forget, seq)
        except RuntimeError:
            pass  # it is closed

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
