"""The stream of events: bounded, in order, and silent when nobody listens."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import pytest

from ctr_supervisor.engine import notify
from ctr_supervisor.service import events
from ctr_supervisor.service.events import Hub
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.registry import Registry
from tests.unit.service.conftest import Pretender, serve_until

Events = list[dict[str, Any]]


class Reader:
    """A subscriber with room for so many."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.got: Events = []

    def __call__(self, event: dict[str, Any]) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        self.got.append(event)
        return True

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.got]


@pytest.fixture
def hub(loop: Loop, registry: Registry) -> Hub:
    made = Hub(loop, registry)
    registry.teller.on_event = made.publish
    return made


def test_every_subscriber_gets_what_he_asked_for(hub: Hub) -> None:
    everything, one = Reader(), Reader()
    hub.subscribe(everything)
    hub.subscribe(one, "a")
    hub.happened("updated", "a")
    hub.happened("exec-exited", "b", pid=5, status=0)

    assert [(event["id"], event["event"]) for event in everything.got] == [("a", "updated"), ("b", "exec-exited")]
    assert [(event["id"], event["event"]) for event in one.got] == [("a", "updated")]
    assert everything.got[1]["status"] == 0


def test_a_slow_subscriber_gets_what_fits_and_the_number_of_the_rest(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUEUE_MAX", 3)
    slow, fast = Reader(room=1), Reader()
    subscription = hub.subscribe(slow)
    hub.subscribe(fast)
    for number in range(10):
        hub.happened("updated", f"c{number}")
    assert len(fast.got) == 10
    slow.room = 2
    subscription.resume()
    assert [event["id"] for event in slow.got] == ["c0", "c1", "c2"]
    hub.happened("updated", "late")
    slow.room = 100
    subscription.resume()

    assert [event["id"] for event in slow.got[3:]] == ["c3", ""]
    assert (slow.got[-1]["event"], slow.got[-1]["count"]) == ("lost", 7)
    hub.happened("updated", "after")
    assert slow.got[-1]["id"] == "after"


def test_a_subscription_goes_on_in_another_process(hub: Hub) -> None:
    before, after = Reader(room=0), Reader()
    first = hub.subscribe(before)
    hub.happened("updated", "a")
    queue, lost = first.backlog
    second = hub.subscribe(after)
    second.restore(queue, lost)
    second.resume()

    assert [event["id"] for event in after.got] == ["a"]


def test_nobody_is_told_after_the_end_of_the_subscription(hub: Hub) -> None:
    reader = Reader()
    subscription = hub.subscribe(reader)
    hub.unsubscribe(subscription)
    hub.unsubscribe(subscription)
    hub.happened("updated", "a")
    assert reader.got == []


def test_what_happens_on_disk_is_told_as_it_happens(hub: Hub, pretend: Pretender, loop: Loop) -> None:
    reader = Reader()
    hub.subscribe(reader, "c")
    pretend.run("other")
    pid = pretend.run("c")
    pretend.kill(pid)
    pretend.reap(pid)
    serve_until(loop, lambda: "exited" in reader.names)

    assert reader.names == ["created", "started", "exited"]


class FakeOom(notify.Notification):
    """An oom notification that happens when it is told to."""

    made: ClassVar[list[FakeOom]] = []

    def __init__(self) -> None:
        super().__init__()
        self.counter = os.eventfd(0, os.EFD_NONBLOCK)
        self.closed = False
        FakeOom.made.append(self)

    def fileno(self) -> int:
        return self.counter

    def take(self) -> int:
        try:
            return os.eventfd_read(self.counter)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self.closed = True
        os.close(self.counter)


@pytest.fixture
def ooms(monkeypatch: pytest.MonkeyPatch) -> list[FakeOom]:
    monkeypatch.setattr(FakeOom, "made", [])
    monkeypatch.setattr(notify, "oom", lambda paths: FakeOom())
    return FakeOom.made


def test_oom_is_watched_for_only_while_somebody_listens(hub: Hub, pretend: Pretender, ooms: list[FakeOom]) -> None:
    pretend.run("c")
    pretend.run("other")
    reader = Reader()
    first, second = hub.subscribe(reader, "c"), hub.subscribe(reader, "c")
    assert len(ooms) == 1
    hub.unsubscribe(first)
    assert not ooms[0].closed
    hub.unsubscribe(second)
    assert ooms[0].closed


def test_oom_is_told_for_containers_that_are_made_while_somebody_listens(
    hub: Hub, pretend: Pretender, loop: Loop, ooms: list[FakeOom]
) -> None:
    reader = Reader()
    hub.subscribe(reader)
    pid = pretend.create("c")
    serve_until(loop, lambda: bool(ooms))
    os.eventfd_write(ooms[0].counter, 2)
    serve_until(loop, lambda: "oom" in reader.names)
    os.eventfd_write(ooms[0].counter, 1)
    pretend.kill(pid)
    pretend.reap(pid)
    serve_until(loop, lambda: "exited" in reader.names)

    assert reader.names[0] == "created"
    # the one that came with the end is told before it
    assert reader.names[-3:] == ["oom", "oom", "exited"] or reader.names[-4:-1].count("oom") == 2
    assert ooms[0].closed


@pytest.fixture
def pressures(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeOom]:
    """By level."""
    made: dict[str, FakeOom] = {}

    def watch(paths: dict[str, str], level: str) -> FakeOom:
        made[level] = FakeOom()
        return made[level]

    monkeypatch.setattr(notify, "memory_pressure", watch)
    return made


def test_pressure_is_told_to_who_asked_for_that_level(
    hub: Hub, pretend: Pretender, loop: Loop, ooms: list[FakeOom], pressures: dict[str, FakeOom]
) -> None:
    pretend.run("c")
    low, critical, plain = Reader(), Reader(), Reader()
    first = hub.subscribe(low, "c", "low")
    hub.subscribe(critical, "", "critical")
    hub.subscribe(plain)
    assert sorted(pressures) == ["critical", "low"]
    os.eventfd_write(pressures["low"].counter, 2)
    os.eventfd_write(pressures["critical"].counter, 1)
    serve_until(loop, lambda: bool(low.got) and bool(critical.got))

    assert [(event["event"], event["level"], event["count"]) for event in low.got] == [("memory-pressure", "low", 2)]
    assert [(event["id"], event["level"]) for event in critical.got] == [("c", "critical")]
    assert plain.got == []
    hub.unsubscribe(first)
    assert pressures["low"].closed
    assert not pressures["critical"].closed


def test_pressure_is_watched_in_containers_that_come(
    hub: Hub, pretend: Pretender, loop: Loop, ooms: list[FakeOom], pressures: dict[str, FakeOom]
) -> None:
    reader = Reader()
    hub.subscribe(reader, "c", "medium")
    pid = pretend.run("c")
    serve_until(loop, lambda: "medium" in pressures)
    pretend.kill(pid)
    pretend.reap(pid)
    serve_until(loop, lambda: "exited" in reader.names)

    # Nothing announced it, so it is not asked.
    assert "memory-pressure" not in reader.names
    assert pressures["medium"].closed
