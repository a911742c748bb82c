"""The state directory: what is known of a container, on disk, for whoever comes next.

    ROOT/<id>/            0711; made exclusively, so an id is taken by exactly one creator
        state.json        0600, written by rename: what the kernel can't tell (pid, start time, cgroups, bundle)
        config.json       0600: the configuration as it was at creation; the bundle may change or vanish
        lock              flock: one writer at a time, whoever it is
        exec.fifo         there from creation until start: the container process waits in it
        exit-status       written by the keeper of a container that a supervisor owns

The status is always derived from the kernel, never believed from a file.
"""

import errno
import fcntl
import os
import stat
import time

from ctr_common import fastjson
from ctr_common.errors import ContainerExists, ContainerNotFound, CtrError, StateError
from ctr_common.fd import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE_VERSION = 1
STATE_FILE = "state.json"
CONFIG_FILE = "config.json"
LOCK_FILE = "lock"
FIFO_FILE = "exec.fifo"

# Creation holds the lock while hooks run; whoever waits longer than this is told so instead of waiting on.
LOCK_TIMEOUT = 60.0
LOCK_INTERVAL = 0.01

# How often removing starts over when files appear meanwhile.
REMOVE_TRIES = 10
# How often making does, when others remove what is new.
MAKE_TRIES = 10

STATE_SIZE_MAX = 64 * 1024 * 1024


