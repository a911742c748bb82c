"""The points at which hooks run while the namespaces are set up."""

import os

from ctr_common import hooks
from ctr_common.kernel import _kernel
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def runtime_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the engine's turn; it has its own things to do there besides the hooks, so it is always asked."""
    configured = plan.config.get("hooks") or {}
    paths = [hook["path"] for hook in [*(configured.get("prestart") or ()), *(configured.get("createRuntime") or ())]]
    return [Piece(", ".join(paths) or "none")]


def ask_engine(setup: "Setup", _: object) -> None:
    """Has the engine run prestart and createRuntime hooks in the runtime namespace, and waits for them."""
    setup.channel.send(_kernel.MSG_WORKER_HOOKS)
    setup.channel.expect(_kernel.MSG_ACKNOWLEDGED).close()


def container_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: createContainer hooks."""
    configured = (plan.config.get("hooks") or {}).get("createContainer") or []
    return [Piece(", ".join(hook["path"] for hook in configured), ".hooks.createContainer")] if configured else []


def run_container_hooks(setup: "Setup", _: object) -> None:
    """Runs createContainer hooks in the container's namespaces, found by their host paths, before the root changes.

    Raises:
        HookError: one failed.
    """
    plan = setup.plan
    if plan.state is None:
        return
    outer = -1
    if setup.host_root:
        # Their paths are the caller's, who is in a chroot; joining the mount namespace led out of it.
        outer = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chroot(setup.host_root)
    if setup.root >= 0:
        os.fchdir(setup.root)
    state = dict(plan.state)
    state["pid"] = setup.hook_pid
    os.umask(0o022)
    hooks.run((plan.config.get("hooks") or {}).get("createContainer") or (), state, "createContainer")
    os.umask(0)
    if outer >= 0:
        os.fchdir(outer)
        os.chroot(".")
        os.close(outer)
