"""What one program of the supervisor hands to the next."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ctr_common.errors import CtrError, StateError
from ctr_common.kernel import _kernel
from ctr_common.wire import Packet, decode, encode
from ctr_supervisor.service import upgrade
from ctr_supervisor.service.activation import Manager
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.pidfds import kernel_tells_statuses
from ctr_supervisor.service.registry import Registry
from ctr_supervisor.service.waits import Waits
from tests.support.forked import open_fds
from tests.unit.service.conftest import Pretender

Events = list[dict[str, Any]]


def announce(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    body = {"type": "upgrade", "version": upgrade.VERSION, "pid": os.getpid(), "fds": [], **fields}
    monkeypatch.setenv(upgrade.VARIABLE, str(_kernel.memfd_sealed("test", encode(body))))


def test_at_a_start_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(upgrade.VARIABLE, raising=False)
    assert upgrade.take() is None


def test_what_was_handed_over_is_taken_with_its_fds(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    announce(monkeypatch, fds=[reader], limits=[1, 2])
    taken = upgrade.take()
    assert taken is not None
    assert taken["limits"] == [1, 2]
    assert not os.get_inheritable(reader)
    assert upgrade.VARIABLE not in os.environ
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("fields", [{"version": 99}, {"pid": 1}, {"version": None}])
def test_a_state_of_others_is_refused(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    announce(monkeypatch, **fields)
    with pytest.raises(StateError):
        upgrade.take()


def test_a_fd_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(upgrade.VARIABLE, "999999")
    with pytest.raises(StateError, match="can't be read"):
        upgrade.take()


def test_a_version_that_is_known_passes_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade.check(str(upgrade.VERSION)) == 0
    assert upgrade.check("99") == 1
    assert "99" in capsys.readouterr().out


def test_processes_of_execs_go_on_to_be_waited_for() -> None:
    before, after = Waits(), Waits()
    before.exec_made("c", 5)
    before.exec_made("c", 6)
    before.child_ended(6, 3)
    after.restore(decode(encode({"type": "x", "waits": before.export()}))["waits"])
    ends: list[int] = []
    after.wait("c", 6, ends.append)
    after.wait("c", 5, ends.append)
    assert after.child_ended(5, 4) == "c"
    assert ends == [3, 4]


def hand_over(registry: Registry) -> list[dict[str, Any]]:
    """What another program gets: the same values, and fds of its own."""
    saved = registry.export(os.dup)
    body: list[dict[str, Any]] = decode(encode({"type": "x", "registry": saved}))["registry"]
    return body


def test_a_registry_tells_what_happened_between_two_programs(
    pretend: Pretender, new_registry: Callable[..., Registry], told: Events
) -> None:
    first = new_registry()
    stays, ends, goes = (pretend.run(name) for name in ("stays", "ends", "goes"))
    created = pretend.create("starts")
    first.refresh()
    told.clear()
    saved = hand_over(first)
    pretend.kill(ends)
    pretend.reap(ends)
    pretend.delete("goes")
    pretend.start("starts")
    new = pretend.create("appears")
    second = new_registry(saved=saved)
    second.refresh()
    if not kernel_tells_statuses():
        # Its end would be told once nobody can be expected to say more of it.
        second.reaped(ends, 9)

    events = [(event["id"], event["event"]) for event in told if event["id"] != "stays"]
    assert sorted(events) == [
        ("appears", "created"),
        ("ends", "exited"),
        ("goes", "deleted"),
        ("goes", "exited"),
        ("starts", "started"),
    ]
    assert not [event for event in told if event["id"] == "stays"]
    if kernel_tells_statuses():
        # Known only by the pidfd that went over.
        assert second.exit_status("ends") == 137
    assert second.pid("stays") == stays
    assert (second.pid("starts"), second.pid("appears")) == (created, new)
    assert goes not in [one["pid"] for one in second.describe_all()]


@pytest.mark.parametrize("call", ["open", "memfd_create"])
def test_an_upgrade_without_an_fd_left_fails_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, call: str
) -> None:
    def no_fd(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    told: list[CtrError] = []
    asking: Any = SimpleNamespace(answer_error=lambda request, error: told.append(error))
    dispatch = SimpleNamespace(lost=False, release=lambda: None)
    supervisor: Any = SimpleNamespace(dispatch=dispatch, loop=loop)
    going_on = upgrade.Upgrade(supervisor, Manager({}), ["/bin/false"], (1, 1), True)
    before = open_fds()
    with monkeypatch.context() as patched:
        patched.setattr(upgrade.os, call, no_fd)
        going_on.on_request(asking, Packet({"type": "upgrade"}, {}))
        going_on.begin()
    assert [(error.errno, error.path) for error in told] == [(errno.EMFILE, "/bin/false")]
    assert open_fds() == before


def test_nothing_of_what_was_handed_over_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def answer(self, request: Packet, **fields: Any) -> None:
            answered.append((request.body["seq"], fields))

    answered: list[tuple[int, dict[str, Any]]] = []
    announce(monkeypatch, asked=[[1, {"type": "upgrade", "seq": 7}]], supervisor={"registry": []})
    taken = upgrade.take()
    assert taken is not None
    supervisor: Any = SimpleNamespace(restored=[Client(), Client()], status=lambda: {"upgrades": 1})
    gone = [weakref.ref(client) for client in supervisor.restored]
    upgrade.answer(supervisor, taken)
    assert answered == [(7, {"upgrades": 1})]
    assert (taken, [client() for client in gone]) == ({}, [None, None])
