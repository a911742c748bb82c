"""A container of this very program: the engine runs in it, and it is the parent of its processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ctr_common import fastjson
from ctr_common.errors import ContainerNotFound, CtrError, WrongState
from ctr_common.fd import Fd
from ctr_common.spec import load as spec_load
from ctr_common.spec import schema
from ctr_supervisor.api import direct_start, ends
from ctr_supervisor.api.container import Container, checkpoint_options, restore_options
from ctr_supervisor.api.direct_engine import errors_of_the_tree, runtime_for
from ctr_supervisor.api.events import DirectEvents, EventStream
from ctr_supervisor.api.notifications import Notification
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.launch import KILL_TIMEOUT
from ctr_supervisor.engine.runtime import Runtime

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.types import Config, ContainerState, PressureLevel, Resources, Stats, Status


class DirectContainer(Container):
    """A container whose engine is this program.

    Args:
        root: state root, absolute.
        id: of a container that is there.
    """

    def __init__(self, root: str, id: str) -> None:
        self._root = root
        self._id = id
        self._init: Process | None = None
        self._identity = self._look()

    def _look(self) -> tuple[int, int]:
        """What tells the state directory from another one that gets the same name later."""
        try:
            found = os.stat(f"{self._root}/{self._id}", follow_symlinks=False)
        except FileNotFoundError:
            raise ContainerNotFound("container does not exist") from None
        return found.st_dev, found.st_ino

    def engine(self, runtime: Runtime | None = None) -> containers.Container:
        """The container as the engine sees it at this moment.

        Raises:
            ContainerNotFound: it is gone, or another one has its id.
        """
        found = containers.load(runtime or runtime_for(self._root), self._id)
        if self._look() != self._identity:
            raise ContainerNotFound("container does not exist any more; another one has its id")
        return found

    # -- what it is

    @property
    def id(self) -> str:
        """Its id."""
        return self._id

    @property
    def status(self) -> Status:
        """See the base."""
        return self.engine().status()

    @property
    def state(self) -> ContainerState:
        """See the base."""
        from ctr_supervisor.engine.list import owner_of
        from ctr_supervisor.engine.state import describe

        container = self.engine()
        described: Any = describe(container)
        with errors_of_the_tree():
            described["owner"] = owner_of(container.directory.path)
        if described["status"] == containers.STOPPED:
            status = self._status_of(container)
            if status is not None:
                described["exit_status"] = status
        state: ContainerState = described
        return state

    @property
    def config(self) -> Config:
        """See the base."""
        return self.engine().config

    @property
    def pid(self) -> int:
        """See the base."""
        container = self.engine()
        return container.pid if container.is_alive() else 0

    @property
    def exit_status(self) -> int | None:
        """See the base."""
        container = self.engine()
        return None if container.is_alive() else self._status_of(container)

    def _status_of(self, container: containers.Container) -> int | None:
        status = self._own_status()
        if status is None:
            ends.children.bury_all()
            status = ends.written_down(container.directory.path)
        return status

    def _own_status(self) -> int | None:
        """How an init process that was started here has ended; reaps it. None where that is not to be known here."""
        try:
            if self._init is not None and ends.wait_until(self._init.pidfd, 0):
                return self._init.handle.status()
        except (WrongState, ValueError):
            pass  # somebody else has reaped it, or its handle was closed
        return None

    # -- its life

    def start(self, process: Process) -> Process:
        """See the base."""
        process.claim()
        try:
            with errors_of_the_tree():
                ends.children.bury_all()
                if process.init:
                    self._start_init(process)
                else:
                    direct_start.start_other(self.engine(), process)
        except BaseException:
            process.disclaim()
            raise
        return process

    def _start_init(self, process: Process, images: RestoreOptions | None = None) -> None:
        direct_start.start_init(self._root, self._id, self.engine, process, images)
        self._init = process

    def exec(self) -> None:
        """See the base."""
        from ctr_supervisor.engine import start

        with errors_of_the_tree():
            self.engine()
            start.start(runtime_for(self._root), self._id)

    def _abandon(self, process: Process) -> None:
        """See the base."""
        try:
            process.signal("KILL")
        except CtrError:
            pass
        ends.wait(process.handle, KILL_TIMEOUT, "the init process", init=True)

    def wait(self, timeout: float | None = None) -> int | None:
        """See the base."""
        pidfd = self.pidfd()
        if pidfd is None:
            return self.end_of(-1)
        with pidfd:
            if not ends.wait_for_init(pidfd.fileno(), timeout):
                raise TimeoutError(f"container {self._id} still runs after {timeout:g} seconds")
            return self.end_of(pidfd.fileno())

    def pidfd(self) -> Fd | None:
        """A pidfd of the init process, of the caller's own; None when it has ended and was reaped.

        Raises:
            WrongState: there was never one.
        """
        try:
            if self._init is not None:
                return Fd(os.dup(self._init.pidfd))
        except ValueError:
            pass  # its handle was closed; it is like any other container
        container = self.engine()
        if not container.pid:
            raise WrongState("the container was never started")
        found = container.open_pidfd()
        return None if found is None else Fd(found)

    def end_of(self, pidfd: int) -> int | None:
        """The exit status of the init process, which has ended; None where nobody knows it.

        Args:
            pidfd: from `pidfd`; -1 for none.
        """
        status = self._own_status()
        path = f"{self._root}/{self._id}"
        if status is None:
            ends.children.bury_all()
            status = ends.status_of_other(pidfd, path) if pidfd >= 0 else ends.written_down(path)
        return status

    def signal(self, signal: int | str, *, all: bool = False) -> None:
        """See the base."""
        from ctr_supervisor.engine import kill

        number = ends.signal_number(signal)
        with errors_of_the_tree():
            container = self.engine()
            kill.kill(container.runtime, self._id, number, all=all)

    def pause(self) -> None:
        """See the base."""
        from ctr_supervisor.engine import pause

        with errors_of_the_tree():
            pause.pause(self.engine().runtime, self._id)

    def resume(self) -> None:
        """See the base."""
        from ctr_supervisor.engine import pause

        with errors_of_the_tree():
            pause.resume(self.engine().runtime, self._id)

    def destroy(self, *, force: bool = False) -> None:
        """See the base."""
        try:
            with errors_of_the_tree():
                self._destroy(force)
        except ContainerNotFound:
            if not force:
                raise
        ends.children.bury_all()

    def _destroy(self, force: bool) -> None:
        from ctr_supervisor.engine import delete

        container = self.engine()
        # The lock before everything else: what somebody is making is finished, and then it is known what there is.
        container.directory.lock()
        try:
            container = self._with_lock_of(container)
            status = container.status()
            if status in (containers.RUNNING, containers.PAUSED) and not force:
                raise WrongState(f"cannot delete container {self._id} that is not stopped: {status}")
            if status != containers.STOPPED:
                self._end(container)
            delete.destroy(container)
        finally:
            container.directory.unlock()

    def _end(self, container: containers.Container) -> None:
        """Kills the init process and waits until it is gone, as `delete.end` does, and reaps what it waits for."""
        from ctr_supervisor.engine import kill

        pidfd = container.open_pidfd()
        if pidfd is None:
            return
        with Fd(pidfd):
            try:
                kill.send(container, kill.SIGKILL)
            except WrongState:
                return
            if not ends.wait_for_init(pidfd, KILL_TIMEOUT):
                raise CtrError(
                    f"container init still running {KILL_TIMEOUT:g} seconds after SIGKILL: pid {container.pid}"
                )

    def _with_lock_of(self, container: containers.Container) -> containers.Container:
        """The container as it is now, with the lock that the older view of it holds."""
        now = self.engine(container.runtime)
        return containers.Container(container.runtime, container.directory, now.state)

    # -- limits and figures

    def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """See the base."""
        from ctr_supervisor.engine import update

        data = fastjson.dumps(dict(resources)).encode("utf-8", "surrogateescape")
        changes: Resources = spec_load.parse(data, schema.RESOURCES, "resources")
        with errors_of_the_tree():
            runtime = self.engine().runtime
            update.update(runtime, self._id, changes, l3_cache=l3_cache_schema, mem_bw=mem_bw_schema)

    def stats(self) -> Stats:
        """See the base."""
        from ctr_supervisor.engine import stats

        with errors_of_the_tree():
            return stats.stats(self.engine().runtime, self._id)

    def processes(self) -> list[int]:
        """See the base."""
        from ctr_supervisor.engine import ps

        with errors_of_the_tree():
            container = self.engine()
            return ps.pids(container.runtime, self._id) if container.state.get("cgroup_paths") else []

    # -- what happens to it

    def events(self, interval: float | None = None) -> EventStream:
        """See the base."""
        return DirectEvents(self.engine, interval)

    def _living(self) -> containers.Container:
        container = self.engine()
        if container.status() == containers.STOPPED:
            raise WrongState("container not running")
        return container

    def notify_oom(self) -> Notification:
        """See the base."""
        from ctr_supervisor.engine import notify

        container = self._living()
        return Notification(notify.notify_oom(container), container.open_pidfd())

    def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See the base."""
        from ctr_supervisor.engine import notify

        container = self._living()
        return Notification(notify.notify_memory_pressure(container, level), container.open_pidfd())

    # -- checkpoint and restore

    def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        from ctr_supervisor.api import criu_direct

        return criu_direct.checkpoint(self.engine(), checkpoint_options(options))

    def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        from ctr_supervisor.api import criu_direct

        return criu_direct.checkpoint(self.engine(), checkpoint_options(options), pre_dump=True)

    def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """See the base."""
        wanted = restore_options(options, process)
        process.claim()
        try:
            with errors_of_the_tree():
                ends.children.bury_all()
                self._start_init(process, wanted)
        except BaseException:
            process.disclaim()
            raise
        return process
