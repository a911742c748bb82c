"""The setup without a worker: the engine's own process goes into the container's namespaces, works, and comes back.

A fork costs the page faults of two processes from then on, a quarter of a warm start. A worker is still needed where
there is no way back (a user namespace), where hooks run in between, and where only a process that was born in the pid
namespace can do something: a procfs for it, before Linux 6.18, whose procfs takes the namespace as an option.

What must hold in a worker holds here: nobody in the container sees this process, which stays in the host's pid
namespace and is not dumpable meanwhile; nothing of the image is executed or imported; every fd is close-on-exec.
"""

import _signal  # type: ignore[import-not-found]  # builtin; signal itself takes 5 ms for its enums
import fcntl
import os
import sys

from ctr_common import programs, trace
from ctr_common.channel import Message
from ctr_common.errors import CtrError, SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    FSCONFIG_SET_FD,
    PR_GET_DUMPABLE,
    PR_SET_DUMPABLE,
)
from ctr_common.spec.namespaces import NAMESPACES
from ctr_init import filesystem, join, requests, steps
from ctr_init.setup import Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctr_common.bootstrap import Attributes
    from ctr_init.plan import SetupPlan

NEEDED = CLONE_NEWNS | CLONE_NEWPID
NO_WAY_BACK = CLONE_NEWUSER | CLONE_NEWTIME
AND_BACK = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWPID
# In place of a pidfd.
NONE = -1
OWN = -2
# ioctl_ns(2)
NS_GET_USERNS = 0xB701
# The process has namespaces that are not its own and can't leave them: it must not do anything else.
STATUS_LOST = 71
STDERR = 2

# A hostile FUSE or network mount can hang a mount call in a wait that only a fatal signal ends: SIGALRM is one, and the
# kernel's own, so that no other process is needed to send it. Seconds.
TIMEOUT = 300.0
NEVER = 0.0
SIGALRM = 14
SIG_UNBLOCK, SIG_SETMASK = 1, 2


def find_home() -> int:
    """A pidfd of this process, whose namespaces lead its children back; -1 where these must not go anywhere.

    To be called once, in a single-threaded process that stays where it is.
    """
    try:
        home = _kernel.pidfd_open(os.getpid())
    except OSError:
        return -1
    if _takes_pid_namespace() and _comes_back(home):
        return home
    os.close(home)
    return -1


class Home:
    """The namespaces that this process comes back to.

    Args:
        pidfd: from the parent's `find_home`; OWN to hold the own ones open, which lead back once they are left, too.
        flags: CLONE_NEW* of those that will be left.
        todo: what is to be done in the container's.
    """

    __slots__ = ("namespaces", "pidfd", "root", "todo")

    def __init__(self, pidfd: int, flags: int, todo: "steps.Steps") -> None:
        self.pidfd = pidfd
        self.todo = todo
        self.namespaces: list[tuple[int, int]] = []
        self.root = -1
        if pidfd >= 0:
            return
        self.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for flag, name in NAMESPACES.values():
                if flags & flag & AND_BACK & ~CLONE_NEWPID:
                    self.namespaces.append((os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag))
                    # Root of a user namespace may leave namespaces that belong to the one outside, and not come back.
                    os.close(fcntl.ioctl(self.namespaces[-1][0], NS_GET_USERNS))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Gives up the way back."""
        for fd, _ in self.namespaces:
            os.close(fd)
        os.close(self.root)

    def enter(self) -> None:
        """Comes back.

        Raises:
            OSError: that was not possible.
        """
        if self.pidfd >= 0:
            _kernel.setns(self.pidfd, AND_BACK)
            return
        for fd, flag in self.namespaces:
            _kernel.setns(fd, flag)
            os.close(fd)
        # setns(2) leads to the root of the mount namespace, which in a chroot is not the one that was left.
        os.fchdir(self.root)
        os.chroot(".")
        os.close(self.root)


def way_home(pidfd: int, plan: "SetupPlan") -> "Home | None":
    """How this process could come back from the namespaces of a plan; None if it needs a worker.

    Args:
        pidfd: from the parent's `find_home`; OWN for a process that holds its own namespaces open; NONE.
        plan: what is to be set up.
    """
    if pidfd == NONE or not is_possible(plan):
        return None
    # A thread can't leave its mount namespace beside others, which would meet our umask besides.
    if pidfd == OWN and not (programs.is_alone() and _takes_pid_namespace()):
        return None
    try:
        return Home(pidfd, plan.join_flags, steps.of_plan(plan))
    except OSError:
        return None


def _takes_pid_namespace() -> bool:
    """Whether a procfs can be told its pid namespace (Linux 6.18)."""
    try:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        context = _kernel.fsopen("proc")
        try:
            _kernel.fsconfig(context, FSCONFIG_SET_FD, "pidns", None, own)
        finally:
            os.close(context)
    except OSError:
        return False
    finally:
        os.close(own)
    return True


def _comes_back(home: int) -> bool:
    """Whether the root directory is that of the mount namespace: setns(2) leads back to none that was chosen since."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            before = _kernel.statx_mnt_id(os.open("/", os.O_PATH | os.O_CLOEXEC)), os.stat("/").st_ino
            _kernel.setns(home, AND_BACK)
            after = _kernel.statx_mnt_id(os.open("/", os.O_PATH | os.O_CLOEXEC)), os.stat("/").st_ino
            code = 0 if before == after else 1
        except OSError:
            pass
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def is_possible(plan: "SetupPlan") -> bool:
    """Whether nothing in the plan needs a process of its own."""
    if plan.join_flags & NEEDED != NEEDED or plan.join_flags & NO_WAY_BACK or plan.rootless or plan.no_pivot:
        return False
    hooks = plan.config.get("hooks") or {}
    if hooks.get("prestart") or hooks.get("createRuntime") or hooks.get("createContainer"):
        return False
    return not any(
        request.is_idmapped
        or (request.type == "proc" and filesystem.needs_old_call(request.options.data, request.options.flags))
        for request in requests.of_plan(plan)
    )


