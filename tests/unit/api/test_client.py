"""The client of a supervisor, against one that says what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ctr_supervisor as api
from ctr_common.errors import ContainerExists, CtrError, WrongState
from ctr_common.wire import Packet, Wire
from ctr_supervisor import aio
from ctr_supervisor.api import connection
from ctr_supervisor.cli import main
from tests.support.waiting import until

Answer = Callable[[Wire, Packet], None]


class FakeSupervisor:
    """Listens, says hello, and answers each request by a function of the test's.

    Args:
        path: of the socket.
        hello: fields of the greeting.
    """

    def __init__(self, path: Path, **hello: Any) -> None:
        self.path = path
        self.hello = {"version": 1, "server": "0", "capabilities": ["containers"], "pid": 1, "root": "/r", **hello}
        self.answers: dict[str, Answer] = {}
        self.asked: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            with Wire(connected.detach(), "client") as wire:
                self._speak(wire)

    def _speak(self, wire: Wire) -> None:
        while (packet := wire.receive()) is not None:
            with packet:
                if packet.type == "hello":
                    wire.send("hello", None, **self.hello)
                    continue
                self.asked.append(packet.body)
                answer = self.answers.get(packet.type, result())
                try:
                    answer(wire, packet)
                except CtrError as error:
                    wire.send_error(error, seq=packet.body["seq"])
                except EOFError:
                    return

    def close(self) -> None:
        """Ends it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def result(fds: dict[str, Callable[[], int]] | None = None, **fields: Any) -> Answer:
    """An answer with these fields."""

    def answer(wire: Wire, packet: Packet) -> None:
        opened = {name: make() for name, make in (fds or {}).items()}
        wire.send("result", opened, seq=packet.body["seq"], **fields)
        for fd in opened.values():
            os.close(fd)

    return answer


def failure(error: CtrError) -> Answer:
    """An answer that is an error."""

    def answer(wire: Wire, packet: Packet) -> None:
        raise error

    return answer


@pytest.fixture
def fake(directory: Path) -> Iterator[FakeSupervisor]:
    served = FakeSupervisor(directory / "s")
    yield served
    served.close()


@pytest.fixture
def supervisor(fake: FakeSupervisor) -> Iterator[api.Supervisor]:
    with api.connect(str(fake.path)) as connected:
        yield connected


CONFIG: Any = {"ociVersion": "1.3.0", "root": {"path": "/"}}
STATE = {"id": "x", "status": "running", "pid": 5, "exit_status": 3}


def own_pidfd() -> int:
    return os.pidfd_open(os.getpid())


def test_the_greeting_is_kept(supervisor: api.Supervisor):
    assert (supervisor.root, supervisor.capabilities) == ("/r", ["containers"])


def test_nobody_there_is_told_with_the_path(directory: Path):
    with pytest.raises(api.ProtocolError, match="cannot connect to the supervisor .*/nobody: no such file"):
        api.connect(str(directory / "nobody"))


def test_another_version_is_refused(directory: Path):
    fake = FakeSupervisor(directory / "s", version=2)
    with pytest.raises(api.ProtocolError, match="version 2"):
        api.connect(str(fake.path))
    fake.close()


