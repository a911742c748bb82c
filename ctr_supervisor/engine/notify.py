"""Notifications of a container's memory cgroup, each behind one fd that becomes readable.

v1 signals an eventfd (kernel admin-guide/cgroup-v1/memory, "OOM Control" and "Memory Pressure"); v2 makes an open file
pollable (cgroup-v2, memory.events; accounting/psi, "Monitoring for pressure thresholds"). Which of them it is does not
show: poll for reading, then ask how often it happened.
"""

import errno
import os
import select

from ctr_common.errors import CgroupError, NotSupported
from ctr_common.fd import Fd
from ctr_supervisor.cgroups import files, stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.engine.container import Container

MEMORY_EVENTS, CGROUP_EVENTS = "memory.events", "cgroup.events"

LOW, MEDIUM, CRITICAL = "low", "medium", "critical"
LEVELS = (LOW, MEDIUM, CRITICAL)

# What the three levels of v1 are in stall time: kind, and milliseconds in a second. The numbers are those with which
# Android's lmkd replaced its use of v1's levels.
STALLS = {LOW: ("some", 70), MEDIUM: ("some", 100), CRITICAL: ("full", 70)}
# Without CAP_SYS_RESOURCE the window must be a multiple of two seconds (kernel commit d82caa273565).
WINDOWS = (1, 2)


class Notification:
    """Something that may happen to a cgroup, until the cgroup is gone.

    Attributes:
        gone: the cgroup was removed, or has no process any more: nothing will come.
    """

    __slots__ = ("gone",)

    def __init__(self) -> None:
        self.gone = False

    def __enter__(self) -> "Notification":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The fd, readable (POLLIN) once there is something to `take`; still owned here."""
        raise NotImplementedError

    def take(self) -> int:
        """How often it happened since the last call; 0 if it did not. Never waits."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the notifications."""
        raise NotImplementedError


class _EventFd(Notification):
    """cgroup.event_control of v1."""

    __slots__ = ("_counter", "_directory")

    def __init__(self, path: str, name: str, argument: str) -> None:
        super().__init__()
        self._directory = path
        self._counter = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        try:
            with files.Directory(path, "memory") as directory:
                source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fileno())
                with Fd(source):
                    directory.write("cgroup.event_control", f"{self.fileno()} {source} {argument}".rstrip())
        except OSError as error:
            self.close()
            raise files.failure(error, "open", f"{path}/{name}") from None
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """The eventfd."""
        return self._counter.fileno()

    def take(self) -> int:
        """Reads the counter."""
        try:
            count = os.eventfd_read(self.fileno())
        except BlockingIOError:
            count = 0
        if not os.path.isdir(self._directory):
            # The removal counts as an event, too.
            self.gone = True
            return max(count - 1, 0)
        return count

    def close(self) -> None:
        """Ends the notifications: the kernel forgets an eventfd that nobody has open."""
        self._counter.close()


class _Polled(Notification):
    """Files of v2 that ask to be looked at by POLLPRI.

    An epoll instance around them is what becomes readable, so that callers need not know.
    """

    __slots__ = ("_epoll", "_files", "_path")

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._files: dict[str, Fd] = {}
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)

    def open(self, name: str, flags: int) -> int:
        """Opens a file of the cgroup, which stays owned here; returns its fd."""
        with files.Directory(self._path, "memory") as directory:
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fileno())
            except OSError as error:
                raise files.failure(error, "open", f"{self._path}/{name}") from None
        self._files[name] = Fd(fd)
        return fd

    def watch(self, name: str) -> None:
        """Starts to wait for a file."""
        self._epoll.register(self._files[name].fileno(), select.EPOLLPRI)

    def fileno(self) -> int:
        """The epoll instance."""
        return self._epoll.fileno()

    def read(self, name: str) -> bytes:
        """Contents of a file, which ends its readiness; nothing once the cgroup is gone."""
        try:
            return os.pread(self._files[name].fileno(), 4096, 0)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            self.gone = True
            return b""

    def close(self) -> None:
        """Ends the notifications."""
        self._epoll.close()
        for file in self._files.values():
            file.close()


