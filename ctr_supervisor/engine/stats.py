"""The statistics of a container: cgroups, network interfaces, Intel RDT."""

from ctr_common.errors import WrongState
from ctr_supervisor.cgroups import stats as cgroup_stats
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def stats(runtime: Runtime, container_id: str) -> "dict[str, Any]":
    """All statistics, in the shape and the order of the `data` of runc's `events`.

    Returns:
        See `ctr_supervisor.cgroups.stats.read`; and intel_rdt, {} without it, and network_interfaces, None if the
        runtime made none.

    Raises:
        ContainerNotFound: there is no such container.
        WrongState: it has stopped.
        CgroupError: a cgroup can't be read.
    """
    container = containers.load(runtime, container_id)
    check_running(container)
    return of_container(container)


def check_running(container: containers.Container) -> None:
    """Makes sure that there is something to tell of a container.

    Raises:
        WrongState: it has stopped.
    """
    if container.status() == containers.STOPPED:
        raise WrongState(f"container with id {container.id} is not running")


def of_container(container: containers.Container) -> "dict[str, Any]":
    """The statistics of a container that is there; see `stats`."""
    found = cgroup_stats.read(container.cgroups.paths)
    found["intel_rdt"] = _rdt(container)
    found["network_interfaces"] = _interfaces(container)
    return found


def _rdt(container: containers.Container) -> "dict[str, Any]":
    """What Intel RDT tells of a container that has a group there."""
    if not container.state.get("intel_rdt_path"):
        return {}
    from ctr_supervisor.engine import rdt

    group = rdt.from_state(container.state)
    return rdt.statistics(group) if group is not None else {}


def _interfaces(container: containers.Container) -> "list[dict[str, Any]] | None":
    """What went through the veth pairs that the runtime made; Go writes null for none."""
    configured = container.state.get("networks")
    if not configured:
        return None
    from ctr_supervisor.network import networks

    return networks.statistics(configured) or None
