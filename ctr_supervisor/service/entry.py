"""One container as the supervisor knows it: what was read once, and what of the kernel is held to be asked cheaply."""

import os
import stat
from collections.abc import Callable
from typing import Any

from ctr_common import fastjson
from ctr_common.errors import CgroupError, ContainerNotFound, CtrError, StateError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.state import STATE_FILE, StateDir
from ctr_supervisor.cgroups import files
from ctr_supervisor.engine.container import CREATED, CREATING, OCI_VERSION, PAUSED, RUNNING, STOPPED
from ctr_supervisor.engine.list import owner_of
from ctr_supervisor.process import status as process_status

STATUS_FILE = "exit-status"
# Of our own, since the keeper may write at the same time.
STATUS_PARTIAL = ".exit-status.found"
STATUS_MAX = 32

NEVER = "0001-01-01T00:00:00Z"


class Entry:
    """A container under the state root.

    Args:
        directory: its state directory.
        gone: it may be gone already.

    Attributes:
        identity: device and inode of the directory: another one of the same name is another container.
        state: contents of state.json; {} while there is none, or it is unreadable.
        problem: why it is unreadable.
        watch: number of the watch on the directory, -1 for none.
        keeper: pid of the process that waits for the init process, and ends with its exit status; 0 for none.
        pidfd: of the init process; none once it is known how that ended, or where no fd is left.
        ended: the init process does not run any more.
        settled: there is nothing more to be learned about how it ended.
        exit_status: as a shell shows it; None while, or where, it is not known.
        told: events of it that have been told.
        paused: as last told.
        is_another: what is on disk by now was made as another container, so this entry is of the past.
    """

    __slots__ = (
        "_freezer",
        "_key",
        "_owner",
        "directory",
        "ended",
        "exit_status",
        "fifo",
        "id",
        "identity",
        "is_another",
        "keeper",
        "paused",
        "pid",
        "pidfd",
        "prepared",
        "problem",
        "raw_status",
        "settled",
        "start_time",
        "state",
        "told",
        "watch",
    )

    def __init__(self, directory: StateDir, *, gone: bool = False) -> None:
        self.directory = directory
        self.id = directory.container_id
        try:
            found = os.stat(directory.path, follow_symlinks=False)
            self.identity = (found.st_dev, found.st_ino)
        except FileNotFoundError:
            if not gone:
                raise
            self.identity = (0, 0)
        self.state: dict[str, Any] = {}
        self.problem: CtrError | None = None
        self.watch = -1
        self.pid = 0
        self.start_time = 0
        self.keeper = 0
        self.prepared = False
        self.fifo = False
        self.pidfd = Fd(-1)
        self.ended = False
        self.settled = False
        self.raw_status: int | None = None
        self.exit_status: int | None = None
        self.told: set[str] = set()
        self.paused = False
        self.is_another = False
        self._owner: str | None = None
        self._key = (0, 0)
        self._freezer = Fd(-1)

    def is_current(self) -> bool:
        """Whether the name still leads to this directory."""
        try:
            found = os.stat(self.directory.path, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def reload(self) -> bool:
        """Reads state.json if it is another file than before; whether the container has another process now."""
        try:
            found = os.stat(self.directory.file(STATE_FILE), follow_symlinks=False)
            key = (found.st_ino, found.st_mtime_ns)
        except OSError:
            key = (0, 0)
        if key == self._key and key != (0, 0):
            return False
        try:
            state = self.directory.load()
            self.problem = None
        except CtrError as error:
            self.problem = error
            return False
        if self.state and state.get("created") != self.state.get("created"):
            self.is_another = True
            return False
        before = (self.pid, self.start_time)
        if state.get("cgroup_paths") != self.state.get("cgroup_paths"):
            self._freezer.close()
        self._key = key
        self.state = state
        self.pid = int(state.get("init_process_pid", 0))
        self.start_time = int(state.get("init_process_start", 0))
        self.keeper = int(state.get("keeper_pid", 0))
        self.prepared = bool(state.get("prepared"))
        self.look_for_fifo()
        return (self.pid, self.start_time) != before

    def look_for_fifo(self) -> None:
        """Finds out whether it waits for its start."""
        self.fifo = self.prepared and self.directory.has_fifo()

    @property
    def owner(self) -> str:
        """Name of the user who made it.

        Raises:
            ContainerNotFound: it went away at this moment.
        """
        if self._owner is None:
            try:
                self._owner = owner_of(self.directory.path)
            except FileNotFoundError:
                raise ContainerNotFound("container does not exist") from None
        return self._owner

    # -- status, by the same rules as engine/container.py

    def status(self) -> str:
        """creating, created, running, paused or stopped."""
        if self.pid <= 0:
            return CREATING if self.directory.is_locked() else STOPPED
        if self.ended or (self.pidfd.number < 0 and not process_status.is_alive(self.pid, self.start_time)):
            return STOPPED
        if not self.prepared:
            return CREATING
        if self.is_frozen():
            return PAUSED
        return CREATED if self.fifo else RUNNING

    def is_alive(self) -> bool:
        """Whether its init process runs; without a pidfd by its pid."""
        if self.pid <= 0 or self.ended:
            return False
        return self.pidfd.number >= 0 or process_status.is_alive(self.pid, self.start_time)

    def is_of_another_release(self) -> bool:
        """Whether state.json is there and can't be judged: the container may be a healthy one."""
        return self.problem is not None and self.problem.errno == 0 and "version" in self.problem.message

    def is_frozen(self) -> bool:
        """Whether somebody froze its cgroup."""
        if self._freezer.number < 0 and self.pidfd.number < 0:
            # There are more containers than fds to hold.
            path, name = freezer_file(self.state.get("cgroup_paths") or {})
            return bool(path) and self._is_frozen_now(path, name)
        if self._freezer.number < 0:
            path, name = freezer_file(self.state.get("cgroup_paths") or {})
            if not path:
                return False
            try:
                with files.Directory(path) as directory:
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fileno())
            except (CgroupError, OSError):
                return False
            self._freezer = Fd(fd)
        try:
            return os.pread(self._freezer.number, 2, 0)[:1] == b"1"
        except OSError:
            # ENODEV: the cgroup is gone. One of the same path would be another one.
            self._freezer.close()
            return False

    def _is_frozen_now(self, path: str, name: str) -> bool:
        try:
            with files.Directory(path) as directory:
                return directory.read(name) == "1"
        except CgroupError:
            return False

    def describe(self, status: str, owner: str) -> dict[str, Any]:
        """The map that `engine.state.describe` makes, keys in the same order.

        Args:
            status: as it is now.
            owner: what to say about the owner.
        """
        state = self.state
        described: dict[str, Any] = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "pid": 0 if status == STOPPED else self.pid,
            "status": status,
            "bundle": state.get("bundle", ""),
            "rootfs": state.get("rootfs", ""),
            "created": state.get("created", NEVER),
        }
        annotations = state.get("annotations")
        if annotations:
            described["annotations"] = annotations
        described["owner"] = owner
        return described

    def add_exit_status(self, described: dict[str, Any]) -> None:
        """Adds how it ended to `describe`, where that is known."""
        if described["status"] == STOPPED and self.exit_status is not None:
            described["exit_status"] = self.exit_status

    # -- how it ended

    def will_be_told(self) -> bool:
        """Whether this process will reap somebody who knows how the init process ended, which it has."""
        if process_status.is_alive(self.pid, self.start_time):
            return False
        if self.keeper > 0 and process_status.read_stat(self.keeper) is not None:
            return True
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def read_status_file(self) -> bool:
        """Learns the exit status that the keeper or another supervisor wrote down; False when there is none."""
        try:
            with Fd(
                os.open(self.directory.file(STATUS_FILE), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            ) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return False
                self.learn(int(os.read(file.fileno(), STATUS_MAX)))
        except (OSError, ValueError, OverflowError):
            return False
        return True

    def ask_kernel(self) -> bool:
        """Learns the exit status from the kernel, which tells holders of a pidfd once the process was reaped."""
        if self.pidfd.number < 0:
            return False
        try:
            raw = _kernel.pidfd_info(self.pidfd.number)
        except OSError:
            return False
        if raw is None:
            return False
        self.learn(raw)
        return True

    def learn(self, raw: int) -> None:
        """Takes a wait status (waitpid(2)) down.

        Raises:
            ValueError: it is none.
        """
        code = os.waitstatus_to_exitcode(raw)
        self.raw_status = raw
        self.exit_status = 128 - code if code < 0 else code

    def record(self) -> None:
        """Writes the exit status down for whoever comes next, unless somebody has, or the directory is another's."""
        if self.raw_status is None:
            return
        try:
            with Fd(os.open(self.directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
                where = fd.fileno()
                found = os.fstat(where)
                named = os.stat(STATE_FILE, dir_fd=where, follow_symlinks=False)
                # Inodes are used again; together with the file of our own process they are not.
                if (found.st_dev, found.st_ino) != self.identity or (named.st_ino, named.st_mtime_ns) != self._key:
                    return
                try:
                    os.stat(STATUS_FILE, dir_fd=where, follow_symlinks=False)
                    return
                except FileNotFoundError:
                    pass
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                with Fd(os.open(STATUS_PARTIAL, flags, 0o600, dir_fd=where)) as file:
                    os.write(file.fileno(), f"{self.raw_status}\n".encode())
                os.rename(STATUS_PARTIAL, STATUS_FILE, src_dir_fd=where, dst_dir_fd=where)
        except OSError:
            # ignoring: the container is being deleted, and nobody will ask
            return

    # -- in another program (upgrade.py)

    def export(self, keep: Callable[[int], int]) -> dict[str, Any]:
        """What another program needs to go on with it, for `restored`; its `pidfd` is -1 for none.

        Args:
            keep: told of every fd that the other program is to have.
        """
        return {
            "id": self.id,
            "created": self.state.get("created"),
            "pid": self.pid,
            "start_time": self.start_time,
            "keeper": self.keeper,
            "pidfd": keep(self.pidfd.number) if self.pidfd.number >= 0 else -1,
            "ended": self.ended,
            "settled": self.settled,
            "raw_status": self.raw_status,
            "told": sorted(self.told),
            "paused": self.paused,
        }

    @classmethod
    def restored(cls, root: str, saved: dict[str, Any]) -> "Entry":
        """An entry as another program had it, but for its pidfd; it has to be brought up to date."""
        entry = cls(StateDir(root, saved["id"]), gone=True)
        entry.state = {"created": saved["created"]} if saved["created"] else {}
        entry.pid, entry.start_time = saved["pid"], saved["start_time"]
        entry.keeper = saved.get("keeper", 0)
        entry.ended, entry.settled = saved["ended"], saved["settled"]
        entry.told = set(saved["told"])
        entry.paused = saved["paused"]
        if saved["raw_status"] is not None:
            entry.learn(saved["raw_status"])
        return entry

    # -- the rest

    def reset_process(self) -> None:
        """Forgets the process that it had, whose pidfd is let go by now: it has another one."""
        self._freezer.close()
        self.ended = self.settled = self.paused = False
        self.raw_status = self.exit_status = None
        self.told.clear()

    def close(self) -> None:
        """Lets go of what is held."""
        self.pidfd.close()
        self._freezer.close()


def freezer_file(paths: dict[str, str]) -> tuple[str, str]:
    """The cgroup and the file in it that says whether somebody froze it, as `cgroups/freezer.py` reads them.

    Args:
        paths: cgroup by controller, "" for v2.
    """
    if "freezer" in paths:
        return paths["freezer"], "freezer.self_freezing"
    if list(paths) == [""]:
        return paths[""], "cgroup.freeze"
    return "", ""


def load_config(entry: Entry) -> dict[str, Any]:
    """The configuration as it was when the container was made.

    Raises:
        ContainerNotFound, StateError: it can't be read.
    """
    from ctr_common.state import CONFIG_FILE

    try:
        config: dict[str, Any] = fastjson.loads(entry.directory.read(CONFIG_FILE))
    except (RecursionError, ValueError) as error:
        raise StateError(f"{entry.directory.file(CONFIG_FILE)}: {error}") from None
    return config
