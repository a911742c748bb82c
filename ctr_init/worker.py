"""The setup worker's process: a fork of the engine that sets up the container's namespaces and ends.

What it says to the engine, and hears from it:
  worker → WORKER_HOOKS                                engine → ACKNOWLEDGED (or the engine kills the worker)
  worker → CONSOLE (master, slave) where asked for     engine → ACKNOWLEDGED
  worker → WORKER_DONE (home directory)                the worker exits with 0
  worker → ERROR, at any time                          the worker exits with 1
"""

import _signal  # type: ignore[import-not-found]  # builtin; signal itself takes 5 ms for its enums
import gc
import os

from ctr_common import trace
from ctr_common.channel import Channel
from ctr_common.errors import CtrError, SetupError
from ctr_common.kernel import _kernel
from ctr_init import join, requests, steps
from ctr_init.setup import Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan

FD_MAX = 0xFFFFFFFF
SIGINT = 2


class Worker:
    """A worker under way.

    Attributes:
        pid: a child of the process that started it, to be waited for.
        fd: the engine's end of the socket, the caller's to close.
    """

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd


def start(plan: "SetupPlan") -> Worker:
    """Forks a worker that begins at once.

    Args:
        plan: what to set up; its pidfd stays the caller's.

    Raises:
        CtrError, OSError: there is no worker.
    """
    engine_end, worker_end = _kernel.socketpair()
    try:
        pid, in_pid_namespace = join.fork(plan)
        if pid == 0:
            work(plan, worker_end, in_pid_namespace)
    except BaseException:
        os.close(engine_end)
        os.close(worker_end)
        raise
    os.close(worker_end)
    return Worker(pid, engine_end)


def describe(plan: "SetupPlan") -> "list[dict[str, str]]":
    """What a worker would do: see `steps.describe`."""
    return steps.describe(plan)


def work(plan: "SetupPlan", fd: int, in_pid_namespace: bool) -> None:
    """Is the worker; never returns, whatever happens, since above it is the engine's stack.

    Args:
        fd: its end of the socket.
        in_pid_namespace: of the container, already.
    """
    code = 1
    try:
        # A file object of the engine that was collected here would close an fd number that is ours by now.
        gc.disable()
        recorder = trace.recorder
        if recorder is not None:
            recorder.forked("setup worker")
        channel = Channel(fd, "engine")
        failure: CtrError | None = None
        try:
            _close_other_fds(fd, plan.pidfd, *(() if recorder is None else (recorder.fd,)))
            join.protect()
            _let_interrupts_end_this()
            os.umask(0)  # every mode is given in full where something is made
            _import_rest(plan)
            steps.execute(Setup(plan, channel, in_pid_namespace), steps.of_plan(plan))
            code = 0
        except CtrError as error:
            failure = error
        except OSError as error:
            failure = SetupError.from_os_error(error, "set up namespaces")
        except Exception as error:
            failure = SetupError(f"{type(error).__name__}: {error}", step="set up namespaces")
        if recorder is not None:
            recorder.finish()
        if failure is not None:
            # Last of all: the engine ends a worker that has failed.
            channel.send_error(failure)
    finally:
        os._exit(code)


def _let_interrupts_end_this() -> None:
    """Ctrl-C ends a setup that hangs, whatever the engine does about it; it is the engine that cleans up."""
    if _signal.getsignal(SIGINT) != _signal.SIG_IGN:
        _signal.signal(SIGINT, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGINT,))


def _import_rest(plan: "SetupPlan") -> None:
    """Imports what only some plans need: in the container's namespaces its root may not reach the files any more."""
    if any(request.options.tmpcopyup for request in requests.of_plan(plan)):
        import ctr_init.tmpcopyup  # noqa: F401


def _close_other_fds(*needed: int) -> None:
    """Leaves stdio and the given fds: what the engine has open must not come along (CVE-2024-21626)."""
    first = 3
    for fd in sorted(needed):
        if fd > first:
            _kernel.close_range(first, fd - 1)
        first = max(first, fd + 1)
    _kernel.close_range(first, FD_MAX)