class StateDir:
    """The directory of one container.

    Args:
        root: the state root of this runtime, such as /run/ctrun.
        container_id: a validated id (no slash in it).
    """

    __slots__ = ("_lock", "container_id", "path", "root")

    def __init__(self, root: str, container_id: str) -> None:
        self.root = root
        self.container_id = container_id
        self.path = f"{root}/{container_id}"
        self._lock = Fd(-1)

    def file(self, name: str) -> str:
        """Path of a file in it."""
        return f"{self.path}/{name}"

    def exists(self) -> bool:
        """Whether the id is taken."""
        return os.path.isdir(self.path)

    def make(self) -> None:
        """Takes the id, and the lock with it.

        Raises:
            ContainerExists: the id is taken.
            StateError: the root can't be made or written.
        """
        for _ in range(MAKE_TRIES - 1):
            try:
                self._make()
                return
            except ContainerNotFound:
                # A `delete --force` took a directory without a lock for one whose creator had died.
                continue
        self._make()

    def _make(self) -> None:
        try:
            os.makedirs(self.root, 0o700, exist_ok=True)
            os.mkdir(self.path, 0o711)
        except OSError as error:
            if error.errno == errno.EEXIST and error.filename == self.path:
                raise ContainerExists("container with given ID already exists") from None
            raise StateError(
                "cannot make the state directory", path=error.filename or self.path, errno=error.errno or 0
            ) from None
        try:
            # mkdir obeys the umask; the container's root must be able to pass through to its fifo.
            os.chmod(self.path, 0o711)
        except FileNotFoundError:
            raise ContainerNotFound("container does not exist") from None
        self.lock()

    def lock(self) -> None:
        """Takes the lock; it is released by `unlock`, `remove` or the end of the process.

        Raises:
            ContainerNotFound: the container is gone, or went while this waited.
            StateError: somebody held it for longer than LOCK_TIMEOUT.
        """
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fd = Fd(os.open(self.file(LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            except (FileNotFoundError, NotADirectoryError):
                raise ContainerNotFound("container does not exist") from None
            except OSError as error:
                raise StateError("cannot lock", path=self.file(LOCK_FILE), errno=error.errno or 0) from None
            if self._try_lock(fd):
                self._lock = fd
                return
            fd.close()
            if time.monotonic() >= deadline:
                raise StateError(
                    f"container {self.container_id} is busy: another command held {self.file(LOCK_FILE)}"
                    f" for {LOCK_TIMEOUT:g} seconds"
                )
            time.sleep(LOCK_INTERVAL)

    def _try_lock(self, fd: Fd) -> bool:
        try:
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # The one who held it may have removed the directory, and another creator made a new one: lock that one.
        try:
            named = os.stat(self.file(LOCK_FILE), follow_symlinks=False)
        except FileNotFoundError:
            return False
        held = os.fstat(fd.fileno())
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def unlock(self) -> None:
        """Releases the lock; does nothing without it."""
        self._lock.close()

    def is_locked(self) -> bool:
        """Whether somebody else holds the lock at this moment: for a container without a pid, its creator lives."""
        try:
            with Fd(os.open(self.file(LOCK_FILE), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
                try:
                    fcntl.flock(fd.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        except OSError:
            pass
        return False

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole or not at all.

        Raises:
            StateError: the file system refused.
        """
        target = self.file(name)
        partial = f"{target}.partial"
        try:
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with Fd(fd):
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            os.rename(partial, target)
        except OSError as error:
            raise StateError("cannot write state", path=target, errno=error.errno or 0) from None

    def read(self, name: str) -> bytes:
        """Contents of a file.

        Raises:
            ContainerNotFound: there is no such container.
            StateError: the container is there, the file is not, or it can't be read.
        """
        target = self.file(name)
        try:
            with Fd(os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
                size = os.fstat(fd.fileno()).st_size
                if size > STATE_SIZE_MAX:
                    raise StateError(f"{target} is larger than {STATE_SIZE_MAX} bytes")
                return os.read(fd.fileno(), size + 1)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and not self.exists():
                raise ContainerNotFound("container does not exist") from None
            raise StateError("cannot read state", path=target, errno=error.errno or 0) from None

    def save(self, state: "dict[str, Any]") -> None:
        """Writes state.json."""
        self.write(STATE_FILE, fastjson.dumps({"version": STATE_VERSION, **state}).encode())

    def load(self) -> "dict[str, Any]":
        """Reads state.json.

        Raises:
            ContainerNotFound: there is no such container.
            StateError: it is unreadable or of a version that this release does not know.
        """
        try:
            state = fastjson.loads(self.read(STATE_FILE))
        except ValueError as error:
            raise StateError(f"{self.file(STATE_FILE)}: {error}") from None
        if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
            found = state.get("version") if isinstance(state, dict) else None
            raise StateError(f"{self.file(STATE_FILE)} has version {found}, this release reads {STATE_VERSION}")
        return state

    def make_fifo(self, uid: int, gid: int) -> None:
        """Makes exec.fifo, which the container's root can write to and nobody else but the runtime's user read.

        Args:
            uid: host id of the container's root user.
            gid: host id of the container's root group.
        """
        path = self.file(FIFO_FILE)
        try:
            os.mkfifo(path, 0o600)
            os.chmod(path, 0o622)
            if (uid, gid) != (os.geteuid(), os.getegid()):
                os.chown(path, uid, gid, follow_symlinks=False)
        except OSError as error:
            raise StateError("cannot make the exec fifo", path=path, errno=error.errno or 0) from None

    def has_fifo(self) -> bool:
        """Whether the container was created and not yet started."""
        try:
            return stat.S_ISFIFO(os.lstat(self.file(FIFO_FILE)).st_mode)
        except OSError:
            return False

    def remove_fifo(self) -> None:
        """Removes exec.fifo; does nothing if it is gone."""
        try:
            os.unlink(self.file(FIFO_FILE))
        except FileNotFoundError:
            pass

    def remove(self) -> None:
        """Removes the directory and all in it, lock last; may be run twice, and from any half-made state."""
        _remove_tree(self.path)
        self.unlock()


def _remove_tree(path: str) -> None:
    for last in (False,) * (REMOVE_TRIES - 1) + (True,):
        try:
            _try_remove_tree(path)
            return
        except OSError as error:
            # A keeper, or a supervisor that saw the end, wrote the exit status down at this moment.
            if error.errno != errno.ENOTEMPTY or last:
                raise


def _try_remove_tree(path: str) -> None:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name == LOCK_FILE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CtrError.from_os_error(error, step="removing state", path=path) from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            # What somebody mounted here, such as a root file system to restore, is not ours to empty.
            from ctr_common.kernel import _kernel
            from ctr_common.kernel.constants import AT_FDCWD

            if _kernel.is_mount_root(AT_FDCWD, entry.path):
                raise StateError("cannot remove what is mounted there", path=entry.path, hint="unmount it first")
            _remove_tree(entry.path)
            continue
        try:
            os.unlink(entry.path)
        except FileNotFoundError:
            pass
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def ids(root: str) -> "list[str]":
    """Ids that have a directory under this root, sorted."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StateError("cannot list containers", path=root, errno=error.errno or 0) from None
