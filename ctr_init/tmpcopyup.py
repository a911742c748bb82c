"""`tmpcopyup`: a tmpfs that starts with a copy of the directory that it hides."""

import errno
import os
import stat

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV

CHUNK = 1 << 20


def copy(source: int, target: int) -> None:
    """Copies a directory's contents, with modes, owners, times and extended attributes; sockets are left out.

    Every name is opened in its directory's fd and never through a symlink: the source is the image's.

    Args:
        source: O_PATH fd of the directory.
        target: fd of the new mount's root.
    """
    with_entries = _open_directory(source, ".")
    try:
        into = _kernel.openat2(target, ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            _copy_entries(with_entries, into)
        finally:
            os.close(into)
    finally:
        os.close(with_entries)


def _open_directory(directory: int, name: str) -> int:
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | (RESOLVE_NO_XDEV if name != "." else 0)
    return _kernel.openat2(directory, name, os.O_RDONLY | os.O_DIRECTORY, 0, resolve)


def _copy_entries(source: int, target: int) -> None:
    for name in os.listdir(source):
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            _copy_entry(source, target, name, status)
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            if error.errno == errno.EXDEV:
                continue  # another filesystem is mounted there: its contents are not the image's
            raise


def _copy_entry(source: int, target: int, name: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        below = _open_directory(source, name)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            into = _open_directory(target, name)
            try:
                _copy_entries(below, into)
                _copy_metadata(below, into, status)
            finally:
                os.close(into)
        finally:
            os.close(below)
    elif stat.S_ISREG(mode):
        _copy_file(source, target, name)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        _chown(name, status, target)
    elif not stat.S_ISSOCK(mode):
        try:
            os.mknod(name, mode, status.st_rdev, dir_fd=target)
        except PermissionError:
            return  # device nodes cannot be made in a user namespace
        os.chmod(name, stat.S_IMODE(mode), dir_fd=target)
        _chown(name, status, target)


def _copy_file(source: int, target: int, name: str) -> None:
    reading = _kernel.openat2(
        source, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV
    )
    try:
        status = os.fstat(reading)
        if not stat.S_ISREG(status.st_mode):
            return  # swapped meanwhile
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while os.sendfile(writing, reading, None, CHUNK):
                pass
            _copy_metadata(reading, writing, status)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_metadata(source: int, target: int, status: os.stat_result) -> None:
    _chown(target, status)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    try:
        for key in os.listxattr(source):
            os.setxattr(target, key, os.getxattr(source, key))
    except OSError as error:
        # An attribute that tmpfs or this user namespace does not take; security.capability is the one that matters.
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA, errno.EINVAL):
            raise
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _chown(target: "int | str", status: os.stat_result, directory: "int | None" = None) -> None:
    try:
        if isinstance(target, int):
            os.chown(target, status.st_uid, status.st_gid)
        else:
            os.chown(target, status.st_uid, status.st_gid, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        # An owner without an id in this user namespace.
        if error.errno != errno.EINVAL:
            raise
