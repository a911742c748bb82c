"""Read-only and masked paths.

/proc and /sys themselves are taken without symlinks, and from there no symlink leads out again. What covers a file is
a device that was checked to be the real null device, by the fd that is then mounted (CVE-2025-31133).
"""

import errno
import os
import stat

from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_RDONLY,
    MS_RDONLY,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
)
from ctr_init import attach, filesystem, resolve, rootfs
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup

NULL_DEVICE = os.makedev(1, 3)


def _pieces(paths: "Sequence[str] | None", name: str) -> "list[Piece]":
    return [Piece(path, f".linux.{name}[{index}]", path) for index, path in enumerate(paths or ())]


def read_only_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the read-only paths."""
    linux = plan.config.get("linux") or {}
    return _pieces(linux.get("readonlyPaths"), "readonlyPaths") if rootfs.has_mount_namespace(plan) else []


def mask_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the masked paths."""
    linux = plan.config.get("linux") or {}
    return _pieces(linux.get("maskedPaths"), "maskedPaths") if rootfs.has_mount_namespace(plan) else []


def _open(setup: "Setup", path: str) -> int:
    """O_PATH fd of what to cover; -1 if there is nothing.

    Raises:
        OSError: ELOOP, EXDEV where a symlink stands in the place of /proc or /sys, or leads out of it.
    """
    path = resolve.clean(path)
    top, _, below = path[1:].partition("/")
    try:
        if top not in ("proc", "sys") or not below:
            return resolve.open_path(setup.root, path)
        directory = resolve.open_strict(setup.root, top)
        try:
            return _kernel.openat2(directory, below, os.O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        finally:
            os.close(directory)
    except FileNotFoundError:
        return -1


def make_read_only(setup: "Setup", path: str) -> None:
    """Mounts a path on itself, read-only; what is not there needs nothing."""
    destination = _open(setup, path)
    if destination < 0:
        return
    try:
        tree = _kernel.open_tree(destination, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE)
        try:
            _kernel.mount_setattr(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)
            attach.attach(tree, destination)
        finally:
            os.close(tree)
    finally:
        os.close(destination)


def mask(setup: "Setup", path: str) -> None:
    """Covers a file with the null device, a directory with an empty read-only tmpfs, and nothing where nothing is."""
    destination = _open(setup, path)
    if destination < 0:
        return
    try:
        directory = stat.S_ISDIR(os.fstat(destination).st_mode)
        if directory and setup.empty < 0:
            # Before Linux 6.15 only an attached mount can be cloned: the first one covers, the others are its clones.
            setup.empty = _empty_directory(setup)
            attach.attach(setup.empty, destination)
            return
        cover = setup.empty if directory else _null_device(setup)
        tree = _kernel.open_tree(cover, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
        try:
            attach.attach(tree, destination)
        finally:
            os.close(tree)
    finally:
        os.close(destination)


def _empty_directory(setup: "Setup") -> int:
    """One tmpfs for all masked directories: each mount of it is a mount of the same empty instance."""
    data = ["nr_blocks=1", "nr_inodes=1"]
    label = (setup.plan.config.get("linux") or {}).get("mountLabel")
    if label:
        data.append(f'context="{label}"')
    return filesystem.new_mount("tmpfs", "tmpfs", data, MS_RDONLY)


def _null_device(setup: "Setup") -> int:
    if setup.null < 0:
        setup.null = open_null(setup.root)
    return setup.null


def open_null(root: int) -> int:
    """The container's /dev/null.

    Returns:
        O_PATH fd of the device itself.

    Raises:
        SetupError: /dev/null is missing, a symlink, or anything but the null device.
    """
    try:
        fd = resolve.open_path(root, "/dev/null", os.O_NOFOLLOW)
    except OSError as error:
        raise SetupError(
            "cannot mask a file without the null device", path="/dev/null", errno=error.errno or errno.EINVAL
        ) from None
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != NULL_DEVICE:
        os.close(fd)
        raise SetupError("cannot mask a file: in the container this is not the null device", path="/dev/null")
    return fd
