"""Paths inside a container's root, which its image and its neighbours may change at any moment.

Nothing here goes by string: openat2(2) with RESOLVE_IN_ROOT resolves, what is missing is made by fd in a directory that
was opened that way (CVE-2021-30465, CVE-2024-45310), and callers mount on the fd that they get.
"""

import errno
import os
import stat

from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS

# As many as path_resolution(7) allows, and a bound on what a racing neighbour can make us repeat.
LINKS_MAX = 40
RETRIES_MAX = 64


def clean(path: str) -> str:
    """The path, absolute, without empty, `.` and `..` components: by its letters alone, no symlink is looked at."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def open_path(root: int, path: str, flags: int = 0) -> int:
    """An O_PATH fd of what is at a path; symlinks, absolute ones too, stay below the root.

    Raises:
        OSError: as from openat2(2).
    """
    return _kernel.openat2(root, path, os.O_PATH | flags, 0, RESOLVE_IN_ROOT)


def open_strict(root: int, path: str, flags: int = 0) -> int:
    """The same, but a symlink anywhere in the path is an error (ELOOP)."""
    return _kernel.openat2(root, path, os.O_PATH | flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)


def create(root: int, path: str, directory: bool = True, symlinks: bool = True) -> tuple[int, bool]:
    """What is at a path, made if it is missing: a directory or an empty file, with its parent directories.

    Args:
        root: fd of the root directory.
        path: inside the root.
        directory: what to make if there is nothing; what is there already is returned whatever it is.
        symlinks: whether symlinks may be followed, the dangling ones too: their target is made.

    Returns:
        an O_PATH fd, and whether it was made here.

    Raises:
        OSError: as from openat2(2), mkdir(2), mknod(2); ELOOP for a symlink where none may be.
        SetupError: somebody keeps changing the path.
    """
    try:
        return (open_path if symlinks else open_strict)(root, path), False
    except FileNotFoundError:
        return _create_missing(root, path, directory, symlinks), True


def _target(link: int, path: str) -> str:
    try:
        return os.readlink("", dir_fd=link)
    except FileNotFoundError:
        # /proc/self of a procfs leads nowhere for a process outside of its pid namespace; nothing can be made there.
        raise SetupError(f'"{path}" cannot be mounted because it is inside /proc') from None


def _create_missing(root: int, path: str, directory: bool, symlinks: bool) -> int:
    todo = path.split("/")[::-1]
    done: list[str] = []  # names of real directories, no symlink among them
    links = retries = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            del done[-1:]
            continue
        parent = open_strict(root, "/".join(done) or ".", os.O_DIRECTORY)
        try:
            try:
                entry = open_strict(parent, name, os.O_NOFOLLOW)
            except FileNotFoundError:
                try:
                    if directory or any(part not in ("", ".") for part in todo):
                        _make(parent, "/".join(["", *done, name]), "mkdir")
                    else:
                        _make(parent, "/".join(["", *done, name]), "mknod")
                    done.append(name)
                except FileExistsError:
                    retries += 1
                    if retries > RETRIES_MAX:
                        raise SetupError("somebody keeps changing the path", path=path) from None
                    todo.append(name)
                continue
            try:
                if not stat.S_ISLNK(os.fstat(entry).st_mode):
                    done.append(name)
                    continue
                links += 1
                if links > LINKS_MAX or not symlinks:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = _target(entry, path)
            finally:
                os.close(entry)
            if target.startswith("/"):
                done = []
            todo.extend(target.split("/")[::-1])
        finally:
            os.close(parent)
    return open_strict(root, "/".join(done) or ".")


def _make(parent: int, path: str, syscall: str) -> None:
    """Makes the directory or file that a path ends with; a failure names the call and the path."""
    name = path.rpartition("/")[2]
    try:
        if syscall == "mkdir":
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.mknod(name, stat.S_IFREG | 0o755, dir_fd=parent)
    except OSError as error:
        error.filename = path
        error.syscall = syscall  # type: ignore[attr-defined] # as the kernel wrappers do
        raise


def making_failed(error: OSError) -> str:
    """What `create` failed to make, such as `mkdir /a/b`; empty for another failure."""
    syscall = getattr(error, "syscall", "")
    return f"{syscall} {error.filename}" if syscall in ("mkdir", "mknod") else ""
