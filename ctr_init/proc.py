"""A procfs of the worker's own, in which nobody can have mounted anything."""

import os

from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    PROC_ROOT_INO,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from ctr_init import filesystem, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.setup import Setup


def root(setup: "Setup") -> int:
    """Root directory of a procfs for writing: a private detached mount, or else the container's own, verified.

    What is mounted on /proc in the container, or on parts of it, cannot redirect a write (CVE-2025-52881).

    Raises:
        SetupError: there is no procfs.
    """
    if setup.proc < 0:
        try:
            setup.proc = filesystem.new_mount("proc", "proc", (), 0, setup.pid_namespace)
        except OSError:
            # No pid namespace of our own in this user namespace, or the visible procfs is covered in parts.
            setup.proc = _verified(setup.root if setup.root >= 0 else os.open("/", os.O_PATH | os.O_CLOEXEC))
    return setup.proc


def _verified(container_root: int) -> int:
    try:
        fd = resolve.open_strict(container_root, "/proc", os.O_DIRECTORY)
    except OSError as error:
        raise SetupError("no procfs to write to", path="/proc", errno=error.errno or 0) from None
    if _kernel.fstatfs_type(fd) != PROC_SUPER_MAGIC or os.fstat(fd).st_ino != PROC_ROOT_INO:
        os.close(fd)
        raise SetupError("is not a procfs", path="/proc")
    return fd


def write(setup: "Setup", path: str, data: bytes) -> None:
    """Writes to a file of procfs.

    Args:
        setup: the setup under way.
        path: relative to /proc.
        data: written in one write(2).

    Raises:
        OSError: EXDEV, ELOOP if something is mounted or linked in the way; else as from open(2) and write(2).
    """
    fd = _kernel.openat2(root(setup), path, os.O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
