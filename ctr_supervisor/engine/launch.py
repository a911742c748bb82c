"""What create and exec have in common: a container process is made, and waits in its namespaces for its settings.

spawn ctr-init ── BOOTSTRAP ──▶ stage 0: joins, clone3, id maps
              ◀── CHILD ─────── (pid, pidfd); stage 0 ends
cgroups        ── GO ─────────▶ container process, which enters those of v1
              ◀── NAMESPACES_READY
"""

import os
import select

from ctr_common import trace
from ctr_common.bootstrap import text, u32, u64
from ctr_common.channel import Channel, Message
from ctr_common.errors import CtrError, InitError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWUSER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctr_common.bootstrap import Attributes
    from ctr_supervisor.engine.debug_log import DebugLog
    from ctr_supervisor.process.parent import Parent

# Stage 0 may run newuidmap; the rest is a handful of system calls. A peer that dies ends the wait at once.
BOOTSTRAP_TIMEOUT = 60.0
# After its settings the process may wait for a slow disk (execve of a cold binary), never for a person.
SETTINGS_TIMEOUT = 120.0

# A process that does not end this long after SIGKILL is in a system call that can't be interrupted.
KILL_TIMEOUT = 10.0

# How engines know that a container could not be started; what follows it tells why.
CONTEXT = "unable to start container process"


class Launched:
    """A container process that waits for its settings.

    Attributes:
        parent: whose child it is.
        pid: in our pid namespace.
        pidfd: owned here.
        channel: the start-up protocol with it.
        in_cgroup: CLONE_INTO_CGROUP put it into its cgroup v2.
        log: its debug lines, where they are asked for.
    """

    __slots__ = ("channel", "in_cgroup", "log", "parent", "pid", "pidfd", "reaped")

    def __init__(
        self,
        parent: "Parent",
        pid: int,
        pidfd: Fd,
        channel: Channel,
        in_cgroup: bool,
        log: "DebugLog | None" = None,
    ) -> None:
        self.parent = parent
        self.log = log
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.in_cgroup = in_cgroup
        self.reaped = False

    def go(self, cgroup_entries: "Sequence[int]" = (), meanwhile: "Callable[[], None] | None" = None) -> None:
        """Lets it enter what is left of its cgroups and namespaces.

        Args:
            cgroup_entries: fds from `entry_fds` of its cgroups; closed here.
            meanwhile: called while it does.

        Raises:
            InitError: it could not.
        """
        try:
            attributes = [(_kernel.ATTR_CGROUP_TASKS_FD, u32(index)) for index in range(len(cgroup_entries))]
            self.channel.send(_kernel.MSG_GO, attributes, cgroup_entries)
        finally:
            for fd in cgroup_entries:
                os.close(fd)
        if meanwhile is not None:
            meanwhile()
        self.channel.expect(_kernel.MSG_NAMESPACES_READY, timeout=BOOTSTRAP_TIMEOUT).close()

    def send_settings(
        self,
        attributes: "Attributes",
        fds: "Sequence[int]",
        on_console: "Callable[[int], None] | None",
        on_listener: "Callable[[int], None] | None",
    ) -> None:
        """Has it set itself up, until only the fifo and execve are left.

        Args:
            on_console: takes the master of a pty that it allocated.
            on_listener: takes the fd of a seccomp user notification filter.

        Raises:
            InitError: a step failed; the process ends.
        """
        self.channel.send(_kernel.MSG_SETTINGS, attributes, fds)
        while True:
            message = self.channel.expect(
                _kernel.MSG_PREPARED, _kernel.MSG_CONSOLE, _kernel.MSG_SECCOMP_LISTENER, timeout=SETTINGS_TIMEOUT
            )
            with_fds(message, on_console, on_listener)
            if message.type == _kernel.MSG_PREPARED:
                if self.log is not None:
                    self.log.drain()
                return
            self.channel.send(_kernel.MSG_ACKNOWLEDGED)

    def await_execve(self) -> None:
        """Waits until execve has closed the process's end of the channel.

        Raises:
            InitError: execve, or what comes right before it, failed.
        """
        message = self.channel.receive()
        if message is not None:
            message.close()
            if message.type == _kernel.MSG_ERROR:
                raise message.error()

    def wait(self) -> int:
        """Waits for its end and gives the exit status as a shell would: the code, or 128 + the signal."""
        status = self.parent.wait(self.pid)
        self.reaped = True
        return status

    def kill(self) -> None:
        """Ends it for sure and reaps it; does nothing if that has happened."""
        if not self.reaped:
            try:
                _kernel.pidfd_send_signal(self.pidfd.fileno(), 9)
            except OSError:
                pass
            # The end of a pid namespace waits until every process in it is reaped, also those that others must reap.
            if poll_readable(self.pidfd.fileno(), KILL_TIMEOUT):
                try:
                    self.wait()
                except ChildProcessError:
                    self.reaped = True

    def close(self) -> None:
        """Lets go of it; it goes on."""
        if self.log is not None:
            self.log.close()
        self.channel.close()
        self.pidfd.close()


