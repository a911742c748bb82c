"""Attaching detached mounts, and what is applied to them once they are attached."""

import os

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.requests import MountRequest
    from ctr_init.setup import Setup


def attach(tree: int, destination: int) -> None:
    """Attaches a detached mount to what an O_PATH fd refers to."""
    _kernel.move_mount(tree, "", destination, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def set_propagation(fd: int, path: str, flags: int) -> None:
    """Applies one MS_* propagation type, with MS_REC to the whole tree."""
    recursive = AT_RECURSIVE if flags & MS_REC else 0
    _kernel.mount_setattr(fd, path, recursive | (0 if path else AT_EMPTY_PATH), propagation=flags & ~MS_REC)


def cut_off(fd: int) -> None:
    """Makes a whole tree of mounts unable to propagate anything to the host, so that it can be unmounted."""
    set_propagation(fd, "", MS_SLAVE | MS_REC)


def finish(setup: "Setup", request: "MountRequest", mounted: int, late: bool = False) -> None:
    """Applies recursive attributes and propagation to an attached mount; its fd is kept where it is needed once more.

    Args:
        setup: the setup under way.
        request: what was mounted.
        mounted: fd of the mount, taken over.
        late: it becomes read-only at the end.
    """
    options = request.options
    # Those of a copy were set before anybody could see it (bind.set_attributes).
    if (options.recursive_set or options.recursive_clear) and (not request.is_bind or options.flags & MS_REMOUNT):
        _kernel.mount_setattr(mounted, "", AT_EMPTY_PATH | AT_RECURSIVE, options.recursive_set, options.recursive_clear)
    for flags in options.propagation:
        set_propagation(mounted, "", flags)
    if late:
        setup.read_only_later.append(os.dup(mounted) if request.destination == "/" else mounted)
    if request.destination == "/":
        # Mounted over the root: the new mount is what pivot_root takes.
        os.close(setup.root)
        setup.root = mounted
    elif not late:
        os.close(mounted)
