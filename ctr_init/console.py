"""The container's terminal: a pair from its own devpts, with the slave on /dev/console.

No path of the image is opened for it: the pair comes from a devpts that was checked to be one, the slave from the
kernel by the master's fd, and /dev/console is mounted by fds (CVE-2025-52565, CVE-2025-31133).
"""

import errno
import fcntl
import os
import stat
import struct

from ctr_common.bootstrap import u32
from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_EMPTY_PATH,
    DEVPTS_SUPER_MAGIC,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from ctr_init import attach, resolve
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup

# ioctl_tty(2); termios lacks two of them, and is a shared object: 0.3 ms
TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
PTMX_DEVICE = os.makedev(5, 2)


def pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the terminal."""
    if not plan.console:
        return []
    size = f", {plan.console_size[0]}x{plan.console_size[1]}" if plan.console_size else ""
    return [Piece(f"pair from /dev/pts, slave on /dev/console{size}", ".process.terminal")]


def allocate(setup: "Setup", _: object) -> None:
    """Opens a pair, mounts its slave on /dev/console and sends both ends to the engine.

    Raises:
        OSError, SetupError: the container's /dev/pts is no devpts, or /dev/console is in the way.
    """
    master = open_master(setup.root)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("=i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    if setup.plan.console_size:
        width, height = setup.plan.console_size
        fcntl.ioctl(slave, TIOCSWINSZ, struct.pack("=4H", height, width, 0, 0))
    mount_console(setup.root, slave)
    setup.channel.send(
        _kernel.MSG_CONSOLE,
        [(_kernel.ATTR_CONSOLE_MASTER_FD, u32(0)), (_kernel.ATTR_CONSOLE_SLAVE_FD, u32(1))],
        (master, slave),
    )
    setup.channel.expect(_kernel.MSG_ACKNOWLEDGED).close()
    os.close(master)
    os.close(slave)


def open_master(root: int) -> int:
    """A new master from the devpts that is mounted in the container.

    Raises:
        SetupError: what is at /dev/pts is no devpts mount, or its ptmx not the device.
    """
    pts = resolve.open_path(root, "/dev/pts", os.O_DIRECTORY)
    try:
        if _kernel.fstatfs_type(pts) != DEVPTS_SUPER_MAGIC or not _kernel.is_mount_root(pts, ""):
            raise SetupError("a terminal needs a devpts mount", path="/dev/pts")
        master = _kernel.openat2(
            pts, "ptmx", os.O_RDWR | os.O_NOCTTY, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS
        )
    finally:
        os.close(pts)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != PTMX_DEVICE:
        os.close(master)
        raise SetupError("is not the pseudo terminal multiplexer", path="/dev/pts/ptmx")
    return master


def mount_console(root: int, slave: int) -> None:
    """Mounts a pty slave on /dev/console, which is made if missing and never followed as a symlink."""
    directory, _ = resolve.create(root, "/dev")
    try:
        try:
            os.mknod("console", stat.S_IFREG | 0o644, dir_fd=directory)
        except FileExistsError:
            pass
        destination = resolve.open_strict(directory, "console", os.O_NOFOLLOW)
    finally:
        os.close(directory)
    try:
        mode = os.fstat(destination).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISCHR(mode):
            raise SetupError(
                "must be a file or a character device for a terminal", path="/dev/console", errno=errno.EINVAL
            )
        tree = _kernel.open_tree(slave, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
        try:
            attach.attach(tree, destination)
        finally:
            os.close(tree)
    finally:
        os.close(destination)
