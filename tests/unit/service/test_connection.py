"""One client's connection, and the loop under it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ctr_common.errors import CtrError, WrongState
from ctr_common.kernel import _kernel
from ctr_common.wire import MESSAGE_MAX, Packet, Wire
from ctr_supervisor.service.connection import Connection, Peer
from ctr_supervisor.service.loop import Loop
from tests.support.supervised import readable
from tests.unit.service.conftest import serve_until

Handler = Callable[[Connection, Packet], None]


class Pair:
    """A connection, and its client."""

    def __init__(self, loop: Loop, handler: Handler) -> None:
        self.loop = loop
        ours, theirs = _kernel.socketpair()
        os.set_blocking(ours, False)
        with socket.socket(fileno=os.dup(ours)) as connected:
            peer = Peer(connected)
        self.ended: list[Connection] = []
        self.connection = Connection(loop, Wire(ours, "client"), peer, "/root", handler, self.ended.append)
        self.client = Wire(theirs, "supervisor")

    def ask(self, kind: str) -> Packet:
        """The answer to a request."""
        self.client.send(kind, None, seq=7)
        return self.hear()

    def hear(self) -> Packet:
        serve_until(self.loop, lambda: readable(self.client.fileno(), 0))
        packet = self.client.receive()
        assert packet is not None
        return packet


@pytest.fixture
def connect(loop: Loop) -> Iterator[Callable[[Handler], Pair]]:
    made: list[Pair] = []

    def new(handler: Handler) -> Pair:
        made.append(Pair(loop, handler))
        made[-1].client.send("hello", None, version=1, client="test")
        made[-1].hear().close()
        return made[-1]

    yield new
    for one in made:
        one.connection.close()
        one.client.close()


def fail(error: Exception) -> Handler:
    def handler(connection: Connection, request: Packet) -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WrongState("not now"), "not now"),
        (OSError(24, "Too many open files"), "too many open files"),
        (KeyError("x"), "internal error: KeyError('x')"),
    ],
)
def test_whatever_a_request_fails_with_is_its_answer(
    connect: Callable[[Handler], Pair], error: Exception, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pair = connect(fail(error))
    with pair.ask("anything") as answer, pytest.raises(CtrError) as told:
        assert answer.body["seq"] == 7
        raise answer.error()
    assert text in str(told.value)
    assert not pair.ended
    assert ("Traceback" in capfd.readouterr().err) == (error.__class__ is KeyError)


def test_an_answer_that_can_not_be_sent_is_an_error(connect: Callable[[Handler], Pair]) -> None:
    pair = connect(lambda connection, request: connection.answer(request, filler=b"x" * MESSAGE_MAX))
    with pair.ask("anything") as answer:
        assert (answer.type, answer.body["seq"]) == ("error", 7)
        assert "is more than" in str(answer.error())
    assert not pair.ended


def test_the_same_holds_for_one_that_waits_for_the_client(connect: Callable[[Handler], Pair]) -> None:
    def handler(connection: Connection, request: Packet) -> None:
        while not connection.behind:
            connection.send("filler", data=b"x" * 60000)
        connection.answer(request, filler=b"x" * MESSAGE_MAX)
        connection.send("last")

    pair = connect(handler)
    heard = [pair.ask("anything")]
    while heard[-1].type != "last":
        heard.append(pair.hear())
    assert heard[-2].type == "error"
    assert heard[-2].body["seq"] == 7
    for packet in heard:
        packet.close()


def test_a_connection_that_a_job_has_is_not_spoken_on_until_the_job_has_ended(
    connect: Callable[[Handler], Pair],
) -> None:
    pair = connect(lambda connection, request: connection.give())
    pair.client.send("command")
    serve_until(pair.loop, lambda: pair.connection.given)
    # As the job does, which has the same open file.
    os.set_blocking(pair.connection.wire.fileno(), True)

    def speak() -> None:
        for _ in range(5000):
            pair.connection.send("event")

    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    speaking.join(10)
    assert not speaking.is_alive(), "it waits for the client to read"
    assert not readable(pair.client.fileno(), 0)
    pair.connection.take_back()
    while not pair.ended:
        pair.connection.send("event")
    assert pair.hear().type == "event"


@pytest.mark.parametrize("seconds", [1e300, float("inf")])
def test_a_timer_for_never_is_waited_for_in_pieces(loop: Loop, seconds: float) -> None:
    called: list[str] = []
    loop.call_later(seconds, lambda: called.append("never"))
    loop.call_later(0, lambda: called.append("now"))
    serve_until(loop, lambda: called == ["now"])
    reader, writer = os.pipe()
    loop.add(reader, lambda _: called.append("read"))
    os.write(writer, b"x")
    loop.run_once()
    assert called == ["now", "read"]
    loop.remove(reader)
    os.close(reader)
    os.close(writer)