def test_the_environment_names_the_socket(fake: FakeSupervisor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CTRUN_SUPERVISOR", str(fake.path))
    with api.connect() as connected:
        connected.ping(20)


def test_an_error_keeps_its_class_and_its_fields(fake: FakeSupervisor, supervisor: api.Supervisor):
    fake.answers["kill"] = failure(WrongState("container not running", step="killing", errno=3, path="/p"))
    fake.answers["state"] = result(container=STATE)
    with pytest.raises(api.WrongState) as error:
        supervisor.load("x").signal("TERM")
    assert (error.value.step, error.value.errno, error.value.path) == ("killing", 3, "/p")
    assert fake.asked[-1] == {"type": "kill", "id": "x", "signal": 15, "all": False, "seq": 2}


def test_answers_in_another_order_find_their_requests(fake: FakeSupervisor, supervisor: api.Supervisor):
    waiting: list[int] = []

    def late(wire: Wire, packet: Packet) -> None:
        waiting.append(packet.body["seq"])
        if len(waiting) == 4:
            for seq in reversed(waiting):
                wire.send("result", None, seq=seq, features={"seq": seq})

    fake.answers["features"] = late
    with ThreadPoolExecutor(4) as pool:
        found = [each.result(20)["seq"] for each in [pool.submit(supervisor.features) for _ in range(4)]]
    assert sorted(found) == [1, 2, 3, 4]


def test_a_supervisor_that_goes_away_ends_all_that_waits(fake: FakeSupervisor, supervisor: api.Supervisor):
    asked = threading.Barrier(2)

    def vanish(wire: Wire, packet: Packet) -> None:
        asked.wait(20)
        raise EOFError

    fake.answers["ping"] = vanish
    events = supervisor.events()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(supervisor.ping)
        asked.wait(20)
        with pytest.raises(api.ProtocolError, match="closed the connection"):
            waiting.result(20)
    assert list(events) == []
    with pytest.raises(api.ProtocolError):
        supervisor.ping()


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x93\x01\x02\x03", b"\x80"])
def test_garbage_ends_the_connection(fake: FakeSupervisor, supervisor: api.Supervisor, garbage: bytes):
    def say(wire: Wire, packet: Packet) -> None:
        os.write(wire.fileno(), garbage)

    fake.answers["ping"] = say
    with pytest.raises(api.ProtocolError):
        supervisor.ping(20)


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_asked(
    fake: FakeSupervisor, supervisor: api.Supervisor
):
    fake.answers["ping"] = lambda wire, packet: None
    with pytest.raises(TimeoutError):
        supervisor.ping(0.01)


def test_a_supervisor_that_takes_nothing_is_waited_for_no_longer_than_asked(
    fake: FakeSupervisor, supervisor: api.Supervisor
):
    stuck = threading.Event()
    fake.answers["ping"] = lambda wire, packet: (stuck.wait(20), result()(wire, packet))[1]
    try:
        # Until its queue is full, and beyond.
        for _ in range(1000):
            with pytest.raises(TimeoutError, match=rf"no answer to ping from the supervisor at {fake.path} within"):
                supervisor.ping(0.0001)
    finally:
        stuck.set()
    supervisor.ping(20)


def test_a_supervisor_whose_queue_stays_full_is_not_connected_to(directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HELLO_TIMEOUT", 0.05)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listening.bind(str(directory / "full"))
        listening.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)).connect(str(directory / "full"))
        with pytest.raises(api.ProtocolError, match="cannot connect to the supervisor .*/full"):
            api.connect(str(directory / "full"))


def test_who_gives_a_wait_up_takes_it_back(fake: FakeSupervisor, supervisor: api.Supervisor):
    fake.answers["wait"] = lambda wire, packet: None
    fake.answers["state"] = result(container=STATE)
    container = supervisor.load("x")
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"container x still runs after 0.01 seconds"):
            container.wait(0.01)
    until("they are taken back", lambda: fake.asked[-1] == {"type": "unwait", "to": 4, "seq": 5})
    assert fake.asked[-3] == {"type": "unwait", "to": 2, "seq": 3}


def test_who_gives_a_wait_or_a_subscription_up_in_asyncio_takes_it_back(fake: FakeSupervisor):
    fake.answers["wait"] = fake.answers["subscribe"] = lambda wire, packet: None
    fake.answers["state"] = result(container=STATE)

    async def speak() -> None:
        async with await aio.connect(str(fake.path)) as supervisor:
            container = await supervisor.load("x")
            with pytest.raises(TimeoutError, match=r"container x still runs after 0.01 seconds"):
                await container.wait(0.01)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(container.events(), 0.01)
            await supervisor.ping()

    asyncio.run(asyncio.wait_for(speak(), 20))
    assert [(asked["type"], asked.get("to")) for asked in fake.asked if "to" in asked] == [
        ("unwait", 2),
        ("unsubscribe", 4),
    ]


def test_fds_that_nobody_wants_are_closed(fake: FakeSupervisor, supervisor: api.Supervisor):
    fake.answers["ping"] = result({"what": own_pidfd})
    before = os.listdir("/proc/self/fd")
    supervisor.ping(20)
    # The fake supervisor closes its own one when it has answered.
    until("both sides have closed it", lambda: len(os.listdir("/proc/self/fd")) == len(before))


