"""Folders that somebody else may have filled, such as those of checkpoints: no symlink in them leads anywhere."""

import errno
import os

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    MOUNT_ATTR_NOSYMFOLLOW,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
)

# What may not be there on an old kernel, or is not allowed in a user namespace.
UNAVAILABLE = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)


def open_folder(path: str, what: str) -> Fd:
    """An fd of a directory; the path to it is the caller's own, links and all.

    Args:
        what: names it in errors.

    Raises:
        CtrError: it is not there, or no directory.
    """
    try:
        return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise CtrError(f"cannot open the {what}", path=path, errno=error.errno or 0) from None


def without_symlinks(folder: Fd) -> Fd:
    """The folder seen through a mount of its own that follows no symlink, which is attached nowhere.

    Whoever can still write to the folder can't make a privileged reader of it leave it (mount(2), MS_NOSYMFOLLOW).

    Returns:
        an fd like the other one, which is closed; where the kernel has no such mounts, the same one.
    """
    try:
        tree = Fd(_kernel.open_tree(folder.fileno(), "", OPEN_TREE_CLONE | AT_EMPTY_PATH))
    except OSError as error:
        if error.errno in UNAVAILABLE:
            return folder
        raise CtrError.from_os_error(error, step="opening a folder without symlinks") from None
    with tree:
        try:
            _kernel.mount_setattr(tree.fileno(), "", AT_EMPTY_PATH, MOUNT_ATTR_NOSYMFOLLOW)
        except OSError as error:
            if error.errno in UNAVAILABLE:
                return folder
            raise CtrError.from_os_error(error, step="opening a folder without symlinks") from None
        # Of an O_PATH fd nothing can be read. The mount is dissolved with it, and goes on for whoever has it open.
        seen = Fd(_kernel.openat2(tree.fileno(), ".", os.O_RDONLY | os.O_DIRECTORY))
        folder.close()
        return seen


def read_beneath(folder: Fd, name: str, limit: int) -> bytes:
    """Contents of a regular file in a folder, without following anything out of it, or waiting for a fifo.

    Args:
        limit: most bytes that it may have.

    Raises:
        OSError: it is not there, or can't be read so.
        CtrError: it is no regular file, or larger.
    """
    import stat

    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
    with Fd(_kernel.openat2(folder.fileno(), name, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CtrError("not a regular file", path=name)
        if status.st_size > limit:
            raise CtrError(f"larger than {limit} bytes", path=name)
        return os.read(file.fileno(), limit)
