"""Jobs on their way to the pool and back, against a pool that does what the test says."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.wire import MESSAGE_MAX, Packet
from ctr_supervisor.service import dispatch as module
from ctr_supervisor.service import pool
from ctr_supervisor.service.dispatch import Dispatch, Job
from ctr_supervisor.service.loop import Loop
from tests.support.forked import open_fds
from tests.unit.service.conftest import serve_until


class FakePool:
    """The pool's side: takes jobs and reports when it is told to."""

    def __init__(self, ends: pool.Ends) -> None:
        self.ends = ends
        os.set_blocking(ends.jobs.fileno(), False)

    def received(self) -> list[int]:
        """Numbers of the jobs that have arrived since the last call."""
        found = []
        while True:
            try:
                packet = self.ends.jobs.receive()
            except ProtocolError as error:
                assert error.errno == errno.EAGAIN
                return found
            assert packet is not None
            with packet:
                found.append(packet.get("job", int, 0))

    def take(self, job: int) -> None:
        self.ends.reports.send("taken", None, job=job, pid=100000 + job)

    def finish(self, job: int) -> None:
        self.ends.reports.send("done", None, job=job)


class Scene:
    def __init__(self, loop: Loop, limit: int) -> None:
        self.loop = loop
        ours, theirs = pool.pairs()
        self.ours = ours
        self.pool = FakePool(theirs)
        self.ended: list[tuple[int, CtrError | None]] = []
        self.reported: list[tuple[int, str]] = []
        self.dispatch = Dispatch(loop, ours, self._report, self._end, limit)

    def _report(self, job: Job, packet: Packet) -> None:
        self.reported.append((job.number, packet.type))

    def _end(self, job: Job, error: CtrError | None) -> None:
        self.ended.append((job.number, error))

    def start(self, fds: dict[str, int] | None = None, **fields: Any) -> Job:
        return self.dispatch.start("request", None, Packet({"type": "kill"}, fds or {}), **fields)

    def until(self, condition: Callable[[], bool]) -> None:
        serve_until(self.loop, condition)

    def close(self) -> None:
        for ends in (self.ours, self.pool.ends):
            ends.close()


@pytest.fixture
def scene(loop: Loop) -> Iterator[Callable[[int], Scene]]:
    made: list[Scene] = []

    def make(limit: int) -> Scene:
        made.append(Scene(loop, limit))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_the_pool_has_no_worker_for_waits_here_with_its_fds(scene: Callable[[int], Scene]) -> None:
    found = scene(2)
    reader, writer = os.pipe()
    jobs = [found.start(), found.start(), found.start({"stdout": writer})]
    assert found.pool.received() == [1, 2]

    found.pool.take(1)
    found.until(lambda: jobs[0].pid > 0)
    assert found.pool.received() == []
    found.pool.finish(1)
    found.until(lambda: found.ended == [(1, None)])
    packet = found.pool.ends.jobs.receive()
    assert packet is not None
    with packet:
        assert packet.get("job", int, 0) == 3
        os.write(packet.fd("stdout"), b"x")
    assert os.read(reader, 2) == b"x"
    assert os.read(reader, 1) == b"", "somebody else still has the fd"
    os.close(reader)


def test_a_job_that_there_is_no_fd_to_wait_with_leaves_nothing(
    scene: Callable[[int], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scene(0)
    before = open_fds()
    real = os.dup
    monkeypatch.setattr(module.os, "dup", lambda fd: real(fd) if fd == 0 else os.open("/nonexistent", 0))
    request = Packet({"type": "kill"}, {"stdin": 0, "stdout": 1})
    with pytest.raises(FileNotFoundError):
        found.dispatch.start("request", None, request)
    assert (found.dispatch.jobs, open_fds()) == ({}, before)
    assert request.fd_names == ["stdin", "stdout"]


def test_a_job_that_crashes_before_it_reports_makes_room(scene: Callable[[int], Scene]) -> None:
    found = scene(1)
    found.start()
    found.start()
    found.pool.take(1)
    found.pool.ends.control.send("reaped", None, pid=100001, status=9)
    found.until(lambda: bool(found.ended))
    assert str(found.ended[0][1]) == "the job that did this ended by signal 9"
    assert found.pool.received() == [1, 2]


def test_held_back_jobs_wait_for_what_was_sent_to_be_taken(scene: Callable[[int], Scene]) -> None:
    found = scene(8)
    found.start()
    found.start()
    called: list[str] = []
    found.dispatch.hold(lambda: called.append("taken"))
    found.start()
    found.pool.take(1)
    found.until(lambda: found.dispatch.jobs[1].pid > 0)
    assert not called
    found.pool.take(2)
    found.until(lambda: called == ["taken"])
    assert found.pool.received() == [1, 2]

    found.dispatch.release()
    assert found.pool.received() == [3]


def test_with_nothing_on_its_way_nobody_is_waited_for(scene: Callable[[int], Scene]) -> None:
    called: list[str] = []
    scene(8).dispatch.hold(lambda: called.append("taken"))
    assert called == ["taken"]


def test_workers_that_take_nothing_are_not_waited_for_forever(
    scene: Callable[[int], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKING_TIME", 0.01)
    found = scene(8)
    found.start()
    called: list[str] = []
    found.dispatch.hold(lambda: called.append("over"))
    found.until(lambda: called == ["over"])


def test_another_program_gets_the_queue_and_its_fds(scene: Callable[[int], Scene]) -> None:
    found = scene(1)
    reader, writer = os.pipe()
    found.start()
    found.start({"stdout": writer}, body={"type": "kill"})
    found.pool.take(1)
    found.until(lambda: found.dispatch.jobs[1].pid > 0)
    saved = found.dispatch.export(os.dup, lambda connection: 0)
    for wire in (found.ours.reports, found.ours.control):
        found.loop.remove(wire.fileno())

    following = scene(8)
    following.dispatch.restore(saved, [])
    assert following.start().number == 3
    assert following.pool.received() == [2, 3]
    found.pool.finish(1)
    following.until(lambda: following.ended == [(1, None)])
    assert set(following.dispatch.jobs) == {2, 3}
    os.close(reader)


def test_jobs_wait_for_another_program_when_the_pool_is_gone(scene: Callable[[int], Scene]) -> None:
    found = scene(8)
    lost: list[str] = []
    found.dispatch.on_pool_lost = lambda: lost.append("lost")
    found.start()
    found.pool.ends.close()
    # Not read yet, but sending shows it.
    found.start()
    assert not found.ended
    found.until(lambda: bool(lost))
    found.pool = FakePool(pool.pairs()[0])
    assert [(number, str(error)) for number, error in found.ended] == [(1, "the pool of workers has ended")]
    assert found.dispatch.lost
    assert set(found.dispatch.jobs) == {2}


def test_a_job_that_can_not_be_sent_is_over_and_holds_up_none(scene: Callable[[int], Scene]) -> None:
    found = scene(8)
    found.start(body={"type": "run", "filler": b"x" * MESSAGE_MAX})
    found.start()
    assert [number for number, _ in found.ended] == [1]
    assert "is more than" in str(found.ended[0][1])
    assert found.pool.received() == [2]
