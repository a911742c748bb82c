"""What the pool knows of its workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctr_common.wire import Packet, Wire
from ctr_supervisor.process.status import read_stat
from ctr_supervisor.service import pool
from tests.support.waiting import until

LIMIT = 10.0


@pytest.fixture
def made() -> Iterator[pool.Pool]:
    """A pool that does not run, without workers."""
    ours, theirs = pool.pairs()
    found = pool.Pool(theirs, lambda packet, reports: True)
    yield found
    for fd in (found.changes_read, found.changes_write, found.seats):
        fd.close()
    ours.close()
    theirs.close()


def dead_worker(of: pool.Pool, life: Callable[[], None]) -> int:
    """One that was idle when it was forked, and has ended since without having been reaped."""
    assert of.take_seat()
    pid = os.fork()
    if pid == 0:
        try:
            life()
        finally:
            os._exit(1)
    of.workers.add(pid)
    of.idle.add(pid)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_a_worker_that_took_a_job_and_ended_at_once_is_not_idle(made: pool.Pool):
    def take() -> None:
        os.eventfd_write(made.seats.fileno(), 1)
        os.write(made.changes_write.fileno(), pool.PID.pack(os.getpid()))

    dead_worker(made, take)
    # as when its end is seen before what it wrote
    made.reap()
    made.read_changes()
    assert (made.workers, made.idle) == (set(), set())
    assert os.eventfd_read(made.seats.fileno()) == 1
    assert sum(made.take_seat() for _ in range(2 * pool.IDLE_MAX)) == pool.IDLE_MAX - 1


def test_an_idle_worker_that_ended_gives_back_its_seat(made: pool.Pool):
    dead_worker(made, lambda: None)
    made.reap()
    assert (made.workers, made.idle) == (set(), set())
    assert sum(made.take_seat() for _ in range(2 * pool.IDLE_MAX)) == pool.IDLE_MAX


def test_a_worker_does_one_job_after_the_other_and_ends_after_one_that_failed():
    done = []

    def serve(packet: Packet, reports: Wire) -> bool:
        with packet:
            job = packet.get("job", int, 0)
        reports.send("done", None, job=job, pid=os.getpid())
        return bool(job != 2)

    pid, ends = pool.start(lambda: serve)
    try:
        workers = set()
        for job in (1, 2, 3):
            ends.jobs.send("job", None, job=job)
            with ends.reports.expect("done", timeout=LIMIT) as report:
                done.append(report.get("job", int, 0))
                workers.add(report.get("pid", int, 0))
        with ends.control.expect("reaped", timeout=LIMIT) as reaped:
            assert reaped.get("pid", int, 0) in workers
        assert done == [1, 2, 3]
    finally:
        ends.close()
        os.waitpid(pid, 0)


def test_a_pool_whose_supervisor_is_gone_waits_for_its_last_job_without_work_of_its_own():
    gate, opened = os.pipe()

    def serve(packet: Packet, reports: Wire) -> bool:
        with packet:
            reports.send("taken", None, pid=os.getpid())
            os.read(packet.fd("gate"), 1)
        return True

    pid, ends = pool.start(lambda: serve)
    try:
        ends.jobs.send("job", {"gate": gate})
        ends.reports.expect("taken", timeout=LIMIT).close()
        until("a worker waits for the next job", lambda: len(children(pid)) >= 2)
        os.kill(pid, signal.SIGSTOP)
        until("it is stopped", lambda: state(pid) == b"T")
        ends.close()
        # It is to see this one's end, and that of the supervisor, at once.
        until("an idle worker has ended", lambda: any(state(child) == b"Z" for child in children(pid)))
        os.kill(pid, signal.SIGCONT)
        until("only the last job is left", lambda: len(children(pid)) == 1)
        until("it sleeps", lambda: state(pid) == b"S")
    finally:
        os.close(gate)
        os.write(opened, b"x")
        os.close(opened)
        os.waitpid(pid, 0)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> bytes:
    found = read_stat(pid)
    return found[0] if found else b""
