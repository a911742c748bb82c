"""`delete`: nothing of a container is left; works from any half-made state, and any number of times."""

import os

from ctr_common import hooks
from ctr_common.errors import ContainerNotFound, CtrError, StateError, WrongState
from ctr_common.spec.validate import validate_id
from ctr_common.state import StateDir
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine.kill import SIGKILL, has_own_pid_namespace, send
from ctr_supervisor.engine.launch import KILL_TIMEOUT, poll_readable
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def delete(runtime: Runtime, container_id: str, force: bool = False) -> None:
    """Removes a container.

    Args:
        force: kill it first if it runs; a container that is not there is no error then.

    Raises:
        ContainerNotFound: there is none of that id.
        WrongState: it is running or paused, and `force` was not given.
    """
    validate_id(container_id)
    directory = StateDir(runtime.root, container_id)
    try:
        try:
            container = containers.Container(runtime, directory, directory.load())
        except StateError as error:
            # A creator that was killed before its first word in state.json, or a torn file: the id is to be freed.
            if not force and directory.is_locked():
                raise containers.gone(error) from None
            container = containers.Container(runtime, directory, {})
        status = container.status()
        if status == containers.CREATING and not force:
            raise WrongState(f"cannot delete container {container_id} that is not stopped: {status}")
        if status in (containers.RUNNING, containers.PAUSED) and not force:
            raise WrongState(f"cannot delete container {container_id} that is not stopped: {status}")
        if status != containers.STOPPED:
            end(container)
        directory.lock()
        try:
            # Its creator may have written on while this waited for the lock: a pid, cgroups, networks.
            try:
                container = containers.Container(runtime, directory, directory.load())
            except StateError as error:
                runtime.note(f"ignoring: {error}")
            if container.is_alive():
                if not force:
                    raise WrongState(f"cannot delete container {container_id} that is not stopped")
                end(container)
            destroy(container)
        finally:
            directory.unlock()
    except ContainerNotFound:
        if not force:
            raise


def end(container: containers.Container) -> None:
    """Kills the init process and waits until it is gone.

    Raises:
        CtrError: it still runs after KILL_TIMEOUT seconds.
    """
    pidfd = container.open_pidfd()
    if pidfd is None:
        return
    try:
        try:
            send(container, SIGKILL)
        except WrongState:
            return
        if not poll_readable(pidfd, KILL_TIMEOUT):
            raise CtrError(f"container init still running {KILL_TIMEOUT:g} seconds after SIGKILL: pid {container.pid}")
    finally:
        os.close(pidfd)


def destroy(container: containers.Container) -> None:
    """Removes what a stopped container left, and runs its poststop hooks; the caller holds the lock.

    Raises:
        CtrError: a cgroup or another thing could not be removed; the state stays, so that delete can be tried again.
    """
    poststop = None
    state = None
    if container.state:
        try:
            config = container.config
        except CtrError as error:
            container.runtime.ignore(error)
        else:
            poststop = (config.get("hooks") or {}).get("poststop")
            state = container.oci_state(containers.STOPPED, pid=0)
            if container.pid > 0 and not has_own_pid_namespace(container):
                container.cgroups.kill(SIGKILL)
    container.cgroups.destroy()
    release(container.state)
    container.directory.remove()
    if poststop and state is not None:
        # runtime-spec, "Lifecycle" step 13: a failing poststop hook is logged, and the rest goes on.
        for failure in hooks.run_all_ignoring_failures(poststop, state, "poststop"):
            container.runtime.ignore(failure)


def release(state: "dict[str, Any]") -> None:
    """Removes what a container has of the host beside its cgroups: networks, its group for Intel RDT.

    Raises:
        CtrError: the kernel refused.
    """
    if state.get("networks"):
        from ctr_supervisor.network import networks

        networks.destroy(state["networks"])
    if state.get("intel_rdt_path"):
        from ctr_supervisor.engine import rdt

        group = rdt.from_state(state)
        if group is not None:
            rdt.remove(group)
