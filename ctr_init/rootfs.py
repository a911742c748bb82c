"""The container's root mount: apart from the host's mounts, and then a bind mount of the root filesystem on itself."""

import os

from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    CLONE_NEWNS,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
)
from ctr_common.spec.mount_options import PROPAGATION
from ctr_init.attach import attach, set_propagation
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def has_mount_namespace(plan: "SetupPlan") -> bool:
    """Whether the container has mounts of its own; the worker makes none where they would be the host's."""
    return bool(plan.join_flags & CLONE_NEWNS)


def propagation(plan: "SetupPlan") -> str:
    """`.linux.rootfsPropagation`, or rslave: unmounts on the host reach the container, nothing goes the other way."""
    return (plan.config.get("linux") or {}).get("rootfsPropagation") or "rslave"


def propagation_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: propagation of all mounts of the new mount namespace."""
    return [Piece(f"{propagation(plan)} on /", ".linux.rootfsPropagation")] if has_mount_namespace(plan) else []


def set_root_propagation(setup: "Setup", _: object) -> None:
    """Cuts the copy of the host's mounts off from the host, as far as is asked for.

    Raises:
        SetupError: an unknown propagation type.
    """
    name = propagation(setup.plan)
    if name not in PROPAGATION:
        raise SetupError(f"unknown propagation {name!r}, expected one of {', '.join(sorted(PROPAGATION))}")
    set_propagation(AT_FDCWD, "/", PROPAGATION[name])


def bind_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the root filesystem as a mount."""
    return [Piece(f"{plan.rootfs} on itself", ".root.path")] if has_mount_namespace(plan) else []


def bind_on_itself(setup: "Setup", _: object) -> None:
    """Makes the root filesystem a mount, which pivot_root needs; from here on `setup.root` is its root directory."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    below = os.open(setup.host_root + setup.plan.rootfs, flags)
    if propagation(setup.plan) not in ("rslave", "rprivate", "runbindable"):
        # What is mounted on a shared mount appears on the host, and pivot_root refuses one (pivot_root(2)).
        _make_parent_private(below)
    tree = _kernel.open_tree(below, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE)
    attach(tree, below)
    os.close(below)
    # The fd of the once detached mount is the fd of its root directory, above the one that was opened by path.
    setup.root = tree


def _make_parent_private(directory: int) -> None:
    fd = os.dup(directory)
    while not _kernel.is_mount_root(fd, ""):
        upper = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        os.close(fd)
        fd = upper
    set_propagation(fd, "", MS_PRIVATE)
    os.close(fd)


def read_only_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the root, read-only."""
    wanted = has_mount_namespace(plan) and plan.config.get("root", {}).get("readonly")
    return [Piece("/", ".root.readonly")] if wanted else []


def make_read_only(setup: "Setup", _: object) -> None:
    """Makes the root mount, and it alone, read-only."""
    _kernel.mount_setattr(setup.root, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)


def is_slave_tree(plan: "SetupPlan") -> bool:
    """Whether no mount of the namespace can propagate anything to the host."""
    return propagation(plan) in ("rslave", "rprivate", "runbindable")
