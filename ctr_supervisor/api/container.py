"""The container, as a program sees it; what is behind it (`direct`, `supervised`) does not show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ctr_common.errors import UsageError
from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions

if TYPE_CHECKING:
    from types import TracebackType

    from ctr_supervisor.api.events import EventStream
    from ctr_supervisor.api.notifications import Notification
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.types import Config, ContainerState, PressureLevel, Resources, Stats, Status


class Container(ABC):
    """A container; from `create`, `load` or `list`, never made by itself.

    It holds nothing but the container's name: every question is answered from the kernel and the state directory at
    that moment, whoever changed them. Any thread may use it, and several at once. In a `with` block the container is
    destroyed at the end, whatever its state.

    Every method raises `ContainerNotFound` once the container is gone, also when another one has got its id since, and
    a subclass of `CtrError` for whatever else goes wrong.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.destroy(force=True)

    # -- what it is

    @property
    @abstractmethod
    def id(self) -> str:
        """Its id."""

    @property
    @abstractmethod
    def status(self) -> Status:
        """creating, created (waits for `exec`), running, paused or stopped (ended, or never started)."""

    @property
    @abstractmethod
    def state(self) -> ContainerState:
        """Its OCI state (runtime-spec, runtime.md, "State"), with rootfs, created, owner; see `ContainerState`."""

    @property
    @abstractmethod
    def config(self) -> Config:
        """A copy of its configuration, as `create` took it and `set` has changed it."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """Pid of its init process, in the pid namespace of whoever made it; 0 when there is none, or it has ended."""

    @property
    @abstractmethod
    def exit_status(self) -> int | None:
        """How its init process ended, as a shell shows it; None while it lives, and where nobody knows."""

    # -- its life

    @abstractmethod
    def start(self, process: Process) -> Process:
        """Makes a process in the container.

        The init process makes the container too (cgroups, namespaces, mounts, hooks), and waits before its program:
        the container is "created" until `exec`. Any other process runs at once.

        Args:
            process: not started yet. Its `init` says which of the two it is to be.

        Returns:
            The same process, started.

        Raises:
            WrongState: the container has an init process already, or, for another process, none that lives; or the
                process was started before.
            ConfigError, InitError, SetupError, HookError, CgroupError: it can't be made; nothing of it is left, and
                another one can be tried.
            UsageError: a stream is none.
        """

    @abstractmethod
    def exec(self) -> None:
        """Lets the init process, which waits, execute its program, and runs the poststart hooks.

        Raises:
            WrongState: the container is not in the state "created", or its process has died.
            InitError: a startContainer hook or execve failed.
            HookError: a poststart hook failed; the container is killed then.
        """

    def run(self, process: Process) -> Process:
        """`start`, and for an init process `exec`; arguments, value and errors as of both.

        When `exec` fails the process has ended, as with `ctrun run`, and the container is to be destroyed.
        """
        self.start(process)
        if process.init:
            try:
                self.exec()
            except BaseException:
                self._abandon(process)
                raise
        return process

    @abstractmethod
    def _abandon(self, process: Process) -> None:
        """Ends an init process that did not get to its program."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> int | None:
        """Waits for the end of the init process, whoever's child it is.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            Its exit status as a shell shows it, 0 to 255 or 128 + the signal; None where nobody knows: it was not
            started here, its parent has not reaped it within two seconds, or the kernel is older than Linux 6.15.

        Raises:
            TimeoutError: it still runs.
            WrongState: it was never started.
        """

    @abstractmethod
    def signal(self, signal: int | str, *, all: bool = False) -> None:
        """Sends a signal to the init process.

        Args:
            signal: a number, a `signal.Signals`, or a name with or without SIG.
            all: to every process of the container.

        Raises:
            WrongState: it has ended.
            UsageError: there is no such signal.
        """

    @abstractmethod
    def pause(self) -> None:
        """Freezes all processes.

        Raises:
            WrongState: the container is neither running nor created.
        """

    @abstractmethod
    def resume(self) -> None:
        """Thaws them.

        Raises:
            WrongState: the container is not paused.
        """

    @abstractmethod
    def destroy(self, *, force: bool = False) -> None:
        """Removes the container: cgroups, networks, state; and runs the poststop hooks.

        Args:
            force: kill it first if it runs; one that is gone is no error then.

        Raises:
            WrongState: it runs or is paused, and `force` was not given.
        """

    # -- limits and figures

    @abstractmethod
    def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """Sets limits, all or none of them; those that are not named stay.

        Args:
            resources: as `linux.resources` of the configuration (config-linux.md), without device rules.
            l3_cache_schema: of Intel RDT; "" leaves it.
            mem_bw_schema: of Intel RDT; "" leaves it.

        Raises:
            WrongState: the container has stopped.
            CgroupError: the kernel refused one; all are what they were.
        """

    @abstractmethod
    def stats(self) -> Stats:
        """Statistics of its cgroups, networks and Intel RDT.

        Returns:
            What `ctrun events --stats` prints as data: cpu times in nanoseconds, sizes in bytes.

        Raises:
            WrongState: the container has stopped.
        """

    @abstractmethod
    def processes(self) -> list[int]:
        """Pids of all its processes, in the pid namespace of whoever made it."""

    # -- what happens to it

    @abstractmethod
    def events(self, interval: float | None = None) -> EventStream:
        """What happens to it from now on, until it ends.

        Args:
            interval: seconds between `stats` events; None for none.

        Returns:
            An iterator; to be closed, or used in a `with` block.
        """

    @abstractmethod
    def notify_oom(self) -> Notification:
        """Tells when the kernel kills because the container is out of memory.

        Returns:
            A notification; to be closed, or used in a `with` block.

        Raises:
            WrongState: the container has stopped.
            CgroupError: it has no memory cgroup.
        """

    @abstractmethod
    def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """Tells when the container is short of memory.

        Args:
            level: low, medium or critical.

        Returns:
            A notification; to be closed, or used in a `with` block.

        Raises:
            WrongState: the container has stopped.
            CgroupError: it has no memory cgroup.
            NotSupported: the kernel has no pressure stall information.
        """

    # -- checkpoint and restore

    @abstractmethod
    def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """Writes its processes into a folder of images, and ends it, unless `leave_running`.

        Args:
            options: or just the folder.

        Returns:
            CRIU's figures as `stats`, times in microseconds; `bytes`, `criu_version`.

        Raises:
            WrongState: the container is neither running nor paused.
            CriuError: CRIU could not; the container goes on.
        """

    @abstractmethod
    def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """Writes its memory beforehand, so that the checkpoint itself, with `parent_path`, is short; it goes on.

        Arguments, value and errors as of `checkpoint`.
        """

    @abstractmethod
    def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """Makes the init process from images, in a container that has none yet.

        Args:
            process: its streams, terminal and the like; its program is that of the images. `init` must be set.
            options: or just the folder.

        Returns:
            The same process, which runs.

        Raises:
            WrongState: the container has an init process, or the process was started before.
            CriuError: CRIU could not.
        """


def checkpoint_options(options: CheckpointOptions | str) -> CheckpointOptions:
    """Options from what the caller gave."""
    return CheckpointOptions(options) if isinstance(options, str) else options


def restore_options(options: RestoreOptions | str, process: Process) -> RestoreOptions:
    """Options from what the caller gave.

    Raises:
        UsageError: the process is not to be the container's init.
    """
    if not process.init:
        raise UsageError("a restored process is the container's first one: give init=True")
    return RestoreOptions(options) if isinstance(options, str) else options
