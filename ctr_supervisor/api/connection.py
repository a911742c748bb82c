"""A connection to a supervisor, for a blocking program with any number of threads."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Generator
from concurrent.futures import Future
from typing import TypeVar

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.fd import Fd
from ctr_common.version import VERSION
from ctr_common.wire import ERROR, Packet, Wire
from ctr_supervisor.api import operations
from ctr_supervisor.api.exchange import Events, Exchange
from ctr_supervisor.api.operations import Ask

T = TypeVar("T")

# Seconds. A supervisor that listens and does not greet is stuck, and so is one whose queue stays full for so long.
HELLO_TIMEOUT = 30.0
# socket(7): SO_SNDTIMEO
TIMEVAL = struct.Struct("ll")


def open_wire(path: str) -> tuple[socket.socket, Wire]:
    """Connects, and says hello.

    Raises:
        ProtocolError: nobody listens there, or takes clients within HELLO_TIMEOUT.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        limit_sending(connected, HELLO_TIMEOUT)
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


def limit_sending(connected: socket.socket, seconds: float) -> None:
    """Has connect(2) and sendmsg(2) fail with EAGAIN rather than wait for longer than that."""
    whole = int(seconds)
    limit = TIMEVAL.pack(whole, int((seconds - whole) * 1e6))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def greet(wire: Wire) -> None:
    """Says hello, unless the supervisor has hung up: what it said before that comes first, and says why."""
    try:
        wire.send("hello", version=1, client=f"ctr_supervisor {VERSION}")
    except ProtocolError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise


class Connection:
    """One socket, used by many threads; one of its own reads from it, and closes it at its end.

    Args:
        path: of the supervisor's socket.

    Attributes:
        path: as given.
        hello: the supervisor's greeting.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket, self._wire = open_wire(path)
        # Reentrant: the garbage collector may drop a stream of events while this thread is in here.
        self._lock = threading.RLock()
        self._exchange = Exchange()
        try:
            packet = self._wire.receive(HELLO_TIMEOUT)
            if packet is None:
                raise ProtocolError("the supervisor closed the connection", path=path)
            with packet:
                if packet.type == ERROR:
                    raise packet.error()
                self.hello = operations.check_hello(packet)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._reader = threading.Thread(target=self._read, name="ctr-supervisor-client", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        failure: CtrError = ProtocolError("the supervisor closed the connection", path=self.path)
        poll = select.poll()
        poll.register(self._wire.fileno(), select.POLLIN)
        try:
            while True:
                poll.poll()
                packet = self._wire.receive()
                if packet is None:
                    break
                with self._lock:
                    self._exchange.take(packet)
        except CtrError as error:
            failure = error
        with self._lock:
            self._exchange.fail(failure)
            self._socket.close()

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
        deadline = None if timeout is None else time.monotonic() + timeout
        answer: Future[Packet] = Future()
        with self._lock:
            seq = self._exchange.begin(answer, events)
        try:
            self._send(ask, seq, deadline)
            return seq, answer.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except BaseException as error:
            with self._lock:
                self._exchange.give_up(ask, seq, self._send_if_room)
            if answer.done() and answer.exception() is None:
                # It has come at the last moment.
                answer.result().close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(
                    f"no answer to {ask.type} from the supervisor at {self.path} within {timeout:g} seconds"
                ) from None
            raise

    def _send(self, ask: Ask, seq: int, deadline: float | None) -> None:
        """Sends a request, when there is room.

        Raises:
            TimeoutError: there was none until the deadline.
        """
        while True:
            with self._lock:
                self._exchange.check()
                try:
                    self._wire.send(ask.type, ask.fds or None, **ask.fields, seq=seq)
                    return
                except ProtocolError as error:
                    if error.errno != errno.EAGAIN:
                        raise
                # The reader closes the other one when it is done.
                own = Fd(os.dup(self._wire.fileno()))
            with own:
                poll = select.poll()
                poll.register(own.fileno(), select.POLLOUT)
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                if not poll.poll(left) and deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError

    def _send_if_room(self, ask: Ask, seq: int) -> None:
        """Sends a request whose answer nobody waits for; a supervisor that takes none now is stuck, or gone."""
        try:
            self._wire.send(ask.type, None, **ask.fields, seq=seq)
        except ProtocolError:
            pass

    def forget(self, seq: int) -> None:
        """Nobody reads the events of a subscription any more."""
        with self._lock:
            self._exchange.forget(seq, self._send_if_room)

    def drive(self, operation: Generator[Ask, Packet, T], timeout: float | None = None) -> T:
        """Carries an operation out.

        Args:
            timeout: of each of its requests.
        """
        try:
            ask = next(operation)
            while True:
                try:
                    _, packet = self.request(ask, timeout)
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
