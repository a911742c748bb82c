"""A connection to a supervisor, for a blocking program with any number of threads."""

from __future__ import annotations

import errno
import itertools
import socket
import threading
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol, TypeVar

from ctr_common.errors import CtrError, ProtocolError, from_dict
from ctr_common.version import VERSION
from ctr_common.wire import ERROR, Packet, Wire
from ctr_supervisor.api import operations
from ctr_supervisor.api.operations import Ask

T = TypeVar("T")


class Events(Protocol):
    """Where the events of a subscription go; a queue is one."""

    def put(self, told: dict[str, Any] | None, /) -> None:
        """One more, or None: there will be no more."""


# A supervisor that listens and does not greet is stuck.
HELLO_TIMEOUT = 30.0


def open_wire(path: str) -> tuple[socket.socket, Wire]:
    """Connects, and says hello.

    Raises:
        ProtocolError: nobody listens there.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connected.connect(path)
        # The socket stays the owner of the fd: it alone can be shut down.
        wire = Wire(connected.fileno(), "supervisor")
        greet(wire)
    except OSError as error:
        connected.close()
        raise ProtocolError(
            "cannot connect to the supervisor", path=path, syscall="connect", errno=error.errno or 0
        ) from None
    except BaseException:
        connected.close()
        raise
    return connected, wire


def greet(wire: Wire) -> None:
    """Says hello, unless the supervisor has hung up: what it said before that comes first, and says why."""
    try:
        wire.send("hello", version=1, client=f"ctr_supervisor {VERSION}")
    except ProtocolError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise


class Connection:
    """One socket, used by many threads; one of its own reads from it.

    Args:
        path: of the supervisor's socket.

    Attributes:
        hello: the supervisor's greeting.
    """

    def __init__(self, path: str) -> None:
        self._socket, self._wire = open_wire(path)
        self._seq = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Packet]] = {}
        self._subscriptions: dict[int, Events] = {}
        self._failure: CtrError | None = None
        try:
            packet = self._wire.receive(HELLO_TIMEOUT)
            if packet is None:
                raise ProtocolError("the supervisor closed the connection")
            with packet:
                if packet.type == ERROR:
                    raise packet.error()
                self.hello = operations.check_hello(packet)
        except BaseException:
            self._socket.close()
            raise
        self._reader = threading.Thread(target=self._read, name="ctr-supervisor-client", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        failure: CtrError = ProtocolError("the supervisor closed the connection")
        try:
            while (packet := self._wire.receive()) is not None:
                if not self._dispatch(packet):
                    failure = packet.error()
                    break
        except ProtocolError as error:
            failure = error
        with self._lock:
            self._failure = failure
            pending, self._pending = self._pending, {}
            subscriptions, self._subscriptions = self._subscriptions, {}
        for future in pending.values():
            future.set_exception(_copy(failure))
        for events in subscriptions.values():
            events.put(None)

    def _dispatch(self, packet: Packet) -> bool:
        """Hands a message to whoever waits for it; False for an error that concerns the connection itself."""
        seq = packet.body.get("seq")
        if packet.type == "event":
            with packet, self._lock:
                events = self._subscriptions.get(seq) if isinstance(seq, int) else None
                if events is not None:
                    events.put(packet.body)
            return True
        with self._lock:
            future = self._pending.pop(seq, None) if isinstance(seq, int) else None
        if future is None:
            packet.close()
            return packet.type != ERROR or isinstance(seq, int)
        if packet.type == ERROR:
            packet.close()
            future.set_exception(packet.error())
        else:
            future.set_result(packet)
        return True

    def request(self, ask: Ask, timeout: float | None = None, events: Events | None = None) -> tuple[int, Packet]:
        """Sends a request and waits for its answer; any number of threads at a time.

        Args:
            timeout: seconds; None waits as long as the connection lasts.
            events: gets the events that follow with the same seq.

        Returns:
            seq and answer, which the caller closes.

        Raises:
            CtrError: what the supervisor says.
            ProtocolError: the connection is gone.
            TimeoutError: no answer came in time.
        """
        future: Future[Packet] = Future()
        with self._lock:
            if self._failure is not None:
                raise _copy(self._failure)
            seq = next(self._seq)
            self._pending[seq] = future
            if events is not None:
                self._subscriptions[seq] = events
        try:
            self._wire.send(ask.type, ask.fds or None, **ask.fields, seq=seq)
            return seq, future.result(timeout)
        except BaseException as error:
            with self._lock:
                abandoned = self._pending.pop(seq, None) is None
                self._subscriptions.pop(seq, None)
            if abandoned and future.done() and future.exception() is None:
                future.result().close()
            if isinstance(error, FutureTimeout):
                raise TimeoutError(f"no answer to {ask.type} within {timeout:g} seconds") from None
            raise

    def forget(self, seq: int) -> None:
        """Nobody reads the events of a subscription any more."""
        with self._lock:
            found = self._subscriptions.pop(seq, None)
            gone = self._failure is not None
        if found is not None:
            found.put(None)
            if not gone:
                try:
                    self.request(Ask("unsubscribe", {"to": seq}))[1].close()
                except CtrError:
                    pass  # the connection has ended meanwhile

    def drive(self, operation: Generator[Ask, Packet, T]) -> T:
        """Carries an operation out."""
        try:
            ask = next(operation)
            while True:
                try:
                    _, packet = self.request(ask)
                except BaseException as error:
                    ask = operation.throw(error)
                    continue
                with packet:
                    ask = operation.send(packet)
        except StopIteration as done:
            result: T = done.value
            return result

    def close(self) -> None:
        """Ends the connection and its thread; does nothing the second time."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the supervisor has, or this is the second time
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._socket.close()


def _copy(error: CtrError) -> CtrError:
    """The same error for one more thread: a traceback belongs to one."""
    return from_dict(error.as_dict())
