"""Compiled seccomp filters by content.

A file is named by the hash of what the profile says and of the machine. It also tells which libseccomp made it: the
library's file is compared on every read, so that an upgrade takes effect without loading the library to ask.

The directory and its files must be ours and nobody else's to write: a filter is a security boundary. The key stands
in the file again, so that a link under another name does not pass for another profile.
"""

import marshal
import os
import stat
import struct

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter that was built without it
    from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Seccomp

FORMAT = 1
"""Raised whenever the same profile compiles to something else."""

MAX_FILES = 128
MAX_SIZE = 64 * 1024
DIGEST_SIZE = 32

# magic, key, checksum of all that follows, notifies, length of the BPF, length of the library's path, the library's
# inode, size and mtime in nanoseconds; then the path and the BPF
_HEADER = struct.Struct("<8s32s32sIIIQQq")
_SIGNED_FROM = 8 + DIGEST_SIZE + DIGEST_SIZE
_MAGIC = b"ctrunBPF"


def profile_key(seccomp: "Seccomp") -> bytes:
    """Hash of what decides the filter of a profile: not its flags, which go to seccomp(2), nor its listener."""
    content = (
        FORMAT,
        os.uname().machine,
        seccomp.get("defaultAction"),
        seccomp.get("defaultErrnoRet"),
        seccomp.get("architectures"),
        seccomp.get("syscalls"),
    )
    # Version 2 has neither back references nor interned strings: equal content gives equal bytes.
    return blake2b(marshal.dumps(content, 2), digest_size=DIGEST_SIZE).digest()


class Cache:
    """The place of one profile in a directory of compiled filters.

    Args:
        directory: made when something is stored; its parent too.
        seccomp: the profile.
    """

    __slots__ = ("directory", "key", "name")

    def __init__(self, directory: str, seccomp: "Seccomp") -> None:
        self.directory = directory
        self.key = profile_key(seccomp)
        self.name = self.key.hex()

    def load(self) -> "tuple[bytes, bool] | None":
        """The BPF and whether it notifies; None if it is not there, not trustworthy, damaged or out of date."""
        try:
            directory = _open_directory(self.directory)
        except OSError:
            return None
        try:
            fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
        except OSError:
            return None
        finally:
            os.close(directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or not _is_ours(status) or status.st_size > MAX_SIZE:
                return None
            return unpack(os.read(fd, MAX_SIZE + 1), self.key)
        except OSError:
            return None
        finally:
            os.close(fd)

    def store(self, bpf: bytes, listener: bool) -> None:
        """Keeps a compiled filter. A failure is of no consequence: the filter is compiled again next time."""
        library = loaded_library()
        if not library:
            return
        try:
            data = pack(self.key, bpf, listener, library)
            _make_directory(self.directory)
            directory = _open_directory(self.directory)
        except OSError:
            return
        try:
            _write_by_rename(directory, self.name, data)
            _drop_oldest(directory)
        except OSError:
            return
        finally:
            os.close(directory)


def pack(key: bytes, bpf: bytes, listener: bool, library: str) -> bytes:
    """The contents of a cache file.

    Raises:
        OSError: the library's file cannot be examined.
    """
    path = os.fsencode(library)
    status = os.stat(library)
    fields = (int(listener), len(bpf), len(path), status.st_ino, status.st_size, status.st_mtime_ns)
    signed = _HEADER.pack(_MAGIC, key, b"", *fields)[_SIGNED_FROM:] + path + bpf
    return _MAGIC + key + _checksum(signed) + signed


def unpack(data: bytes, key: bytes) -> "tuple[bytes, bool] | None":
    """The BPF and whether it notifies, if the contents are whole, for this key, and of the library as it is now.

    Raises:
        OSError: the library's file cannot be examined.
    """
    if len(data) < _HEADER.size:
        return None
    magic, found_key, checksum, listener, length, path_length, inode, size, mtime = _HEADER.unpack_from(data)
    if magic != _MAGIC or found_key != key or checksum != _checksum(data[_SIGNED_FROM:]):
        return None
    start = _HEADER.size + path_length
    if length == 0 or length % 8 or start + length != len(data):
        return None
    status = os.stat(data[_HEADER.size : start])
    if (status.st_ino, status.st_size, status.st_mtime_ns) != (inode, size, mtime):
        return None
    return data[start:], bool(listener)


def loaded_library() -> str:
    """Path of the libseccomp that this process has loaded, "" if it cannot be told."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and "/libseccomp.so" in fields[5] and not fields[5].endswith(" (deleted)"):
                return fields[5]
    return ""


def _checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_SIZE).digest()


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _open_directory(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not _is_ours(os.fstat(fd)):
        os.close(fd)
        raise PermissionError(f"{path} belongs to somebody else")
    return fd


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.mkdir(os.path.dirname(path), 0o700)
        os.mkdir(path, 0o700)


def _write_by_rename(directory: int, name: str, data: bytes) -> None:
    new = f"{name}.{os.getpid()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            # A short write (no space left) leaves a file whose checksum is wrong.
            os.write(fd, data)
        finally:
            os.close(fd)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(new, dir_fd=directory)
        raise


def _drop_oldest(directory: int) -> None:
    """Halves a directory that has grown too large: somebody makes up a profile for each container."""
    names = os.listdir(directory)
    if len(names) <= MAX_FILES:
        return
    ages = []
    for name in names:
        try:
            ages.append((os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name))
        except FileNotFoundError:
            continue
    for _, name in sorted(ages)[: MAX_FILES // 2]:
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            continue
