"""`kill`: a signal for the init process, or for every process of the container."""

import os

from ctr_common.errors import CtrError, WrongState
from ctr_common.kernel import _kernel
from ctr_common.spec import namespaces
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import ps
from ctr_supervisor.engine.runtime import Runtime

SIGKILL = 9


def kill(runtime: Runtime, container_id: str, signal: int, all: bool = False) -> None:
    """Sends a signal.

    Args:
        signal: its number.
        all: to every process in the container's cgroups; without it to the init process alone, except that SIGKILL
            goes to all where the container has no pid namespace of its own, since nothing else would end the rest.

    Raises:
        WrongState: the init process has ended (and `all` is not given).
        CgroupError: `all` is given, and the container runs without cgroups.
    """
    container = containers.load(runtime, container_id)
    if all:
        ps.check_cgroups(container, "unable to signal all processes")
        container.cgroups.kill(signal)
        return
    send(container, signal)


def send(container: containers.Container, signal: int) -> None:
    """Sends a signal to the init process through its pidfd, so never to a process that inherited its pid.

    SIGKILL ends what the init process left behind, too, where no pid namespace ended with it.

    Raises:
        WrongState: it has ended, and so have all others that the signal is for.
    """
    pidfd = container.open_pidfd()
    if pidfd is None:
        if signal == SIGKILL and not has_own_pid_namespace(container) and container.cgroups.pids():
            container.cgroups.kill(SIGKILL)
            return
        raise WrongState("container not running")
    # Before the signal: whoever attends the container may have deleted it the moment after.
    others_live_on = signal == SIGKILL and not has_own_pid_namespace(container)
    try:
        _kernel.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        raise WrongState("container not running") from None
    except OSError as error:
        raise CtrError.from_os_error(error, step=f"sending signal {signal} to the init process") from None
    finally:
        os.close(pidfd)
    if signal == SIGKILL:
        if others_live_on:
            container.cgroups.kill(SIGKILL)
        # On cgroup v1 a frozen process does not die before it is thawed.
        try:
            container.cgroups.thaw()
        except CtrError as error:
            container.runtime.note(f"ignoring: {error}")


def has_own_pid_namespace(container: containers.Container) -> bool:
    """Whether the end of the init process ends every process of the container (pid_namespaces(7))."""
    config = container.config
    return namespaces.has(config, "pid") and not namespaces.path_of(config, "pid")
