"""The pool: a small process with the engine imported, which forks a job for each request that can block.

    supervisor ── jobs ────▶ whichever worker waits             (one socket that all workers read)
               ◀── reports ── workers                            (one socket that all workers write)
               ◀── control ── pool: which worker ended, and how

Workers are forked ahead of need and wait for a job; a job that crashes takes nothing with it. A worker that did its
job without a failure puts down everything that belonged to it, and waits for another one if there is a seat to wait
in: a new process would pay with a page fault for each page that it touches, which is a quarter of a start. After any
failure, and after REUSE jobs, it ends. When the supervisor is gone the sockets end: idle workers and then the pool
follow, jobs under way are finished.
"""

import gc
import os
import select
import struct
import sys
from collections.abc import Callable

from ctr_common import trace
from ctr_common.errors import ProtocolError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PR_SET_NAME
from ctr_common.wire import Packet, Wire
from ctr_supervisor.cgroups import devices_ebpf, hierarchies
from ctr_supervisor.service import environment

# Does the job in the packet, and reports; says whether the process may do another one.
Serve = Callable[[Packet, Wire], bool]

# Workers that wait for a job: as many are forked, and as many may stay.
IDLE_MIN = 2
IDLE_MAX = 4
# Jobs at once; one more waits in the socket for its turn.
JOBS_MAX = 2048
# Jobs that one worker does in its life.
REUSE = 100

PID = struct.Struct("I")

FD_MAX = 0xFFFFFFFF

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
            # The service's own fds too, such as those that it took over from the program before.
            close_all_but({wire.fileno() for wire in (theirs.jobs, theirs.reports, theirs.control)})
            Pool(theirs, prepare()).run()
        finally:
            os._exit(0)
    theirs.close()
    return pid, ours


def close_all_but(kept: set[int]) -> None:
    """Closes every fd beyond stderr but those."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            _kernel.close_range(first, fd - 1)
        first = max(first, fd + 1)
    _kernel.close_range(first, FD_MAX)


class Surroundings:
    """What a worker was born with, and goes back to after each job."""

    def __init__(self) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        # 0, 1 and 2 become the client's; without one nothing is read, and a traceback goes where the service's go.
        self.stdio = (null, null, os.dup(2))
        environment.keep()
        self.arguments = sys.argv
        self.fds = {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and is_open(fd)}

    def restore(self) -> None:
        """Puts down what belonged to a job: fds, working directory, umask, garbage.

        Its environment stays until the next job puts on its own, which is mostly the same.
        """
        for number, fd in enumerate(self.stdio):
            os.dup2(fd, number)
        close_all_but(self.fds.union(devices_ebpf.kept_fds()))
        os.chdir("/")
        os.umask(0o022)
        sys.argv = self.arguments
        hierarchies.forget()
        trace.recorder = None
        gc.collect()


def is_open(fd: int) -> bool:
    """Whether there is such a fd; what lists a directory of fds finds its own in it."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Pool:
    """The pool's own process."""

    def __init__(self, ends: Ends, serve: Serve) -> None:
        self.ends = ends
        self.serve = serve
        # A worker writes its pid here when it has taken a job, and when it waits for another.
        self.changes_read, self.changes_write = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
        os.set_blocking(self.changes_read.fileno(), False)
        # A worker that waits has taken one of these.
        self.seats = Fd(os.eventfd(IDLE_MAX, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE))
        self.workers: set[int] = set()
        self.idle: set[int] = set()
        self.retired = False
        self.first = True

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
        for fd in (self.ends.control.fileno(), self.changes_read.fileno(), children.fileno()):
            poll.register(fd, select.POLLIN)
        while True:
            wanted = IDLE_MIN if self.first else 1
            while not self.retired and len(self.idle) < wanted and len(self.workers) < JOBS_MAX and self.take_seat():
                self.fork_worker()
            self.first = False
            if self.retired and not self.workers:
                return
            ready = dict(poll.poll())
            if self.changes_read.fileno() in ready:
                self.read_changes()
            if children.fileno() in ready:
                _kernel.read_signalfd(children.fileno())
                self.reap()
            if self.ends.control.fileno() in ready and not self.retired:
                self.retired = True
                poll.unregister(self.ends.control.fileno())
                # Its other end is closed, so idle workers read the end of it.
                self.ends.jobs.close()

    def read_changes(self) -> None:
        """Notes who waits, and who does so no more."""
        try:
            # all that a pipe holds
            pids = os.read(self.changes_read.fileno(), 65536)
        except BlockingIOError:
            return
        self.idle.symmetric_difference_update(pid for (pid,) in PID.iter_unpack(pids))

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
            self.changes_read.close()
            self.work()
            code = 0
        finally:
            os._exit(code)

    def take_seat(self) -> bool:
        """Whether there is a seat for one more that waits."""
        try:
            os.eventfd_read(self.seats.fileno())
        except BlockingIOError:
            return False
        return True

    def work(self) -> None:
        """A worker's life."""
        # So that it can be ended together with the hooks that it runs.
        os.setpgid(0, 0)
        first = Surroundings()
        for _ in range(REUSE):
            job = self.ends.jobs.receive()
            if job is None:
                return
            os.eventfd_write(self.seats.fileno(), 1)
            os.write(self.changes_write.fileno(), PID.pack(os.getpid()))
            if not self.serve(job, self.ends.reports):
                return
            first.restore()
            # Told first: a worker that is killed in between gives back a seat that it has not taken, which does less
            # harm than to keep one for ever.
            os.write(self.changes_write.fileno(), PID.pack(os.getpid()))
            if not self.take_seat():
                os.write(self.changes_write.fileno(), PID.pack(os.getpid()))
                return

    def reap(self) -> None:
        """Tells the supervisor of workers that ended."""
        while self.workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # What it wrote before its end is there by now. Read later, it would make an idle worker of a dead one, and
            # jobs would wait for that.
            self.read_changes()
            self.workers.discard(pid)
            if pid in self.idle:
                self.idle.discard(pid)
                os.eventfd_write(self.seats.fileno(), 1)
            try:
                self.ends.control.send("reaped", None, pid=pid, status=status)
            except ProtocolError:
                # The supervisor is gone, which is read in its turn.
                pass
