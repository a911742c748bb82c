"""Leaving the host's root: from here on `/` is the container's."""

import os

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_FDCWD,
    MNT_DETACH,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_PRIVATE,
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
)
from ctr_common.spec.mount_options import PROPAGATION
from ctr_init import filesystem, rootfs
from ctr_init.attach import attach, cut_off, set_propagation
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the change of the root."""
    if not rootfs.has_mount_namespace(plan):
        return []
    return [Piece("move the root mount to / and chroot" if plan.no_pivot else "pivot_root, detach the host's mounts")]


def change_root(setup: "Setup", _: object) -> None:
    """Makes the container's root mount the root of its mount namespace, for every process in it."""
    if setup.plan.no_pivot:
        _move_root(setup)
    else:
        _pivot(setup)
    name = (setup.plan.config.get("linux") or {}).get("rootfsPropagation")
    if name and not PROPAGATION[name] & MS_PRIVATE:
        # The root mount had to be private until now.
        set_propagation(setup.root, "", PROPAGATION[name])


def _pivot(setup: "Setup") -> None:
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(setup.root)
    # The old root ends up on top of the new one, and no directory in the image is needed for it (pivot_root(2)).
    _kernel.pivot_root(".", ".")
    os.fchdir(old)
    if not rootfs.is_slave_tree(setup.plan):
        cut_off(old)
    _kernel.umount2(".", MNT_DETACH)
    os.close(old)
    os.fchdir(setup.root)


def _move_root(setup: "Setup") -> None:
    _hide_host_proc_and_sys(setup)
    _kernel.move_mount(setup.root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH)
    os.fchdir(setup.root)
    os.chroot(".")


def _hide_host_proc_and_sys(setup: "Setup") -> None:
    """Unmounts, or covers, the host's full procfs and sysfs mounts.

    With a mere chroot they stay in the mount namespace, and a process with CAP_SYS_ADMIN there could reach them, or
    have the kernel take them as proof that a procfs without masks may be mounted.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    ours = (setup.host_root + setup.plan.rootfs).rstrip("/") + "/"
    for line in reversed(lines):
        words = line.split(" ")
        kind = words[words.index("-") + 1]
        point = words[4].encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
        if words[3] != "/" or kind not in ("proc", "sysfs") or os.fsdecode(point).startswith(ours):
            continue
        try:
            fd = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _kernel.fstatfs_type(fd) not in (PROC_SUPER_MAGIC, SYSFS_MAGIC):
                continue  # something else is mounted over it
            cut_off(fd)
            os.fchdir(fd)
            try:
                _kernel.umount2(".", MNT_DETACH)
            except OSError:
                # Locked, since a user namespace owns us: cover it.
                attach(filesystem.new_mount("tmpfs", "tmpfs", (), 0), fd)
        finally:
            os.close(fd)
