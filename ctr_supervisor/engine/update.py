"""`update`: other limits for a container that is there."""

from ctr_common import fastjson
from ctr_common.errors import CtrError, WrongState
from ctr_common.spec import resources
from ctr_common.state import CONFIG_FILE
from ctr_supervisor.cgroups.snapshot import Snapshot
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ctr_common.spec.types import Resources

# Where the resources stand in a configuration; whoever updates them starts there.
PREFIX = ".linux.resources"


def update(runtime: Runtime, container_id: str, changes: "Resources", *, l3_cache: str = "", mem_bw: str = "") -> None:
    """Sets limits, and writes them into the container's configuration.

    Device rules are left alone: somebody may have added to them what the configuration does not know.

    Args:
        changes: as in `.linux.resources`; 0 and "" stand for "as it is".
        l3_cache: schema of the L3 cache for Intel RDT, "" to leave it as it is.
        mem_bw: schema of the memory bandwidth, likewise.

    Raises:
        ContainerNotFound: there is no such container.
        WrongState: it has stopped.
        NotSupported: the host has no Intel RDT.
        CgroupError: a limit could not be set. The limits are what they were, or the log has a warning. JSON paths
            start at `changes`.
    """
    container = containers.load(runtime, container_id)
    container.directory.lock()
    try:
        container.refresh()
        if container.status() not in (containers.CREATED, containers.RUNNING, containers.PAUSED):
            raise WrongState("container not running")
        if resources.asks_for_kernel_memory(changes):
            runtime.warn("Kernel memory settings are ignored and will be removed")
        _Change(container, changes, l3_cache, mem_bw).run()
    finally:
        container.directory.unlock()


class _Change:
    """One update under way; the caller holds the lock."""

    def __init__(self, container: containers.Container, changes: "Resources", l3_cache: str, mem_bw: str) -> None:
        self.container = container
        self.config: Any = container.config
        self.linux: Any = self.config.get("linux") or {}
        self.old: Resources = self.linux.get("resources") or {}
        self.changes = changes
        self.wanted = resources.to_set(self.old, changes)
        self.l3_cache = l3_cache
        self.mem_bw = mem_bw
        self.take_back_rdt: Callable[[], None] | None = None

    def run(self) -> None:
        """Sets all or nothing."""
        before = Snapshot(self.container.cgroups.paths, self.wanted)
        try:
            self.container.cgroups.set(self.wanted, skip_devices=True)
            new = {**self.linux, "resources": resources.merge(self.old, self.changes)}
            if self.l3_cache or self.mem_bw:
                new["intelRdt"] = self.set_rdt()
            self.container.directory.write(CONFIG_FILE, fastjson.dumps({**self.config, "linux": new}).encode())
        except BaseException as error:
            self.set_back(before)
            if isinstance(error, CtrError):
                error.json_path = error.json_path.removeprefix(PREFIX)
            raise

    def set_rdt(self) -> "Any":
        """Changes the schemata; returns what belongs into the configuration."""
        from ctr_supervisor.engine import rdt

        state = self.container.state
        configured: Any = self.linux.get("intelRdt") or {}
        old = rdt.from_state(state)
        before = rdt.schemata(old) if old is not None else ""
        changed, group = rdt.update(configured, old, self.container.id, self.container.pid, self.l3_cache, self.mem_bw)

        def take_back() -> None:
            if old is not None:
                rdt.set_schemata(old, before)
                return
            rdt.remove(group)
            for name in group.as_state():
                state.pop(name, None)
            self.container.directory.save(state)

        self.take_back_rdt = take_back
        # Where the container gets a group only now, `delete` has to know of it.
        state.update(group.as_state())
        self.container.directory.save(state)
        return changed

    def set_back(self, before: Snapshot) -> None:
        """Makes the limits what they were."""
        steps: list[Callable[[], object]] = [before.restore]
        if "systemd" in self.container.state:
            steps.insert(0, self.container.cgroups.take_back)  # type: ignore[attr-defined] # of systemd's managers
        if self.take_back_rdt is not None:
            steps.append(self.take_back_rdt)
        for step in steps:
            try:
                step()
            except CtrError as error:
                self.warn(error)

    def warn(self, error: CtrError) -> None:
        """Tells that something is different now from what the state says."""
        self.container.runtime.warn(
            f"Setting back cgroup configs failed due to error: {error}, "
            "your state.json and actual configs might be inconsistent."
        )
