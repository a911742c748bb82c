"""The cgroup of one container on cgroup v2."""

import errno
import os

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files, freezer, killing, subcgroups, v2_resources
from ctr_supervisor.cgroups.hierarchies import CGROUP_ROOT, join, parse_proc_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_common.spec.types import Resources

SIGKILL = 9


class Manager:
    """See ctr_supervisor.cgroups.manager.Manager.

    Args:
        paths: the cgroup, under the key "".
        rootless: a cgroup that may not be made is done without.
        resources: limits that count at creation: a threaded cgroup can't have all of them.
        chosen: the configuration asks for this path, so that to do without is an error.
        owner: uid on the host that the cgroup is handed to; None if it stays ours.
    """

    __slots__ = ("_chosen", "_made", "_owner", "_resources", "_rootless", "_somebody_elses", "paths")

    def __init__(
        self,
        paths: "dict[str, str]",
        *,
        rootless: bool,
        resources: "Resources | None" = None,
        chosen: bool = False,
        owner: "int | None" = None,
    ) -> None:
        self.paths = paths
        self._rootless = rootless
        self._resources: Resources = resources or {}
        self._chosen = chosen
        self._owner = owner
        self._somebody_elses = False
        self._made: list[str] = []

    def _path(self) -> str:
        return self.paths.get("", "")

    def create(self) -> None:
        """Makes the cgroup."""
        self._check_unused()
        try:
            self._create()
            self._hand_over()
        except CgroupError as error:
            if not self._rootless or error.errno not in files.DENIED or self._chosen:
                raise
            if v2_resources.wanted_controllers(self._resources) or self._resources.get("unified"):
                raise error.within(
                    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
                ) from None
            self.paths.clear()

    def _hand_over(self) -> None:
        if self._owner is not None:
            from ctr_supervisor.cgroups import ownership

            ownership.hand_over(self._path(), self._owner, rootless=self._rootless)

    def _check_unused(self) -> None:
        found = self.exists() and self.pids()
        frozen = not found and self.frozen()
        if found or frozen:
            self._somebody_elses = True
            raise CgroupError(
                f"container's cgroup is not empty: {len(found)} process(es) found"
                if found
                else "container's cgroup unexpectedly frozen:",
                path=self._path(),
                json_path=".linux.cgroupsPath",
            )

    def _create(self) -> None:
        """Makes it from the top down, since a controller is only there if each cgroup above hands it on."""
        with files.Directory(CGROUP_ROOT) as root:
            controllers = root.read("cgroup.controllers").split()
        current = CGROUP_ROOT
        try:
            for name in self._path()[len(CGROUP_ROOT) + 1 :].split("/"):
                _enable(current, controllers)
                current = join(current, name)
                made = files.make(current)
                self._made += made
                for above in made[:-1]:  # removed by somebody since we passed it, and made again
                    _enable(above, controllers)
                self._check_type(current)
        except CgroupError:
            files.unmake(self._made)
            self._made = []
            raise

    def _check_type(self, path: str) -> None:
        """Copes with threaded cgroups (cgroup-v2, "Threads")."""
        with files.Directory(path) as directory:
            if not directory.has("cgroup.type"):  # before Linux 4.14 there were no threaded cgroups
                return
            kind = directory.read("cgroup.type")
            if kind == "domain":
                return
            needs_domain = set(v2_resources.wanted_controllers(self._resources)) & set(v2_resources.DOMAIN_CONTROLLERS)
            if kind == "domain invalid":
                # Below a threaded cgroup. It could only be threaded too, which is all right for what is left.
                if needs_domain:
                    raise CgroupError(
                        f"cannot enter cgroupv2 {path} with domain controllers -- it is in an invalid state",
                        json_path=".linux.resources",
                    )
                directory.write("cgroup.type", "threaded")
            elif needs_domain:
                raise CgroupError(
                    f"cannot enter cgroupv2 {path} with domain controllers -- it is in {kind} mode",
                    json_path=".linux.resources",
                )

    def exists(self) -> bool:
        """Whether there is a cgroup."""
        return bool(self.paths) and os.path.isdir(self._path())

    def clone_fd(self) -> "int | None":
        """Fd for CLONE_INTO_CGROUP."""
        return files.open_directory(self._path()) if self.paths else None

    def entry_fds(self, in_v2: bool) -> "list[int] | None":
        """Nothing is left to enter for whom was born there; others can't move themselves any cheaper."""
        return [] if in_v2 or not self.paths else None

    def apply(self, pid: int) -> None:
        """Moves the first process, unless it was born here."""
        if not self.paths:
            return
        # Looking is far cheaper than writing, which waits for every fork on the machine.
        if join(CGROUP_ROOT, parse_proc_cgroup(pid).get("", "")) != self._path():
            files.enter(self._path(), pid)

    def add_pid(self, pid: int, cgroup: "str | Sequence[str] | None" = None, init_pid: int = 0) -> None:
        """Moves another process."""
        if not self.paths:
            return
        context = f"error adding pid {pid} to cgroups"
        path = subcgroups.choose(self.paths, cgroup)[""]
        try:
            if join(CGROUP_ROOT, parse_proc_cgroup(pid).get("", "")) != path:
                files.enter(path, pid)
        except OSError as error:
            raise files.failure(error, f"{context}: open", f"/proc/{pid}/cgroup") from None
        except CgroupError as error:
            # A container that manages cgroups itself has moved its processes down: "no internal processes".
            if error.errno == errno.EBUSY and init_pid and not cgroup:
                files.enter(join(CGROUP_ROOT, parse_proc_cgroup(init_pid).get("", "")), pid)
            elif not (self._rootless and error.errno in files.DENIED and not cgroup):
                raise error.within(context) from None

    def set(self, resources: "Resources", *, skip_devices: bool = False) -> None:
        """Sets limits."""
        for controller, setter in v2_resources.SETTERS:
            if controller == "devices" and skip_devices:
                continue
            with files.Directory(self._path(), controller) as directory:
                try:
                    setter(directory, resources)
                except CgroupError as error:
                    # bpf(2) is not for user namespaces.
                    if self._rootless and controller == "devices":
                        continue
                    if error.errno == errno.ENOENT and self.paths and controller not in ("devices", "unified"):
                        _explain_missing(directory, error)
                    raise

    def freeze(self) -> None:
        """Freezes all processes."""
        if not self.paths:
            raise CgroupError("cannot freeze: the container has no cgroup")
        freezer.freeze_v2(self._path())

    def thaw(self) -> None:
        """Lets them run."""
        if self.paths:
            freezer.thaw_v2(self._path())

    def frozen(self) -> bool:
        """Whether they are frozen."""
        return bool(self.paths) and freezer.frozen_v2(self._path())

    def pids(self) -> list[int]:
        """All processes."""
        return files.all_processes(self._path()) if self.paths else []

    def kill(self, signal: int) -> None:
        """Signals all processes."""
        if signal == SIGKILL and self.paths and self._kill_at_once():
            return
        killing.signal_all(self, signal)

    def _kill_at_once(self) -> bool:
        """Kills all by cgroup.kill (Linux 5.14), frozen ones too; whether that was possible."""
        try:
            with files.Directory(self._path()) as directory:
                directory.write("cgroup.kill", 1)
        except CgroupError as error:
            if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, *files.DENIED):
                return False
            if error.errno != errno.ENODEV:
                raise
        return True

    def destroy(self) -> None:
        """Removes the cgroup."""
        if not self._somebody_elses:
            files.remove(self.paths.values())
            files.unmake(self._made)

    def oom_kill_count(self) -> int:
        """Processes killed for lack of memory."""
        if not self.paths:
            return 0
        try:
            with files.Directory(self._path()) as directory:
                for line in directory.read("memory.events").splitlines():
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except CgroupError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
        return 0


def _explain_missing(directory: files.Directory, error: CgroupError) -> None:
    """A plainer error, if a file is missing because its whole controller is."""
    controller = directory.controller
    if controller not in directory.read("cgroup.controllers").split():
        raise CgroupError(
            f"cannot set {controller} limit: controller {controller} not available in",
            errno=error.errno,
            path=directory.path,
            json_path=error.json_path,
            hint="the kernel has it disabled, or a cgroup above does not hand it on in its cgroup.subtree_control",
        ) from None


def _enable(path: str, controllers: list[str]) -> None:
    """Hands controllers on to the cgroups below; where that is not possible, setting a limit will say so."""
    with files.Directory(path) as directory:
        enabled = directory.read("cgroup.subtree_control").split()
        missing = [f"+{controller}" for controller in controllers if controller not in enabled]
        if not missing:
            return
        try:
            directory.write("cgroup.subtree_control", " ".join(missing))
        except CgroupError as error:
            if error.errno in files.DENIED:
                return
            # All or nothing: one that a threaded cgroup can't have, or that was not handed on to us, spoils the rest.
            for controller in missing:
                try:
                    directory.write("cgroup.subtree_control", controller)
                except CgroupError:
                    continue
