"""Looks things up in the user database of a container's root, which the image wrote."""

import os
import stat

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    BINFMTFS_MAGIC,
    BPF_FS_MAGIC,
    CGROUP2_SUPER_MAGIC,
    CGROUP_SUPER_MAGIC,
    CONFIGFS_MAGIC,
    DEBUGFS_MAGIC,
    EFIVARFS_MAGIC,
    FUSE_CTL_SUPER_MAGIC,
    MQUEUE_MAGIC,
    NSFS_MAGIC,
    PIDFS_MAGIC,
    PROC_SUPER_MAGIC,
    PSTOREFS_MAGIC,
    RDTGROUP_SUPER_MAGIC,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    SECURITYFS_MAGIC,
    SELINUX_MAGIC,
    SYSFS_MAGIC,
    TRACEFS_MAGIC,
)

SIZE_LIMIT = 4 << 20  # bytes read of etc/passwd; directories with more users are not served from a file

# Regular files by their mode, but to open or read one is a request to the kernel, which no image may make with our
# rights: /proc/kmsg takes messages away from their reader, trace_pipe waits for ever.
KERNEL_INTERFACES = frozenset(
    (
        BINFMTFS_MAGIC,
        BPF_FS_MAGIC,
        CGROUP2_SUPER_MAGIC,
        CGROUP_SUPER_MAGIC,
        CONFIGFS_MAGIC,
        DEBUGFS_MAGIC,
        EFIVARFS_MAGIC,
        FUSE_CTL_SUPER_MAGIC,
        MQUEUE_MAGIC,
        NSFS_MAGIC,
        PIDFS_MAGIC,
        PROC_SUPER_MAGIC,
        PSTOREFS_MAGIC,
        RDTGROUP_SUPER_MAGIC,
        SECURITYFS_MAGIC,
        SELINUX_MAGIC,
        SYSFS_MAGIC,
        TRACEFS_MAGIC,
    )
)


def lookup_home(root_fd: int, uid: int) -> "str | None":
    """Home directory of a user.

    Args:
        root_fd: root of the container; symlinks in the image cannot lead out of it, and a fifo, device or interface
            of the kernel in the place of etc/passwd is neither waited for nor read.
        uid: the user, in the container.

    Returns:
        the directory as etc/passwd (passwd(5)) has it, undecodable bytes as surrogates; None if the file or the entry
        is not there, or the entry names no absolute path.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        # O_PATH first: opening a device node can already do something.
        path_fd = _kernel.openat2(root_fd, "etc/passwd", os.O_PATH, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return None
    try:
        before = os.fstat(path_fd)
        if not stat.S_ISREG(before.st_mode) or _kernel.fstatfs_type(path_fd) in KERNEL_INTERFACES:
            return None
        fd = _kernel.openat2(root_fd, "etc/passwd", flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return None
    finally:
        os.close(path_fd)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != (before.st_dev, before.st_ino):
            return None
        data = _read(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return _home(data, uid)


def _read(fd: int) -> bytes:
    chunks = []
    left = SIZE_LIMIT
    while left and (chunk := os.read(fd, min(left, 65536))):
        chunks.append(chunk)
        left -= len(chunk)
    data = b"".join(chunks)
    # A line that the limit cuts would give a wrong directory.
    return data if left else data[: data.rfind(b"\n") + 1]


def _home(data: bytes, uid: int) -> "str | None":
    wanted = str(uid).encode()
    for line in data.split(b"\n"):
        # name:password:UID:GID:GECOS:directory:shell
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted:
            home = os.fsdecode(fields[5])
            return home if home.startswith("/") and "\0" not in home else None
    return None
