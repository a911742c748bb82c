"""Runs a command where its root is the root of a mount namespace: in a chroot, of a new one.

usage: own_root.py COMMAND [ARGUMENT…]

In a chroot the kernel makes no user namespace (user_namespaces(7), EPERM), and where the root is not even a mount,
pivot_root(2) and changes of "/" fail: runc, Docker and Podman do not work there at all. The new namespace has the same
tree and ends with the command. Elsewhere, and where the kernel allows no such thing, the command runs as it is.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k


def _root() -> tuple[int, int]:
    """What tells one root from another: a chroot may show the very directory of the outer root, on another mount."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        return _kernel.statx_mnt_id(fd), os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _go_to_the_outer_root() -> None:
    # setns(2): joining a mount namespace leads to its root, even for who is in it
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    _kernel.setns(fd, k.CLONE_NEWNS)
    os.close(fd)


def _in_a_chroot() -> bool:
    """Whether "/" is not the root of the mount namespace; a process of its own finds that out."""
    here = _root()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    status = 2
    try:
        _go_to_the_outer_root()
        status = 0 if here == _root() else 1
    finally:
        os._exit(status)


def _leave_the_chroot() -> None:
    """Makes the directory that is "/" now the root of a new mount namespace."""
    where = os.getcwd()
    _kernel.unshare(k.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        _go_to_the_outer_root()
        _kernel.mount(None, "/", None, k.MS_REC | k.MS_PRIVATE, None)
        tree = _kernel.open_tree(root, "", k.OPEN_TREE_CLONE | k.AT_EMPTY_PATH | k.AT_RECURSIVE)
        _kernel.move_mount(tree, "", root, "", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH)
        os.fchdir(tree)
        _kernel.pivot_root(".", ".")
        _kernel.umount2(".", k.MNT_DETACH)
    except OSError:
        os.fchdir(root)
        os.chroot(".")
        raise
    finally:
        os.chdir(where)


def main() -> None:
    """Runs the command in place of this program."""
    if os.geteuid() == 0 and _in_a_chroot():
        try:
            _leave_the_chroot()
            print("own_root: this is a chroot; the command runs in a mount namespace of its own", file=sys.stderr)
        except OSError as error:
            print(f"own_root: ignoring that this is a chroot: {error}", file=sys.stderr)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
