"""`ps`: the processes of a container."""

from ctr_common.errors import CgroupError
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime


def pids(runtime: Runtime, container_id: str) -> "list[int]":
    """Pids of all processes in the container's cgroups, as this process's pid namespace sees them.

    Raises:
        ContainerNotFound: there is no such container.
        CgroupError: it runs without cgroups, as rootless ones may.
    """
    container = containers.load(runtime, container_id)
    check_cgroups(container, "unable to get all container pids")
    return container.cgroups.pids()


def check_cgroups(container: containers.Container, step: str) -> None:
    """Makes sure that what is asked of the cgroups of a living container is not silently asked of none.

    Raises:
        CgroupError: it has none.
    """
    if not container.cgroups.exists() and container.status() != containers.STOPPED:
        raise CgroupError("the container has no cgroup", step=step)