class Engine:
    """What the steps talk to in place of the channel to an engine in another process.

    Nothing is done with what they say before the process is back: paths and imports would lead into the container.

    Attributes:
        hooks_due: the moment of the runtime's hooks has come.
        console: master and slave of the container's terminal.
        home: home directory of the process's user.
    """

    def __init__(self) -> None:
        self.hooks_due = False
        self.console: tuple[int, int] | None = None
        self.home: str | None = None

    def send(self, message: int, attributes: "Attributes" = (), fds: "Sequence[int]" = ()) -> None:
        """Takes what a step says; what it is answered comes from `expect`."""
        said = Message(message, list(attributes), [])
        if message == _kernel.MSG_CONSOLE:
            master, slave = fds
            self.console = os.dup(master), os.dup(slave)
        elif message == _kernel.MSG_WORKER_HOOKS:
            self.hooks_due = True
        elif message == _kernel.MSG_WORKER_DONE:
            self.home = said.text(_kernel.ATTR_HOME)

    def expect(self, *wanted: int, timeout: "float | None" = None) -> Message:
        """Everything is acknowledged: it has been dealt with."""
        return Message(wanted[0], [], [])

    def close(self) -> None:
        """There is nothing to close."""


def run(
    plan: "SetupPlan", home: Home, on_hooks: "Callable[[], None]", on_console: "Callable[[int, int], None]"
) -> "str | None":
    """Sets the namespaces up.

    Args:
        plan: one that `is_possible`.
        home: from `way_home`.
        on_hooks: called if the moment of the runtime's hooks, of which there are none, has come.
        on_console: takes master and slave of the container's terminal.

    Returns:
        The home directory of the process's user, if the container's /etc/passwd knows it.

    Raises:
        CtrError: a step failed; the process is back.
    """
    if any(request.options.tmpcopyup for request in requests.of_plan(plan)):
        import ctr_init.tmpcopyup  # noqa: F401
    engine = Engine()
    setup = Setup(plan, engine, in_pid_namespace=True)
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    dumpable = _kernel.prctl(PR_GET_DUMPABLE)
    mask = os.umask(0)
    _kernel.prctl(PR_SET_DUMPABLE, 0)
    # An import behind the container's root would execute the image's code with the host's rights.
    finders = sys.meta_path[:]
    sys.meta_path.clear()
    if trace.recorder is not None:
        trace.recorder.process = "setup worker"
    if _signal.getsignal(SIGALRM) == _signal.SIG_IGN:
        # By whoever started this process.
        _signal.signal(SIGALRM, _signal.SIG_DFL)
    signals = _kernel.sigprocmask(SIG_UNBLOCK, (SIGALRM,))
    _signal.setitimer(_signal.ITIMER_REAL, TIMEOUT)
    try:
        setup.pid_namespace = os.open(f"/proc/{plan.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        steps.execute(setup, home.todo)
    except CtrError:
        raise
    except OSError as error:
        raise SetupError.from_os_error(error, "set up namespaces") from None
    finally:
        _come_back(home, directory)
        _signal.setitimer(_signal.ITIMER_REAL, NEVER)
        _kernel.sigprocmask(SIG_SETMASK, signals)
        sys.meta_path[:] = finders
        if trace.recorder is not None:
            trace.recorder.process = "engine"
        setup.close()
        join.restore_dumpable(dumpable)
        os.umask(mask)
        if engine.hooks_due:
            on_hooks()
    if engine.console is not None:
        on_console(*engine.console)
    return engine.home


def _come_back(home: Home, directory: int) -> None:
    try:
        home.enter()
        os.fchdir(directory)
        os.close(directory)
    except BaseException as error:
        # The next open by path would be in the container. Whoever waits for this process sees that it ended.
        try:
            os.write(STDERR, f"ctrun: cannot leave the container's namespaces: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(STATUS_LOST)
