"""What is left once the container's root is in place."""

import os

from ctr_common.bootstrap import text
from ctr_common.kernel import _kernel
from ctr_common.spec.users import lookup_home
from ctr_init import resolve, rootfs
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def directory_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the process's working directory."""
    cwd = (plan.config.get("process") or {}).get("cwd")
    wanted = cwd and resolve.clean(cwd) != "/" and rootfs.has_mount_namespace(plan)
    return [Piece(cwd or "", ".process.cwd", cwd)] if wanted else []


def make_working_directory(setup: "Setup", path: str) -> None:
    """Makes the working directory if it is missing; whether it is a directory at all is told when it is entered."""
    os.close(resolve.create(setup.root, path)[0])


def report_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the last word."""
    return [Piece("look up the user's home directory, tell the engine")]


def report(setup: "Setup", _: object) -> None:
    """Tells the engine that the namespaces are ready, and the home directory of the process's user."""
    plan = setup.plan
    uid = (plan.config.get("process") or {}).get("user", {}).get("uid", 0)
    root = setup.root
    if root < 0:
        root = os.open(plan.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    home = lookup_home(root, uid)
    setup.channel.send(_kernel.MSG_WORKER_DONE, [(_kernel.ATTR_HOME, text(home))] if home else ())
