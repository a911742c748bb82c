"""Jobs on their way: to the pool that does them, and what is heard of them until they are over.

The queue is kept here: the pool gets no more than it has workers for, and nothing while another program is about to go
on with it, so that what waits can be handed over.
"""

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.wire import Packet
from ctr_supervisor.service import pool
from ctr_supervisor.service.connection import Connection
from ctr_supervisor.service.loop import WRITABLE, Loop, Timer

SIGTERM = 15

# What sending fails with when nobody reads any more.
GONE = (errno.EPIPE, errno.ECONNRESET)
# Seconds for idle workers to take what was sent to them.
TAKING_TIME = 10.0


class Job:
    """One job under way.

    Attributes:
        number: what it is called in messages with the pool.
        kind: see job.py.
        request: what the client asked for.
        connection: None once it is closed, or where nobody asked.
        pid: of the worker, 0 until it has taken the job.
        ends_with_client: it is ended when its client is gone.
        owner: the connection that it was begun for, open or not; what its order is kept by.
        in_pool: it was sent to the pool of this program.
        of_old_pool: it was begun by the program before this one.
    """

    __slots__ = (
        "connection",
        "ends_with_client",
        "in_pool",
        "kind",
        "number",
        "of_old_pool",
        "owner",
        "pid",
        "request",
    )

    def __init__(self, number: int, kind: str, connection: Connection | None, request: Packet) -> None:
        self.number = number
        self.kind = kind
        self.connection = connection
        self.owner = connection
        self.request = request
        self.pid = 0
        self.ends_with_client = False
        self.in_pool = False
        self.of_old_pool = False

    def end(self) -> None:
        """Has its worker ended, with its hooks; before it is taken there is none."""
        if self.pid:
            try:
                os.killpg(self.pid, SIGTERM)
            except ProcessLookupError:
                pass


