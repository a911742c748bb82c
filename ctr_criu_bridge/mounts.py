"""A mount namespace for CRIU that ends with it: whatever ends it in the middle, no mount of its own stays on the host.

CRIU mounts things here and there, for what it saves, for cgroups, and to find out what the kernel can do.
"""

import os

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.folders import UNAVAILABLE
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    CLONE_NEWNS,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOVE_MOUNT_F_EMPTY_PATH,
    MS_BIND,
    MS_REC,
    MS_SLAVE,
    OPEN_TREE_CLONE,
)


def apart() -> None:
    """Gives this process a mount namespace of its own.

    Raises:
        CtrError: it may not have one.
    """
    try:
        _kernel.unshare(CLONE_NEWNS)
        # What the host mounts must go on to reach a container whose mounts are slaves; nothing goes the other way.
        _kernel.mount(None, "/", None, MS_SLAVE | MS_REC, None)
    except OSError as error:
        raise CtrError.from_os_error(error, step="making a mount namespace for criu") from None


def apart_if_possible() -> None:
    """The same for what can do without: a dump by a user who may not."""
    try:
        apart()
    except CtrError:
        pass


def shared_with(pid: int) -> bool:
    """Whether a process sees the mounts that this one sees.

    CRIU takes a tree whose mounts are not its own for a container, and would save and make again all of the host's.
    """
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return False


def saved_in(images: str) -> bool:
    """Whether images hold a mount namespace."""
    try:
        return any(name.startswith("mountpoints-") for name in os.listdir(images))
    except OSError:
        return False


def bind_root(rootfs: str, root: str) -> None:
    """Makes a mount of the root file system, as CRIU needs one; after `apart`.

    Its parent must not be covered by another mount, so it is not made over the root file system itself.

    Args:
        rootfs: the root file system.
        root: an existing directory.

    Raises:
        CtrError: it can't be mounted.
    """
    try:
        _kernel.mount(rootfs, root, None, MS_BIND | MS_REC, None)
    except OSError as error:
        raise CtrError.from_os_error(error, step="binding the root file system for criu", path=rootfs) from None


def cover_without_symlinks(path: str, folder: int) -> Fd:
    """The work folder as a mount that follows no symlink, over itself, in this process's mount namespace.

    CRIU mounts things in it, and so it has to be a mount that is attached.

    Args:
        path: of the folder.
        folder: fd of it, which stays the caller's.

    Returns:
        an fd of the folder in the new mount; where the kernel has no such mounts, of the folder as it is.

    Raises:
        CtrError: the path leads to another folder than the fd.
    """
    try:
        with Fd(_kernel.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE)) as tree:
            _kernel.mount_setattr(tree.fileno(), "", AT_EMPTY_PATH, MOUNT_ATTR_NOSYMFOLLOW)
            _kernel.move_mount(tree.fileno(), "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH)
        covered = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in UNAVAILABLE:
            return Fd(os.dup(folder))
        raise CtrError.from_os_error(error, step="opening the work folder", path=path) from None
    if not os.path.samestat(os.fstat(covered.fileno()), os.fstat(folder)):
        covered.close()
        raise CtrError("the work folder was replaced", path=path)
    return covered
