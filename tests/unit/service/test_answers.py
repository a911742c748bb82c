"""What the supervisor answers by itself: who waits for an end, and what is kept of those who do so no more."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

from ctr_common.errors import WrongState
from ctr_common.kernel import _kernel
from ctr_common.wire import Packet, Wire
from ctr_supervisor.service.answers import Answers, Wait
from ctr_supervisor.service.connection import Connection, Peer
from ctr_supervisor.service.events import Hub
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.registry import Registry
from ctr_supervisor.service.telling import Teller
from ctr_supervisor.service.waits import Waits
from tests.unit.service.conftest import Pretender

EXEC = 100_000


class Scene:
    """Answers, and one client that asks."""

    def __init__(self, loop: Loop, registry: Registry) -> None:
        self.registry = registry
        self.waits = Waits()
        self.answers = Answers(registry, Hub(loop, registry), self.waits, dict)
        ours, theirs = _kernel.socketpair()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        with socket.socket(fileno=os.dup(ours)) as connected:
            peer = Peer(connected)
        self.connection = Connection(loop, Wire(ours, "client"), peer, "/r", lambda *_: None, self.answers.forget)
        self.client = Wire(theirs, "supervisor")

    def ask(self, type: str, **fields: Any) -> None:
        self.answers.by_type[type](self.connection, Packet({"type": type, **fields}, {}))

    def hear(self) -> dict[str, Any]:
        packet = self.client.receive()
        assert packet is not None
        return packet.body

    def close(self) -> None:
        self.connection.close()
        self.client.close()


@pytest.fixture
def scene(loop: Loop, registry: Registry) -> Iterator[Scene]:
    made = Scene(loop, registry)
    yield made
    made.close()


def kept() -> int:
    """How many requests that wait are in memory, and functions that belong to one."""
    gc.collect()
    homes = tuple(f"{owner.__qualname__}." for owner in (Answers._wait, Registry._wait, Teller.wait, Waits.wait))
    return sum(
        isinstance(found, Wait) or (isinstance(found, FunctionType) and found.__qualname__.startswith(homes))
        for found in gc.get_objects()
    )


@pytest.fixture(params=["container", "init", "exec"])
def waiting_for(request: pytest.FixtureRequest, scene: Scene, pretend: Pretender) -> dict[str, Any]:
    """Fields of a wait for something that does not end."""
    pid = pretend.run("a")
    if request.param == "container":
        return {"id": "a"}
    if request.param == "init":
        return {"id": "a", "pid": pid}
    scene.waits.exec_made("a", EXEC)
    return {"id": "a", "pid": EXEC}


def end(scene: Scene, pretend: Pretender, waiting_for: dict[str, Any]) -> None:
    """Ends what is waited for."""
    if waiting_for.get("pid") == EXEC:
        scene.waits.child_ended(EXEC, 3)
    else:
        pid = scene.registry.pid("a")
        pretend.kill(pid)
        pretend.reap(pid)
        scene.registry.reaped(pid, 9)


def test_a_wait_that_is_taken_back_leaves_nothing_and_is_not_answered(
    scene: Scene, pretend: Pretender, waiting_for: dict[str, Any]
) -> None:
    scene.ask("wait", seq=1, **waiting_for)
    before = kept()
    for seq in range(2, 100):
        scene.ask("wait", seq=seq, **waiting_for)
        scene.ask("unwait", seq=1000 + seq, to=seq)
        assert scene.hear() == {"type": "result", "seq": 1000 + seq}
    assert kept() == before
    end(scene, pretend, waiting_for)
    assert scene.hear()["seq"] == 1
    scene.ask("ping", seq=5)
    assert scene.hear()["seq"] == 5


def test_a_wait_that_was_answered_leaves_nothing(scene: Scene, pretend: Pretender, waiting_for: dict[str, Any]) -> None:
    before = kept()
    scene.ask("wait", seq=1, **waiting_for)
    end(scene, pretend, waiting_for)
    assert scene.hear()["seq"] == 1
    for seq in range(2, 100):
        scene.ask("wait", seq=seq, **waiting_for)
        assert scene.hear()["seq"] == seq
    assert kept() == before
    scene.ask("unwait", seq=101, to=1)
    assert scene.hear() == {"type": "result", "seq": 101}


def test_the_end_of_a_connection_ends_its_waits_alone(
    loop: Loop, scene: Scene, pretend: Pretender, waiting_for: dict[str, Any]
) -> None:
    scene.ask("wait", seq=1, **waiting_for)
    before = kept()
    other = Scene(loop, scene.registry)
    other.answers, other.waits = scene.answers, scene.waits
    other.connection._on_end = scene.answers.forget
    for seq in range(1, 100):
        other.ask("wait", seq=seq, **waiting_for)
    other.close()
    assert kept() == before
    end(scene, pretend, waiting_for)
    assert scene.hear()["seq"] == 1


def test_a_wait_that_can_not_be_is_not_kept(scene: Scene) -> None:
    before = kept()
    for fields in ({"id": "nobody"}, {"id": "nobody", "pid": 5}, {}):
        with pytest.raises(Exception, match=r"not exist|has made|without an id"):
            scene.ask("wait", seq=1, **fields)
    assert kept() == before
    assert scene.answers.export(lambda _: 0)["wait_requests"] == []


def test_waits_go_on_in_another_program(
    loop: Loop, scene: Scene, pretend: Pretender, waiting_for: dict[str, Any]
) -> None:
    scene.ask("wait", seq=1, **waiting_for)
    scene.ask("wait", seq=2, **waiting_for)
    scene.ask("unwait", seq=3, to=1)
    scene.hear()
    following = Scene(loop, scene.registry)
    following.answers.restore(scene.answers.export(lambda _: 0), [following.connection])
    end(following, pretend, waiting_for)
    assert following.hear()["seq"] == 2
    following.ask("ping", seq=5)
    assert following.hear()["seq"] == 5
    following.close()


@pytest.mark.parametrize("named", [False, True])
def test_a_wait_is_about_its_own_container_in_another_program_too(
    loop: Loop, scene: Scene, pretend: Pretender, named: bool
) -> None:
    pid = pretend.run("a")
    scene.ask("wait", seq=1, id="a", **({"pid": pid} if named else {}))
    saved = scene.answers.export(lambda _: 0)
    following = Scene(loop, scene.registry)
    pretend.kill(pid)
    pretend.reap(pid)
    scene.registry.reaped(pid, 9)
    pretend.delete("a")
    pretend.run("a")
    following.answers.restore(saved, [following.connection])
    assert following.hear() == {"type": "result", "seq": 1, "status": 137}
    following.close()


def test_a_process_that_no_container_had_can_not_be_waited_for(scene: Scene, pretend: Pretender) -> None:
    pid = pretend.run("a")
    with pytest.raises(WrongState, match="no exec in container a has made a process"):
        scene.ask("wait", seq=1, id="a", pid=pid + 1)
    with pytest.raises(WrongState, match="no exec in container b has made a process"):
        scene.ask("wait", seq=1, id="b", pid=pid)