def test_a_creation_sends_configuration_process_and_streams(fake: FakeSupervisor, supervisor: api.Supervisor):
    fake.answers["create"] = result({"pidfd": own_pidfd}, pid=77)
    container = supervisor.create("x", CONFIG, no_pivot=True, networks=[{"type": "loopback"}])
    assert container.status == "stopped"
    assert fake.asked == []
    with container.start(api.Process(["a"], init=True, stdin=api.DEVNULL)) as process:
        assert process.pid == 77
    asked = fake.asked[-1]
    assert asked["config"] == {
        **CONFIG,
        "process": {"args": ["a"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    }
    assert (asked["no_pivot"], asked["networks"], asked["fds"]) == (
        True,
        [{"type": "loopback"}],
        ["stdin", "stdout", "stderr"],
    )
    with pytest.raises(api.WrongState, match="already has"):
        container.start(api.Process(["a"], init=True))


def test_a_failed_creation_can_be_tried_again(fake: FakeSupervisor, supervisor: api.Supervisor):
    fake.answers["run"] = failure(ContainerExists("container with given ID already exists"))
    container = supervisor.create("x", CONFIG)
    process = api.Process(["a"], init=True, stdin=api.DEVNULL)
    for _ in range(2):
        with pytest.raises(api.ContainerExists):
            container.run(process)


def test_events_reach_their_subscription_alone(fake: FakeSupervisor, supervisor: api.Supervisor):
    def subscribe(wire: Wire, packet: Packet) -> None:
        seq = packet.body["seq"]
        wire.send("result", None, seq=seq)
        wire.send("event", None, seq=seq, event="oom", id="x", time=1.5)
        wire.send("event", None, seq=seq + 1000, event="lost", id="x", time=1.5)
        wire.send("event", None, seq=seq, event="exited", id="x", time=2.5, pid=5, status=0)

    fake.answers["subscribe"] = subscribe
    fake.answers["state"] = result(container=STATE)
    with supervisor.load("x").events() as events:
        assert [(event.type, event.time, event.data) for event in events] == [
            ("oom", 1.5, {}),
            ("exited", 2.5, {"pid": 5, "status": 0}),
        ]
    until("it is told so", lambda: fake.asked[-1]["type"] == "unsubscribe")


def test_a_stream_that_is_dropped_is_no_longer_collected_for(fake: FakeSupervisor, supervisor: api.Supervisor):
    events = supervisor.events()
    del events
    until("it is taken back", lambda: fake.asked[-1] == {"type": "unsubscribe", "to": 1, "seq": 2})


def test_a_stream_of_asyncio_that_is_dropped_is_no_longer_collected_for(fake: FakeSupervisor):
    async def speak() -> None:
        async with await aio.connect(str(fake.path)) as supervisor:
            events = await supervisor.events()
            del events
            await asyncio.sleep(0)
            await supervisor.ping()
            kept = await supervisor.events()
        del kept

    asyncio.run(asyncio.wait_for(speak(), 20))
    assert [asked["type"] for asked in fake.asked] == ["subscribe", "unsubscribe", "ping", "subscribe"]


def test_a_notification_that_is_closed_ends_the_waits_of_other_tasks(fake: FakeSupervisor):
    fake.answers["state"] = result(container=STATE)

    async def speak() -> None:
        async with await aio.connect(str(fake.path)) as supervisor:
            notification = await (await supervisor.load("x")).notify_oom()

            async def count() -> list[int]:
                return [each async for each in notification]

            waiting = [asyncio.ensure_future(one) for one in (notification.wait(), notification.wait(20), count())]
            assert await notification.wait(0.01) == 0
            notification.close()
            assert await asyncio.gather(*waiting) == [0, 0, []]
            assert await notification.wait() == 0
            notification.close()

    asyncio.run(asyncio.wait_for(speak(), 20))


def test_a_closed_connection_leaves_no_thread_and_no_fd(fake: FakeSupervisor):
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        api.connect(str(fake.path)).close()
    connected = api.connect(str(fake.path))
    del connected
    assert threading.active_count() == threads
    # Those of the server go with its next turn.
    assert len(os.listdir("/proc/self/fd")) <= fds + 1


def test_the_form_for_asyncio_speaks_the_same(fake: FakeSupervisor):
    fake.answers["state"] = result(container=STATE)
    fake.answers["list"] = result(containers=[STATE])
    fake.answers["kill"] = failure(WrongState("container not running"))

    async def speak() -> None:
        async with await aio.connect(str(fake.path)) as supervisor:
            container = await supervisor.load("x")
            assert await container.status() == "running"
            assert await container.exit_status() == 3
            assert [found.id for found in await supervisor.list()] == ["x"]
            with pytest.raises(api.WrongState):
                await container.signal("TERM")
            assert await asyncio.gather(*[container.pid() for _ in range(5)]) == [5] * 5

    asyncio.run(asyncio.wait_for(speak(), 20))


def test_the_form_for_asyncio_notices_that_the_supervisor_goes_away(fake: FakeSupervisor):
    def vanish(wire: Wire, packet: Packet) -> None:
        raise EOFError

    fake.answers["ping"] = vanish

    async def speak() -> None:
        async with await aio.connect(str(fake.path)) as supervisor:
            events = await supervisor.events()
            with pytest.raises(api.ProtocolError, match="closed the connection"):
                await supervisor.ping()
            assert [event async for event in events] == []

    asyncio.run(asyncio.wait_for(speak(), 20))


# -- ctrun call


def call(fake: FakeSupervisor, *arguments: str) -> int:
    """Runs `ctrun call`."""
    return main.main(["call", "--socket", str(fake.path), *arguments])


def test_call_prints_the_answer(fake: FakeSupervisor, capfd: pytest.CaptureFixture[str]):
    fake.answers["state"] = result(container=STATE)
    assert call(fake, "state", "id=x") == 0
    assert capfd.readouterr().out == '{"container":{"id":"x","status":"running","pid":5,"exit_status":3}}\n'


def test_call_takes_json_where_it_is_json(fake: FakeSupervisor):
    words = ["id=x", "pid=42", "force=true", 'resources={"pids": {"limit": 1}}', "text:=42", "signal=TERM", "empty="]
    assert call(fake, "anything", *words) == 0
    expected = {"pid": 42, "force": True, "resources": {"pids": {"limit": 1}}, "text": "42", "signal": "TERM"}
    assert fake.asked[-1] == {"type": "anything", "seq": 1, "id": "x", "empty": "", **expected}


def test_call_prints_events_until_the_supervisor_ends(fake: FakeSupervisor, capfd: pytest.CaptureFixture[str]):
    def subscribe(wire: Wire, packet: Packet) -> None:
        wire.send("result", None, seq=packet.body["seq"])
        wire.send("event", None, seq=packet.body["seq"], event="oom", id="x", time=1.5)
        raise EOFError

    fake.answers["subscribe"] = subscribe
    assert call(fake, "subscribe") == 1
    printed = capfd.readouterr()
    assert printed.out == '{"event":"oom","id":"x","time":1.5}\n'
    assert "the supervisor closed the connection" in printed.err


def test_call_tells_errors_as_lines_or_as_json(fake: FakeSupervisor, capfd: pytest.CaptureFixture[str]):
    fake.answers["kill"] = failure(WrongState("container not running", errno=3))
    assert call(fake, "kill", "id=x") == 1
    printed = capfd.readouterr()
    assert (printed.out, "container not running" in printed.err) == ("", True)
    assert call(fake, "--format", "json", "kill", "id=x") == 1
    assert capfd.readouterr().out == '{"kind":"WrongState","errno":3,"message":"container not running"}\n'


@pytest.mark.parametrize("word", ["novalue", "=x", "seq=1", "type=x", "id=x"])
def test_call_refuses_words_that_are_no_fields(fake: FakeSupervisor, word: str, capfd: pytest.CaptureFixture[str]):
    assert call(fake, "ping", "id=1", word) == 1
    assert capfd.readouterr().err
    assert fake.asked == []
