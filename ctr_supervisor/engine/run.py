"""`run`: create and start in one, and stay for its end unless detached."""

from ctr_common import trace
from ctr_common.errors import ContainerNotFound
from ctr_supervisor.engine import create, delete, start
from ctr_supervisor.engine.container import Container
from ctr_supervisor.engine.options import CreateOptions
from ctr_supervisor.engine.runtime import Runtime

# What a shell gets from a command that left its container running.
DETACHED = 0


def run(
    runtime: Runtime,
    container_id: str,
    bundle: str,
    options: CreateOptions,
    detach: bool = False,
    keep: bool = False,
    no_subreaper: bool = False,
) -> int:
    """Creates and starts a container.

    Args:
        detach: return once it is started.
        keep: leave the stopped container's state for a later `delete`.
        no_subreaper: don't adopt the container's orphans.

    Returns:
        The container's exit status (128 + n for signal n), 0 when detached.

    Raises:
        CtrError: anything before its process was started; nothing is left then.
    """
    options.detach = detach
    foreground = None
    if not detach:
        delete_then = None if keep else (runtime.root, container_id)
        foreground = runtime.parent.foreground(subreaper=not no_subreaper, delete=delete_then)
    created = create.make(runtime, container_id, bundle, options)
    container = created.container
    notify = created.notify
    try:
        if notify is not None:
            notify.bind()
        with trace.span("release from the fifo, until execve"):
            start.release(container)
        start.run_poststart_hooks(container)
        # Whoever wants to look at it, or to stop it, must get the lock while it runs.
        container.directory.unlock()
        if foreground is not None:
            with trace.span("stay in the foreground"):
                ended = foreground.attend(created.launched, created.console_master, notify)
            # Without a status whoever attends it in our place sees to what it leaves.
            keep = keep or ended is None
            status = DETACHED if ended is None else ended
        else:
            status = DETACHED
            if notify is not None:
                notify.wait(created.launched.pidfd.fileno(), container.pid)
    except BaseException:
        created.launched.kill()
        created.close()
        destroy(container)
        raise
    created.close()
    if foreground is not None and not keep:
        destroy(container)
    return status


def destroy(container: Container) -> None:
    """Deletes a container whose process has ended, unless somebody else did so meanwhile."""
    try:
        container.directory.lock()
        try:
            with trace.span("remove cgroups and state"):
                delete.destroy(container)
        finally:
            container.directory.unlock()
    except ContainerNotFound:
        pass
