"""Reading and writing the files of a cgroup.

A directory is opened once and everything in it goes through its fd, after it was seen to be on a cgroup file system:
a path from a state file or from `cgroupsPath` never makes us write anywhere else.
"""

import errno
import os
import time

from ctr_common.errors import CgroupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

CGROUP_MAGICS = (CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC)

# A task that is still being forked (TASK_NEW) can't be moved yet: EINVAL, for a moment.
PROCS_TRIES = 5
PROCS_PAUSE = 0.03

# Steps down a path, those included that have to be taken again because another container's end removed a directory.
MAKE_TRIES = 1000

# Removing waits for dying processes to leave: 1, 2, 4 … 512 ms, about a second in all.
REMOVE_TRIES = 11
REMOVE_FIRST_PAUSE = 0.001

# What a kernel says to somebody who may not touch a cgroup, or for whom /sys/fs/cgroup is read-only.
DENIED = (errno.EPERM, errno.EACCES, errno.EROFS)
# What it says of a cgroup that was removed meanwhile.
GONE = (errno.ENOENT, errno.ENODEV)


def failure(error: OSError, message: str, path: str, json_path: str = "", hint: str = "") -> CgroupError:
    """A CgroupError for what the kernel said about a cgroup file."""
    return CgroupError(
        message,
        syscall=getattr(error, "syscall", "") or message.rsplit(" ", 1)[-1],
        errno=error.errno or 0,
        path=path,
        json_path=json_path,
        hint=hint,
    )


def verify(fd: int, path: str) -> None:
    """Makes sure that an fd is on a cgroup file system.

    Raises:
        CgroupError: it is on another one.
    """
    if _kernel.fstatfs_type(fd) not in CGROUP_MAGICS:
        raise CgroupError("not a cgroup:", path=path)


