"""`pause` and `resume`: the freezer."""

from ctr_common.errors import WrongState
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.runtime import Runtime


def pause(runtime: Runtime, container_id: str) -> None:
    """Freezes every process of the container.

    Raises:
        WrongState: the container is neither running nor created.
    """
    container = containers.load(runtime, container_id)
    container.directory.lock()
    try:
        status = container.status()
        if status not in (containers.RUNNING, containers.CREATED):
            raise WrongState("container not running")
        container.cgroups.freeze()
    finally:
        container.directory.unlock()


def resume(runtime: Runtime, container_id: str) -> None:
    """Thaws a paused container.

    Raises:
        WrongState: it is not paused.
    """
    container = containers.load(runtime, container_id)
    container.directory.lock()
    try:
        if container.status() != containers.PAUSED:
            raise WrongState("container not paused")
        container.cgroups.thaw()
    finally:
        container.directory.unlock()
