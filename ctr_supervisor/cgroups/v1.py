"""The cgroups of one container on cgroup v1: one in each hierarchy, and one in the v2 hierarchy of a hybrid host."""

import errno
import os

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files, freezer, killing, subcgroups, v1_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_common.spec.types import Resources


class Manager:
    """See ctr_supervisor.cgroups.manager.Manager.

    Args:
        paths: cgroup by controller, "" for the v2 one of a hybrid host, in the order in which they are entered.
        rootless: cgroups that may not be made are done without.
        resources: limits that count at creation: a cpuset must have its cpus before a process can enter.
        chosen: the configuration asks for these paths, so that to do without is an error.
    """

    __slots__ = ("_chosen", "_made", "_resources", "_rootless", "_somebody_elses", "paths")

    def __init__(
        self,
        paths: "dict[str, str]",
        *,
        rootless: bool,
        resources: "Resources | None" = None,
        chosen: bool = False,
    ) -> None:
        self.paths = paths
        self._rootless = rootless
        self._resources: Resources = resources or {}
        self._chosen = chosen
        self._somebody_elses = False
        self._made: list[str] = []

    def _main(self) -> str:
        """The cgroup that speaks for all; in which a container has all its processes."""
        for controller in ("devices", "freezer", "pids"):
            if controller in self.paths:
                return self.paths[controller]
        return next(iter(self.paths.values()), "")

    def create(self) -> None:
        """Makes the cgroups."""
        self._check_unused()
        for controller, path in list(self.paths.items()):
            try:
                self._made += files.make(path)
                if controller == "cpuset":
                    v1_resources.prepare_cpuset(path, self._resources)
            except CgroupError as error:
                self._do_without(controller, error)

    def _check_unused(self) -> None:
        found = self.exists() and self.pids()
        if found:
            self._somebody_elses = True
            raise CgroupError(
                f"container's cgroup is not empty: {len(found)} process(es) found",
                path=self._main(),
                json_path=".linux.cgroupsPath",
            )
        if self.frozen():
            self._somebody_elses = True
            raise CgroupError(
                "container's cgroup unexpectedly frozen:",
                path=self.paths["freezer"],
                json_path=".linux.cgroupsPath",
            )

    def _do_without(self, controller: str, error: CgroupError) -> None:
        # Limits that then can't be set are an error of `set`.
        if not self._rootless or self._chosen or error.errno not in files.DENIED:
            raise error
        del self.paths[controller]

    def exists(self) -> bool:
        """Whether there are cgroups."""
        path = self._main()
        return bool(path) and os.path.isdir(path)

    def clone_fd(self) -> "int | None":
        """Fd of a hybrid host's v2 cgroup."""
        # Rootless: `apply` knows which cgroups can be done without.
        return None if self._rootless or "" not in self.paths else files.open_directory(self.paths[""])

    def entry_fds(self, in_v2: bool) -> "list[int] | None":
        """The files `tasks`, and cgroup.procs of the v2 cgroup for whom was not born there."""
        if self._rootless:
            return None
        names = {path: "tasks" if controller else "cgroup.procs" for controller, path in self.paths.items()}
        if in_v2:
            del names[self.paths[""]]
        opened: list[int] = []
        try:
            for path, name in names.items():
                opened.append(files.open_entry(f"{path}/{name}"))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def apply(self, pid: int) -> None:
        """Moves the first process."""
        for controller, path in list(self.paths.items()):
            try:
                files.enter(path, pid)
            except CgroupError as error:
                self._do_without(controller, error)

    def add_pid(self, pid: int, cgroup: "str | Sequence[str] | None" = None, init_pid: int = 0) -> None:
        """Moves another process."""
        for path in subcgroups.choose(self.paths, cgroup).values():
            try:
                files.enter(path, pid)
            except CgroupError as error:
                if self._rootless and error.errno in files.DENIED and not cgroup:
                    continue
                raise error.within(f"error adding pid {pid} to cgroups") from None

    def set(self, resources: "Resources", *, skip_devices: bool = False) -> None:
        """Sets limits."""
        if resources.get("unified"):
            raise CgroupError(
                "invalid configuration: cannot use unified on cgroup v1", json_path=".linux.resources.unified"
            )
        for controller, setter in v1_resources.SETTERS:
            if controller == "devices" and skip_devices:
                continue
            with files.Directory(self.paths.get(controller, ""), controller) as directory:
                try:
                    setter(directory, resources)
                except CgroupError:
                    # The kernel lets nobody change device rules from a user namespace.
                    if not (self._rootless and controller == "devices"):
                        raise

    def freeze(self) -> None:
        """Freezes all processes."""
        if "freezer" not in self.paths:
            raise CgroupError("cannot freeze: the container has no freezer cgroup")
        freezer.freeze_v1(self.paths["freezer"])

    def thaw(self) -> None:
        """Lets them run."""
        if "freezer" in self.paths:
            freezer.thaw_v1(self.paths["freezer"])

    def frozen(self) -> bool:
        """Whether they are frozen."""
        return "freezer" in self.paths and freezer.frozen_v1(self.paths["freezer"])

    def pids(self) -> list[int]:
        """All processes."""
        path = self._main()
        return files.all_processes(path) if path else []

    def kill(self, signal: int) -> None:
        """Signals all processes."""
        killing.signal_all(self, signal)

    def destroy(self) -> None:
        """Removes the cgroups."""
        if not self._somebody_elses:
            files.remove(self.paths.values())
            files.unmake(self._made)

    def oom_kill_count(self) -> int:
        """Processes killed for lack of memory."""
        try:
            with files.Directory(self.paths.get("memory", ""), "memory") as directory:
                for line in directory.read("memory.oom_control").splitlines():
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except CgroupError as error:
            if error.errno not in (0, errno.ENOENT, errno.ENODEV):
                raise
        return 0