def poll_readable(fd: int, timeout: float) -> bool:
    """Waits for an fd; False if nothing came of it.

    Args:
        timeout: seconds.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def with_fds(
    message: Message,
    on_console: "Callable[[int], None] | None",
    on_listener: "Callable[[int], None] | None",
) -> None:
    """Hands the fd in a message to whoever wants it."""
    try:
        if message.type == _kernel.MSG_CONSOLE and on_console is not None:
            on_console(message.take_fd(_kernel.ATTR_CONSOLE_MASTER_FD))
        elif message.type == _kernel.MSG_SECCOMP_LISTENER and on_listener is not None:
            on_listener(message.take_fd(_kernel.ATTR_LISTENER_FD))
    finally:
        message.close()


def bootstrap_attributes(
    *,
    clone_flags: int,
    join_paths: "Sequence[tuple[str, str]]" = (),
    user_namespace: bool,
    rootless: bool,
) -> "list[tuple[int, bytes]]":
    """The attributes that every BOOTSTRAP has.

    Args:
        clone_flags: namespaces to make.
        join_paths: (type, path) of namespaces to join.
        user_namespace: the process ends up in a user namespace of its own or of another container.
        rootless: we are not root in our user namespace.
    """
    attributes = [(_kernel.ATTR_CLONE_FLAGS, u64(clone_flags))]
    attributes += [(_kernel.ATTR_NS_PATH, text(f"{kind}:{path}")) for kind, path in join_paths]
    if user_namespace or clone_flags & CLONE_NEWUSER:
        attributes.append((_kernel.ATTR_BECOME_ROOT, b"\1"))
    if rootless:
        attributes.append((_kernel.ATTR_ROOTLESS_EUID, b"\1"))
    return attributes


class Stage0:
    """The first stage of ctr-init, which waits to be told what process to make.

    It starts while its caller does other things.
    """

    __slots__ = ("_channel", "_number", "_parent")

    def __init__(self, parent: "Parent", number: int, channel: Channel) -> None:
        self._parent = parent
        self._number = number
        self._channel = channel

    @classmethod
    def start(cls, parent: "Parent", preserve_fds: int = 0) -> "Stage0":
        """Starts it from a sealed memfd.

        Args:
            parent: who starts it.
            preserve_fds: how many fds from 3 on the container process shall inherit.

        Raises:
            InitError: it can't be run.
        """
        ours, theirs = _kernel.socketpair()
        channel = Channel(ours, "container process")
        try:
            with trace.span("spawn stage 0 from a sealed memfd"):
                return cls(parent, parent.spawn(theirs, preserve_fds), channel)
        except BaseException:
            channel.close()
            raise
        finally:
            os.close(theirs)

    def abandon(self) -> None:
        """Leaves nothing of it, where it never was told anything."""
        self._channel.close()
        try:
            self._parent.stage0_failed(self._number)
        except CtrError:
            # It could not be run; whoever abandons it has another reason.
            pass

    def make_process(
        self,
        attributes: "Attributes",
        cgroup_fd: "int | None" = None,
        meanwhile: "Callable[[], None] | None" = None,
        note: "Callable[[str], None] | None" = None,
        status_directory: str = "",
        fds: "Sequence[int]" = (),
    ) -> Launched:
        """Has it make the container process, and end; whatever comes of it, this is used up.

        Args:
            attributes: of BOOTSTRAP.
            cgroup_fd: cgroup v2 directory to be born in.
            meanwhile: called while the namespaces are made.
            note: takes ctr-init's debug lines; None for none.
            status_directory: where a keeper writes the exit status.
            fds: that the attributes point to.

        Raises:
            InitError: a namespace could not be made or joined, an id map was refused.
        """
        attributes = list(attributes)
        fds = list(fds)
        if cgroup_fd is not None:
            attributes.append((_kernel.ATTR_CGROUP_FD, u32(len(fds))))
            fds.append(cgroup_fd)
        log = None
        if note is not None or trace.recorder is not None:
            from ctr_supervisor.engine.debug_log import DebugLog

            log = DebugLog(note)
            attributes.append((_kernel.ATTR_LOG_FD, u32(len(fds))))
            fds.append(log.writing)
            if trace.recorder is not None:
                attributes.append((_kernel.ATTR_TRACE, b"\1"))
        channel, parent = self._channel, self._parent
        try:
            try:
                _send_bootstrap(channel, parent, attributes, fds, status_directory)
                if log is not None:
                    log.handed_over()
                if meanwhile is not None:
                    meanwhile()
                message = channel.expect(_kernel.MSG_CHILD, timeout=BOOTSTRAP_TIMEOUT)
            except BaseException:
                parent.stage0_failed(self._number)
                raise
            try:
                pid = message.u32(_kernel.ATTR_PID)
                pidfd = Fd(message.take_fd(_kernel.ATTR_PIDFD))
                in_cgroup = message.get(_kernel.ATTR_IN_CGROUP) == b"\1"
            finally:
                message.close()
            if pid is None:
                raise InitError("ctr-init sent no pid")
            parent.stage0_done(self._number)
            return Launched(parent, pid, pidfd, channel, in_cgroup, log)
        except BaseException:
            channel.close()
            if log is not None:
                log.close()
            raise


def _send_bootstrap(
    channel: Channel, parent: "Parent", attributes: "list[tuple[int, bytes]]", fds: "list[int]", status_directory: str
) -> None:
    more, owned = parent.bootstrap(status_directory, len(fds))
    try:
        channel.send(_kernel.MSG_BOOTSTRAP, [*attributes, *more], [*fds, *owned])
    finally:
        for fd in owned:
            os.close(fd)