class Directory:
    """One cgroup, opened when it is first needed.

    Args:
        path: its absolute path; "" if the container has no cgroup for the controller.
        controller: what for, in the message of the error that a missing cgroup then is.
        fd: of the opened directory, if it is there already; owned here.
    """

    __slots__ = ("_fd", "controller", "path")

    def __init__(self, path: str, controller: str = "", fd: int = -1) -> None:
        self.path = path
        self.controller = controller
        self._fd = fd

    def __enter__(self) -> "Directory":
        return self

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """The fd, still owned here.

        Raises:
            CgroupError: there is no such cgroup.
        """
        if self._fd < 0:
            if not self.path:
                raise CgroupError(
                    f"cannot set {self.controller} limit: container could not join or create cgroup",
                    hint=f"the {self.controller} controller is not mounted here, or its cgroup may not be written",
                )
            self._fd = open_directory(self.path)
        return self._fd

    def has(self, name: str) -> bool:
        """Whether the kernel offers a file here."""
        try:
            os.stat(name, dir_fd=self.fileno(), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str, json_path: str = "") -> str:
        """The whole contents of a file, without white space around them."""
        directory = self.fileno()
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                return read_all(fd).decode().strip()
            finally:
                os.close(fd)
        except OSError as error:
            raise failure(error, "read", f"{self.path}/{name}", json_path) from None

    def write(self, name: str, value: "int | str", json_path: str = "") -> None:
        """Writes a value to a file in one go.

        Args:
            name: of the file; no slash in it.
            value: what to write.
            json_path: where the value comes from.

        Raises:
            CgroupError: with the errno, so that callers can tell a refusal from a missing file.
        """
        self.write_each(name, (value,), json_path)

    def write_each(self, name: str, values: "Iterable[int | str]", json_path: str = "") -> None:
        """Writes several values to one file, each on its own: the kernel takes one rule or one line a write."""
        directory = self.fileno()
        path = f"{self.path}/{name}"
        if "/" in name:
            raise CgroupError(f'"{name}" is not the name of a cgroup file', json_path=json_path)
        value: int | str = ""
        message = "open"
        try:
            fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                for value in values:
                    message = f'failed to write "{value}": write'
                    os.write(fd, str(value).encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise failure(error, message, path, json_path) from None


def open_directory(path: str) -> int:
    """Opens a cgroup; the fd is the caller's.

    Raises:
        CgroupError: it is not there, or is no cgroup.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise failure(error, "open", path) from None
    try:
        verify(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_all(fd: int) -> bytes:
    """Reads to the end, however long: cgroup.procs of a large container has no bound."""
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def make(path: str) -> list[str]:
    """Makes a cgroup with the ones above it; fine if it is there.

    Returns:
        The cgroups that were not there before, the topmost first.

    Raises:
        CgroupError: it can't be made; none is left then.
    """
    made: list[str] = []
    missing = [path]
    for _ in range(MAKE_TRIES):
        current = missing.pop()
        try:
            os.mkdir(current, 0o755)
            made.append(current)
        except FileExistsError:
            pass
        except FileNotFoundError:
            # Also when somebody just removed it because it was empty.
            missing += [current, os.path.dirname(current)]
        except OSError as error:
            unmake(made)
            raise failure(error, "mkdir", current, ".linux.cgroupsPath") from None
        if not missing:
            return made
    unmake(made)
    raise CgroupError("gave up making", path=path, json_path=".linux.cgroupsPath")


def unmake(made: list[str]) -> None:
    """Removes cgroups that were made on the way to a container's, if nobody else uses them by now."""
    for path in reversed(made):
        try:
            os.rmdir(path)
        except OSError:
            continue


def open_entry(path: str) -> int:
    """Opens a file by which processes enter a cgroup; the fd is the caller's.

    Raises:
        CgroupError: it can't be opened, or is not of a cgroup.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise failure(error, "open", path) from None
    try:
        verify(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def enter(path: str, pid: int) -> None:
    """Moves a process (all its threads) into a cgroup.

    Raises:
        CgroupError: it can't be moved.
    """
    procs = f"{path}/cgroup.procs"
    for attempt in range(PROCS_TRIES):
        try:
            fd = os.open(procs, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                verify(fd, procs)
                os.write(fd, b"%d" % pid)
                return
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno != errno.EINVAL or attempt + 1 == PROCS_TRIES:
                raise failure(error, f"failed to write {pid}: write", procs) from None
        time.sleep(PROCS_PAUSE)


def processes(path: str) -> list[int]:
    """Processes of one cgroup, without those of the cgroups below.

    Raises:
        CgroupError: the cgroup can't be read; with ENOENT or ENODEV when it is gone.
    """
    with Directory(path) as directory:
        return _processes_in(directory)


def _processes_in(directory: Directory) -> list[int]:
    try:
        text = directory.read("cgroup.procs")
    except CgroupError as error:
        # A threaded cgroup lists threads only (cgroup-v2, "Threads"); signals to one reach its process.
        if error.errno != errno.EOPNOTSUPP:
            raise
        text = directory.read("cgroup.threads")
    return [int(word) for word in text.split()]


def walk(path: str, visit: "Callable[[int], None]", leave: "Callable[[int, str], None] | None" = None) -> None:
    """Goes through a cgroup and all below it, by one fd: what may be made there may be too deep for any path.

    Args:
        path: of the topmost one; nothing happens if it is gone.
        visit: called with the fd of each, before those below it.
        leave: called with the fd of the parent and the name of each but the topmost, after those below it.

    Raises:
        CgroupError: one can't be opened.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = open_directory(path)
    except CgroupError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    try:
        names: list[str] = []
        left = [_children(fd)]
        visit(fd)
        while True:
            if left[-1]:
                name = left[-1].pop()
                try:
                    lower = os.open(name, flags, dir_fd=fd)
                except OSError as error:
                    if error.errno not in GONE:
                        raise
                    continue
                os.close(fd)
                fd = lower
                names.append(name)
                left.append(_children(fd))
                visit(fd)
                continue
            left.pop()
            if not left:
                return
            upper = os.open("..", flags, dir_fd=fd)
            os.close(fd)
            fd = upper
            name = names.pop()
            if leave is not None:
                leave(fd, name)
    except OSError as error:
        raise failure(error, "open", path) from None
    finally:
        os.close(fd)


def _children(fd: int) -> list[str]:
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno not in GONE:
            raise
        return []


def all_processes(path: str) -> list[int]:
    """Processes of a cgroup and of all below it, each once; empty if it is gone."""
    found: dict[int, None] = {}

    def visit(fd: int) -> None:
        with Directory(path, fd=os.dup(fd)) as directory:
            try:
                found.update(dict.fromkeys(_processes_in(directory)))
            except CgroupError as error:
                if error.errno not in GONE:
                    raise

    walk(path, visit)
    return list(found)


def remove(paths: "Iterable[str]") -> None:
    """Removes cgroups with all below them; what is gone already is fine.

    All are tried before anything is waited for, and the waiting is for all of them together.

    Raises:
        CgroupError: one is still there after about a second; the others were removed.
    """
    left: dict[str, Any] = dict.fromkeys(paths)
    pause = REMOVE_FIRST_PAUSE
    for attempt in range(REMOVE_TRIES):
        if attempt:
            time.sleep(pause)
            pause *= 2
        for path in list(left):
            problem = _remove_now(path)
            if problem is None:
                del left[path]
            else:
                left[path] = problem
        if not left:
            return
    path, problem = next(iter(left.items()))
    raise failure(problem, "unable to remove cgroup: rmdir", path) from None


def _remove_now(path: str) -> "OSError | None":
    """Removes a cgroup and what is below it; what stood in the way is returned."""
    try:
        os.rmdir(path)
        return None
    except FileNotFoundError:
        return None
    except OSError:
        pass

    def leave(parent: int, name: str) -> None:
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            # What is left in it keeps the topmost one, too.
            pass

    walk(path, lambda _: None, leave)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None
