"""`ps`: the processes of a container."""

from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime


def pids(runtime: Runtime, container_id: str) -> "list[int]":
    """Pids of all processes in the container's cgroups, as this process's pid namespace sees them.

    Raises:
        ContainerNotFound: there is no such container.
    """
    return containers.load(runtime, container_id).cgroups.pids()
