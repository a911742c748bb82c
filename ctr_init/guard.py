"""What may be mounted at and below /proc.

Whatever hides the container's real procfs can mislead programs, the runtime's own writes among them, about what they
write to (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881).
"""

import os
import stat

from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PROC_SUPER_MAGIC
from ctr_init import resolve

# What lxcfs emulates; nothing that the runtime or a security module writes to.
ALLOWED_IN_PROC = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
)


def check(root: int, destination: int, path: str, mounted: int) -> None:
    """Refuses a mount that would hide part of the container's /proc.

    Args:
        root: the container's root.
        destination: O_PATH fd to mount on.
        path: clean destination in the configuration.
        mounted: fd of the mount that is to go there; -1 for one that is no procfs.

    Raises:
        SetupError: such a mount is not allowed.
    """
    named = path == "/proc" or path.startswith("/proc/")
    # The path may lead there through a symlink of the image, so the fd is asked too.
    if not named and not _is_on_container_proc(root, destination):
        return
    if path in ALLOWED_IN_PROC:
        return
    if path == "/proc" or (not named and _kernel.is_mount_root(destination, "")):
        if mounted >= 0 and _kernel.fstatfs_type(mounted) == PROC_SUPER_MAGIC:
            return
        raise SetupError(f'"{path}" cannot be mounted because it is not of type proc')
    raise SetupError(f'"{path}" cannot be mounted because it is inside /proc')


def _is_on_container_proc(root: int, destination: int) -> bool:
    if _kernel.fstatfs_type(destination) != PROC_SUPER_MAGIC:
        return False
    try:
        proc = resolve.open_path(root, "/proc")
    except OSError:
        return False
    try:
        return _kernel.statx_mnt_id(proc) == _kernel.statx_mnt_id(destination)
    finally:
        os.close(proc)


def check_ordinary_directory(root: int, path: str, fstype: str) -> tuple[int, bool]:
    """The destination of a procfs or sysfs: a real directory, reached without a symlink, made if missing.

    Raises:
        SetupError: it is anything else (CVE-2019-19921, CVE-2023-27561).
    """
    try:
        fd, made = resolve.create(root, path, symlinks=False)
    except OSError as error:
        raise SetupError(
            f'filesystem "{fstype}" must be mounted on ordinary directory', path=path, errno=error.errno or 0
        ) from None
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise SetupError(f'filesystem "{fstype}" must be mounted on ordinary directory', path=path)
    return fd, made