class _OomKills(_Polled):
    """memory.events of v2: counters, of which one counts.

    Nobody is woken when it goes away; cgroup.events tells before that the cgroup has no process any more.
    """

    __slots__ = ("_populated", "_seen")

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            for name in (MEMORY_EVENTS, CGROUP_EVENTS):
                self.open(name, os.O_RDONLY)
            self._seen = self._value(MEMORY_EVENTS, b"oom_kill")
            self._populated = self._value(CGROUP_EVENTS, b"populated")
            # What happens from the reading on makes the files ready.
            for name in (MEMORY_EVENTS, CGROUP_EVENTS):
                self.watch(name)
        except BaseException:
            self.close()
            raise

    def _value(self, name: str, key: bytes) -> int:
        for line in self.read(name).split(b"\n"):
            word, _, value = line.partition(b" ")
            if word == key:
                return int(value)
        return 0

    def take(self) -> int:
        """Reads the counter."""
        # Before the counter: the last process may have been killed in between.
        before, self._populated = self._populated, self._value(CGROUP_EVENTS, b"populated")
        if before and not self._populated:
            self.gone = True
        count = self._value(MEMORY_EVENTS, b"oom_kill")
        new, self._seen = count - self._seen, max(count, self._seen)
        return max(new, 0)


class _Stalls(_Polled):
    """A PSI trigger on a pressure file of v2."""

    __slots__ = ()

    def __init__(self, path: str, level: str, name: str = "memory.pressure") -> None:
        super().__init__(path)
        kind, milliseconds = STALLS[level]
        try:
            file = self.open(name, os.O_RDWR)
            for window in WINDOWS:
                trigger = f"{kind} {milliseconds * 1000 * window} {1_000_000 * window}"
                try:
                    os.write(file, trigger.encode() + b"\0")
                    break
                except OSError as error:
                    if error.errno != errno.EINVAL or window == WINDOWS[-1]:
                        raise files.failure(error, f'failed to write "{trigger}": write', f"{path}/{name}") from None
            # Only now: a pressure file without a trigger has no queue to wait in.
            self.watch(name)
        except BaseException:
            self.close()
            raise

    def take(self) -> int:
        """1 after the file became readable: the kernel counts no further, and takes its mark back when it is polled."""
        for name in self._files:
            self.read(name)
        return 0 if self.gone else 1


def notify_oom(container: "Container") -> Notification:
    """Tells when the container's memory limit makes the kernel kill.

    Args:
        container: one that has not stopped.

    Returns:
        on v1 an event for each time that a process hits the limit with nothing left to reclaim; on v2 for each
        process that was killed then. The caller closes it.

    Raises:
        CgroupError: the container has no memory cgroup, or it can't be watched.
    """
    return oom(container.cgroups.paths)


def notify_memory_pressure(container: "Container", level: str) -> Notification:
    """Tells when the container is short of memory.

    Args:
        container: one that has not stopped.
        level: LOW, MEDIUM or CRITICAL: v1's levels of memory.pressure_level, stall times that come near them on v2.

    Returns:
        readable at most once a second or two on v2. The caller closes it.

    Raises:
        CgroupError: the container has no memory cgroup, or it can't be watched.
        NotSupported: the kernel has no pressure stall information.
    """
    return memory_pressure(container.cgroups.paths, level)


def oom(paths: "dict[str, str]") -> Notification:
    """`notify_oom` for cgroups by controller, "" for v2."""
    path, unified = _memory_cgroup(paths)
    return _OomKills(path) if unified else _EventFd(path, "memory.oom_control", "")


def memory_pressure(paths: "dict[str, str]", level: str) -> Notification:
    """`notify_memory_pressure` for cgroups by controller, "" for v2."""
    if level not in LEVELS:
        raise CgroupError(f'invalid pressure level "{level}", expected one of {", ".join(LEVELS)}')
    path, unified = _memory_cgroup(paths)
    if not unified:
        return _EventFd(path, "memory.pressure_level", level)
    try:
        return _Stalls(path, level)
    except CgroupError as error:
        if error.errno in stats.MISSING:
            raise NotSupported(
                "no pressure stall information:", path=error.path, errno=error.errno, hint="boot with psi=1"
            ) from None
        raise


def _memory_cgroup(paths: "dict[str, str]") -> "tuple[str, bool]":
    """The cgroup with the memory controller, and whether it is one of v2."""
    if "memory" in paths:
        return paths["memory"], False
    if list(paths) == [""]:
        return paths[""], True
    raise CgroupError("cannot watch memory: the container has no memory cgroup")
