"""An existing container: its state read back, its status derived from the kernel."""

import errno

from ctr_common import fastjson
from ctr_common.errors import ContainerNotFound, CtrError, StateError
from ctr_common.spec.validate import validate_id
from ctr_common.state import CONFIG_FILE, StateDir
from ctr_supervisor.cgroups import manager as cgroups
from ctr_supervisor.engine.runtime import Runtime
from ctr_supervisor.process import status as process_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import Config

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"

# In state.json while a program has the id and a configuration, and has not said yet what the init process is to be
# (ctr_supervisor/api/direct.py): nobody was interrupted there.
PENDING = "pending"

# State of the OCI hooks and of `state`; the version of the specification that the answers follow.
OCI_VERSION = "1.3.0"


class Container:
    """A container that has a state directory.

    Args:
        runtime: the surroundings.
        directory: its state directory.
        state: contents of state.json, {} while it is only half made.
        config: its configuration; None to read it where it is asked for.
    """

    __slots__ = ("_cgroups", "_config", "directory", "runtime", "state")

    def __init__(
        self, runtime: Runtime, directory: StateDir, state: "dict[str, Any]", config: "Config | None" = None
    ) -> None:
        self.runtime = runtime
        self.directory = directory
        self.state = state
        self._config = config
        self._cgroups: cgroups.Manager | None = None

    @property
    def id(self) -> str:
        """The container's id."""
        return self.directory.container_id

    @property
    def pid(self) -> int:
        """Pid of the init process, 0 while there is none."""
        return int(self.state.get("init_process_pid", 0))

    @property
    def start_time(self) -> int:
        """Start time of the init process in clock ticks since boot."""
        return int(self.state.get("init_process_start", 0))

    @property
    def config(self) -> "Config":
        """The configuration as it was when the container was made."""
        if self._config is None:
            try:
                config: Config = fastjson.loads(self.directory.read(CONFIG_FILE))
            except StateError as error:
                raise gone(error) from None
            except ValueError as error:
                raise StateError(f"{self.directory.file(CONFIG_FILE)}: {error}") from None
            self._config = config
        return self._config

    @property
    def cgroups(self) -> "cgroups.Manager":
        """The manager of its cgroups."""
        if self._cgroups is None:
            self._cgroups = cgroups.from_paths(
                self.state.get("cgroup_paths", {}),
                rootless_cgroups=self.runtime.rootless_cgroups,
                systemd=self.state.get("systemd"),
            )
        return self._cgroups

    def refresh(self) -> None:
        """Reads state.json again, after the lock was taken or another process may have written it."""
        try:
            self.state = self.directory.load()
        except StateError as error:
            raise gone(error) from None

    def is_alive(self) -> bool:
        """Whether the init process runs."""
        return self.pid > 0 and process_status.is_alive(self.pid, self.start_time)

    def status(self) -> str:
        """creating, created, running, paused or stopped: by the kernel, not by the file."""
        if self.pid <= 0:
            return CREATING if self.directory.is_locked() else STOPPED
        if not self.is_alive():
            return STOPPED
        if not self.state.get("prepared"):
            return CREATING
        try:
            if self.cgroups.frozen():
                return PAUSED
        except CtrError as error:
            self.runtime.note(f"ignoring: {error}")
        return CREATED if self.directory.has_fifo() else RUNNING

    def open_pidfd(self) -> "int | None":
        """A pidfd of the init process, None if it ended; the caller closes it."""
        if self.pid <= 0:
            return None
        return process_status.open_pidfd(self.pid, self.start_time)

    def oci_state(self, status: str, pid: "int | None" = None) -> "dict[str, Any]":
        """The OCI state (runtime-spec, runtime.md, "State"), as hooks get it.

        Args:
            status: the status that the moment asks for.
            pid: None for the recorded one.
        """
        state: dict[str, Any] = {"ociVersion": OCI_VERSION, "id": self.id, "status": status}
        number = self.pid if pid is None else pid
        if number > 0:
            state["pid"] = number
        state["bundle"] = self.state.get("bundle", "")
        annotations = self.state.get("annotations")
        if annotations:
            state["annotations"] = annotations
        return state


def gone(error: StateError) -> CtrError:
    """What it means that a file of the state is not there: the container is about to go, or has not come yet."""
    return ContainerNotFound("container does not exist") if error.errno == errno.ENOENT else error


def load(runtime: Runtime, container_id: str) -> Container:
    """The container of that id.

    Raises:
        ContainerNotFound: there is none.
        ConfigError: the id is not one.
        StateError: its state is unreadable.
    """
    validate_id(container_id)
    found = Container(runtime, StateDir(runtime.root, container_id), {})
    found.refresh()
    return found