class Dispatch:
    """Sends jobs to the pool, and hears its reports.

    Args:
        ends: of the pool's sockets.
        on_report: told of an answer, event, log line or failure of a job.
        on_end: told that a job is over, with the reason where it did not come to its own end.
        limit: jobs that the pool does at once; more wait here.

    Attributes:
        jobs: those under way, by their number.
        lost: the pool has ended without having been told to.
        on_pool_lost: called when the pool has ended without having been told to.
    """

    def __init__(
        self,
        loop: Loop,
        ends: pool.Ends,
        on_report: Callable[[Job, Packet], None],
        on_end: Callable[[Job, CtrError | None], None],
        limit: int | None = None,
    ) -> None:
        self.loop = loop
        self.jobs: dict[int, Job] = {}
        self.lost = False
        self.on_pool_lost: Callable[[], None] = lambda: None
        self._on_report = on_report
        self._on_end = on_end
        self._limit = pool.JOBS_MAX if limit is None else limit
        self._count = 0
        self._by_pid: dict[int, Job] = {}
        # Of programs before this one; jobs are still under way there.
        self._old_pools: list[pool.Ends] = []
        self._unsent: deque[tuple[Job, dict[str, int], dict[str, Any]]] = deque()
        self._in_pool = 0
        self._untaken = 0
        self._held = False
        self._when_taken: Callable[[], None] | None = None
        self._patience: Timer | None = None
        self._ends = ends
        os.set_blocking(ends.jobs.fileno(), False)
        self._listen_to(ends)

    # -- to the pool

    def start(self, kind: str, connection: Connection | None, request: Packet, **fields: Any) -> Job:
        """Has a worker do something.

        Args:
            connection: who gets the answer; None for nobody.
            request: its fds go along.
            fields: of the job, see job.py.

        Raises:
            OSError: there is no fd left for it to wait with; nothing has happened, and the request is the caller's.
        """
        self._count += 1
        started = Job(self._count, kind, connection, request)
        self.jobs[started.number] = started
        fds = {name: request.fd(name) for name in request.fd_names}
        if connection is not None and kind != "request":
            fds["connection"] = connection.wire.fileno()
        try:
            self._send(started, fds, {"job": started.number, "kind": kind, **fields})
        except OSError:
            del self.jobs[started.number]
            raise
        if connection is not None and kind != "request":
            connection.give()
        request.close()
        return started

    @property
    def is_busy(self) -> bool:
        """Whether half of what the pool does at once is under way."""
        return 2 * len(self.jobs) >= self._limit

    def hold(self, then: Callable[[], None]) -> None:
        """Sends nothing more to the pool, which is to be another program's.

        Args:
            then: called when everything that was sent has been taken, or is not within TAKING_TIME.
        """
        self._held = True
        self._when_taken = then
        self._patience = self.loop.call_later(TAKING_TIME, self._all_taken)
        if not self._untaken:
            self._all_taken()

    def release(self) -> None:
        """Takes `hold` back."""
        self._held = False
        self._send_unsent()

    def _all_taken(self) -> None:
        then, self._when_taken = self._when_taken, None
        if self._patience is not None:
            self._patience.cancel()
        if then is not None:
            then()

    def _send(self, job: Job, fds: dict[str, int], fields: dict[str, Any]) -> None:
        """Sends a job now or when there is room; the fds stay the caller's."""
        if self._unsent or not self._try(job, fds, fields):
            kept: dict[str, int] = {}
            try:
                for name, fd in fds.items():
                    kept[name] = os.dup(fd)
            except OSError:
                for fd in kept.values():
                    os.close(fd)
                raise
            self._unsent.append((job, kept, fields))

    def _try(self, job: Job, fds: dict[str, int], fields: dict[str, Any]) -> bool:
        """Sends a job if there is room; one that can't be sent at all is over."""
        if self._held or self._in_pool >= self._limit:
            return False
        try:
            self._ends.jobs.send("job", fds, **fields)
        except ProtocolError as error:
            if error.errno == errno.EAGAIN:
                # The workers are slow to take what is in the socket.
                self._watch_for_room(True)
                return False
            if error.errno in GONE:
                # Its end is about to be read; another program will have another pool.
                self._held = True
                return False
            self._over(job, error)
            return True
        job.in_pool = True
        self._in_pool += 1
        self._untaken += 1
        return True

    def _watch_for_room(self, wanted: bool) -> None:
        self.loop.remove(self._ends.jobs.fileno())
        if wanted:
            self.loop.add(self._ends.jobs.fileno(), lambda _: self._send_unsent(), WRITABLE)

    def _send_unsent(self) -> None:
        self._watch_for_room(False)
        while self._unsent:
            waiting = self._unsent.popleft()
            if not self._try(*waiting):
                self._unsent.appendleft(waiting)
                return
            for fd in waiting[1].values():
                os.close(fd)

    # -- from the pool

    def _listen_to(self, ends: pool.Ends) -> None:
        for wire in (ends.reports, ends.control):
            os.set_blocking(wire.fileno(), False)
        self.loop.add(ends.reports.fileno(), lambda _: self._read_reports(ends), urgent=True)
        self.loop.add(ends.control.fileno(), lambda _: self._read_control(ends))

    def hear(self) -> None:
        """Takes what jobs have reported by now."""
        for ends in (self._ends, *self._old_pools):
            self._read_reports(ends)

    def _read_reports(self, ends: pool.Ends) -> None:
        while True:
            try:
                packet = ends.reports.receive()
            except ProtocolError as error:
                if error.errno != errno.EAGAIN:
                    raise
                return
            if packet is None:
                self.loop.remove(ends.reports.fileno())
                return
            with packet:
                found = self.jobs.get(packet.get("job", int, 0))
                if found is None:
                    continue
                if packet.type == "taken":
                    self._taken(found, packet.get("pid", int, 0))
                elif packet.type == "done":
                    self._over(found, None)
                else:
                    self._on_report(found, packet)

    def _taken(self, found: Job, pid: int) -> None:
        found.pid = pid
        self._by_pid[pid] = found
        if found.in_pool:
            self._one_taken()
        if found.connection is None and found.ends_with_client:
            found.end()

    def _read_control(self, ends: pool.Ends) -> None:
        while True:
            try:
                packet = ends.control.receive()
            except ProtocolError as error:
                if error.errno != errno.EAGAIN:
                    raise
                return
            if packet is None:
                self._read_reports(ends)
                self._pool_ended(ends)
                return
            with packet:
                # What it said before it ended comes first.
                self._read_reports(ends)
                found = self._by_pid.get(packet.get("pid", int, 0))
                if found is not None:
                    self._over(found, CtrError(f"the job that did this ended {how(packet.get('status', int, 0))}"))

    def _pool_ended(self, ends: pool.Ends) -> None:
        for wire in (ends.reports, ends.control):
            self.loop.remove(wire.fileno())
        if ends is not self._ends:
            # One of the program before this, whose last job is done.
            self._old_pools.remove(ends)
            ends.close()
        if ends is self._ends or not self._old_pools:
            for found in [found for found in self.jobs.values() if self._was_in(found, ends)]:
                self._over(found, CtrError("the pool of workers has ended"))
        if ends is self._ends:
            self._held = self.lost = True
            self._watch_for_room(False)
            self.on_pool_lost()

    def _was_in(self, found: Job, ends: pool.Ends) -> bool:
        return found.in_pool if ends is self._ends else found.of_old_pool

    def _one_taken(self) -> None:
        self._untaken -= 1
        if not self._untaken and self._when_taken is not None:
            self._all_taken()

    def _over(self, found: Job, error: CtrError | None) -> None:
        self.jobs.pop(found.number, None)
        if found.pid:
            self._by_pid.pop(found.pid, None)
        if found.in_pool:
            found.in_pool = False
            self._in_pool -= 1
            if not found.pid:
                self._one_taken()
        self._on_end(found, error)
        if self._unsent:
            self._send_unsent()

    # -- in another program (succession.py)

    def export(self, keep: Callable[[int], int], number_of: Callable[[Connection], int]) -> dict[str, Any]:
        """What another program needs to go on, for `restore`.

        Args:
            keep: told of every fd that the other program is to have.
            number_of: what a connection is called there.
        """
        return {
            "job_count": self._count,
            "jobs": [
                {
                    "number": found.number,
                    "kind": found.kind,
                    "connection": -1 if found.connection is None else number_of(found.connection),
                    "request": found.request.body,
                    "pid": found.pid,
                    "ends_with_client": found.ends_with_client,
                }
                for found in self.jobs.values()
            ],
            "pools": [
                [
                    -1 if ends is not self._ends else keep(ends.jobs.fileno()),
                    keep(ends.reports.fileno()),
                    keep(ends.control.fileno()),
                ]
                for ends in (self._ends, *self._old_pools)
            ],
            "unsent": [[{name: keep(fd) for name, fd in fds.items()}, fields] for _, fds, fields in self._unsent],
        }

    def restore(self, saved: dict[str, Any], connections: list[Connection]) -> None:
        """Goes on where the one with that `export` was; its pools end when their jobs are done.

        Args:
            connections: by their number.
        """
        self._count = saved["job_count"]
        for one in saved["jobs"]:
            connection = connections[one["connection"]] if one["connection"] >= 0 else None
            found = self.jobs[one["number"]] = Job(one["number"], one["kind"], connection, Packet(one["request"], {}))
            found.pid = one["pid"]
            found.ends_with_client = one["ends_with_client"]
            found.of_old_pool = True
            if found.pid:
                self._by_pid[found.pid] = found
        for jobs, reports, control in saved["pools"]:
            ends = pool.Ends(jobs, reports, control)
            self._old_pools.append(ends)
            self._listen_to(ends)
            if jobs >= 0:
                try:
                    ends.control.send("retire")
                except ProtocolError:
                    # It is gone, which is read in its turn.
                    pass
                ends.jobs.close()
        for fds, fields in saved["unsent"]:
            waiting = self.jobs[fields["job"]]
            waiting.of_old_pool = False
            self._send(waiting, fds, fields)
            for fd in fds.values():
                os.close(fd)


def how(status: int) -> str:
    """How a process ended, in words.

    Args:
        status: as from waitpid(2).
    """
    code = os.waitstatus_to_exitcode(status)
    return f"by signal {-code}" if code < 0 else f"with status {code}"
