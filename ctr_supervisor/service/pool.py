"""The pool: a small process with the engine imported, which forks a job for each request that can block.

    supervisor ── jobs ────▶ whichever worker waits             (one socket that all workers read)
               ◀── reports ── workers                            (one socket that all workers write)
               ◀── control ── pool: which worker ended, and how

Workers are forked ahead of need and wait for a job; one serves a single job and ends, so that nothing leaks from one
request into the next, and a job that crashes takes nothing with it. When the supervisor is gone the sockets end: idle
workers and then the pool follow, jobs under way are finished.
"""

import gc
import os
import select
import struct
from collections.abc import Callable

from ctr_common.errors import ProtocolError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PR_SET_NAME
from ctr_common.wire import Packet, Wire

# Does the job in the packet, and reports.
Serve = Callable[[Packet, Wire], None]

# Workers that wait for a job, and jobs at once; a job more waits in the socket for its turn.
IDLE = 2
JOBS_MAX = 256

PID = struct.Struct("I")

SIG_BLOCK, SIG_UNBLOCK = 0, 1
SIGINT, SIGTERM, SIGCHLD = 2, 15, 17


class Ends:
    """The sockets between the supervisor and its pool, as one of the two sides has them."""

    def __init__(self, jobs: int, reports: int, control: int) -> None:
        self.jobs = Wire(jobs, "pool")
        self.reports = Wire(reports, "pool")
        self.control = Wire(control, "pool")

    def close(self) -> None:
        """Closes this side's ends."""
        self.jobs.close()
        self.reports.close()
        self.control.close()


def pairs() -> tuple[Ends, Ends]:
    """The supervisor's ends and the pool's."""
    jobs, reports, control = _kernel.socketpair(), _kernel.socketpair(), _kernel.socketpair()
    return Ends(jobs[0], reports[0], control[0]), Ends(jobs[1], reports[1], control[1])


def start(prepare: Callable[[], Serve]) -> tuple[int, Ends]:
    """Forks the pool.

    Args:
        prepare: called in the pool alone; imports what jobs need, and returns what a worker does with its job.

    Returns:
        Its pid, and the supervisor's ends of the sockets.
    """
    ours, theirs = pairs()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            Pool(theirs, prepare()).run()
        finally:
            os._exit(0)
    theirs.close()
    return pid, ours


class Pool:
    """The pool's own process."""

    def __init__(self, ends: Ends, serve: Serve) -> None:
        self.ends = ends
        self.serve = serve
        # A worker writes its pid when it has taken a job.
        self.taken_read, self.taken_write = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
        self.workers: set[int] = set()
        self.idle: set[int] = set()
        self.retired = False

    def run(self) -> None:
        """Forks and reaps until the supervisor is gone and the last job is done."""
        _kernel.prctl(PR_SET_NAME, b"ctr-pool\0")
        # The terminal's signals are for the supervisor, which ends in order; its end is what ends this.
        _kernel.sigprocmask(SIG_BLOCK, (SIGINT, SIGTERM, SIGCHLD))
        children = Fd(_kernel.signalfd((SIGCHLD,)))
        gc.collect()
        # Collections in a job would touch every page that it shares with this process.
        gc.disable()
        gc.freeze()
        poll = select.poll()
        for fd in (self.ends.control.fileno(), self.taken_read.fileno(), children.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            while not self.retired and len(self.idle) < IDLE and len(self.workers) < JOBS_MAX:
                self.fork_worker()
            if self.retired and not self.workers:
                return
            ready = dict(poll.poll())
            if self.taken_read.fileno() in ready:
                pids = os.read(self.taken_read.fileno(), 1024 * PID.size)
                self.idle.difference_update(pid for (pid,) in PID.iter_unpack(pids))
            if children.fileno() in ready:
                _kernel.read_signalfd(children.fileno())
                self.reap()
            if self.ends.control.fileno() in ready and not self.retired:
                self.retired = True
                poll.unregister(self.ends.control.fileno())
                # Its other end is closed, so idle workers read the end of it.
                self.ends.jobs.close()

    def fork_worker(self) -> None:
        """One more idle worker."""
        pid = os.fork()
        if pid:
            self.workers.add(pid)
            self.idle.add(pid)
            return
        code = 1
        try:
            _kernel.sigprocmask(SIG_UNBLOCK, (SIGINT, SIGTERM, SIGCHLD))
            self.ends.control.close()
            self.taken_read.close()
            job = self.ends.jobs.receive()
            if job is not None:
                os.write(self.taken_write.fileno(), PID.pack(os.getpid()))
                self.ends.jobs.close()
                self.serve(job, self.ends.reports)
            code = 0
        finally:
            os._exit(code)

    def reap(self) -> None:
        """Tells the supervisor of workers that ended."""
        while self.workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.workers.discard(pid)
            self.idle.discard(pid)
            try:
                self.ends.control.send("reaped", None, pid=pid, status=status)
            except ProtocolError:
                self.retired = True
