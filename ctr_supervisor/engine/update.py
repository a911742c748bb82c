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
    from typing import Any

    from ctr_common.spec.types import Resources

# Where the resources stand in a configuration; whoever updates them starts there.
PREFIX = ".linux.resources"


def update(runtime: Runtime, container_id: str, changes: "Resources") -> None:
    """Sets limits, and writes them into the container's configuration.

    Device rules are left alone: somebody may have added to them what the configuration does not know.

    Args:
        changes: as in `.linux.resources`; 0 and "" stand for "as it is".

    Raises:
        ContainerNotFound: there is no such container.
        WrongState: it has stopped.
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
        _apply(container, changes)
    finally:
        container.directory.unlock()


def _apply(container: containers.Container, changes: "Resources") -> None:
    config: Any = container.config
    linux: Any = config.get("linux") or {}
    old: Any = linux.get("resources") or {}
    wanted = resources.to_set(old, changes)
    before = Snapshot(container.cgroups.paths, wanted)
    try:
        container.cgroups.set(wanted, skip_devices=True)
        config = {**config, "linux": {**linux, "resources": resources.merge(old, changes)}}
        container.directory.write(CONFIG_FILE, fastjson.dumps(config).encode())
    except BaseException as error:
        _set_back(container, before)
        if isinstance(error, CtrError):
            error.json_path = error.json_path.removeprefix(PREFIX)
        raise


def _set_back(container: containers.Container, before: Snapshot) -> None:
    try:
        before.restore()
    except CtrError as error:
        container.runtime.warn(
            f"Setting back cgroup configs failed due to error: {error}, "
            "your state.json and actual configs might be inconsistent."
        )
