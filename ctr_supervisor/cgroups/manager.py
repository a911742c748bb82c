"""The way to the cgroups of one container: for a new one by its configuration, for an old one by its recorded paths."""

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups.hierarchies import (
    CONTROLLERS,
    Hierarchies,
    below_mount,
    clean,
    hierarchies,
    join,
    parse_proc_cgroup,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from ctr_common.spec.types import Config, Resources

    class Manager(Protocol):
        """The cgroups of one container.

        Attributes:
            paths: absolute path of each cgroup by controller, "" for v2; what state.json records as cgroup_paths.
        """

        paths: dict[str, str]

        def create(self) -> None:
            """Makes the cgroups, empty and without limits.

            Raises:
                CgroupError: one can't be made, has processes in it, or is frozen.
            """

        def exists(self) -> bool:
            """Whether the container has cgroups now."""

        def clone_fd(self) -> int | None:
            """Fd of the v2 directory for CLONE_INTO_CGROUP, the caller's to close; None if there is none."""

        def entry_fds(self, in_v2: bool) -> list[int] | None:
            """Fds, the caller's to close, of files by which a process that writes 0 to each of them enters the cgroups.

            Far cheaper on v1 than moving it from outside (enter_cgroup in c/nsexec/process.c). None: use `apply` or
            `add_pid`.

            Args:
                in_v2: it was born in the cgroup of `clone_fd`.
            """

        def apply(self, pid: int) -> None:
            """Moves the container's first process into all cgroups that it was not born in."""

        def add_pid(self, pid: int, cgroup: "str | Sequence[str] | None" = None, init_pid: int = 0) -> None:
            """Moves a process into the running container's cgroups.

            Args:
                pid: the process.
                cgroup: a sub-cgroup for all controllers, or `controller[,controller]:path`, or several of the latter.
                init_pid: the container's first process; the process joins its cgroup where the container's own
                    takes none any more (v2).
            """

        def set(self, resources: "Resources", *, skip_devices: bool = False) -> None:
            """Sets the limits that are given and leaves the others as they are.

            Args:
                resources: `.linux.resources`.
                skip_devices: leave the device rules alone, as updates do.
            """

        def freeze(self) -> None:
            """Freezes all processes; returns when they are frozen."""

        def thaw(self) -> None:
            """Lets them run; fine if they do."""

        def frozen(self) -> bool:
            """Whether `freeze` was called on this cgroup (not on one above it)."""

        def pids(self) -> list[int]:
            """All processes, those of sub-cgroups included."""

        def kill(self, signal: int) -> None:
            """Signals all processes, those included that are being forked meanwhile."""

        def destroy(self) -> None:
            """Removes the cgroups and all below them; fine if they are gone."""

        def oom_kill_count(self) -> int:
            """How many processes the kernel killed here because a memory limit was hit; 0 if it does not tell."""


__all__ = ["Hierarchies", "for_container", "from_paths", "hierarchies", "parse_proc_cgroup", "state_of"]


def for_container(config: "Config", container_id: str, *, rootless_cgroups: bool, systemd: bool = False) -> "Manager":
    """The cgroups for a new container; nothing is made yet.

    The paths are runc's. An absolute `cgroupsPath` starts at the top of each hierarchy. A relative one, which is the
    container's id if there is none, is below this process's own cgroup on v1 and beside it on v2. The v2 hierarchy of
    a hybrid host takes every path as absolute.

    Args:
        config: the validated configuration.
        container_id: name of the cgroup if the configuration has none.
        rootless_cgroups: cgroups that may not be made are done without, unless the configuration asks for limits or
            for a path.
        systemd: let systemd make them; `cgroupsPath` then reads `slice:prefix:name`.

    Raises:
        CgroupError: the path can't be a cgroup.
        NotSupported: systemd is to make them, and this host does not run it.
    """
    if systemd:
        from ctr_supervisor.cgroups import systemd as driver

        return driver.for_container(config, container_id, rootless_cgroups=rootless_cgroups)
    linux = config.get("linux") or {}
    asked = linux.get("cgroupsPath") or ""
    path = clean(asked or container_id)
    resources = linux.get("resources") or {}
    found = hierarchies()
    if found.mode == "unified":
        from ctr_supervisor.cgroups.v2 import Manager as V2

        where = path if path.startswith("/") else join("/", parse_proc_cgroup().get("", "/"), "..", path)
        owner = None
        if any(namespace["type"] == "cgroup" for namespace in linux.get("namespaces") or ()):
            from ctr_supervisor.cgroups import ownership

            owner = ownership.owner(config)
        return V2(
            {"": join(found.mounts[""], where)},
            rootless=rootless_cgroups,
            resources=resources,
            chosen=bool(asked),
            owner=owner,
        )
    from ctr_supervisor.cgroups.v1 import Manager as V1

    return V1(v1_paths(path, found), rootless=rootless_cgroups, resources=resources, chosen=bool(asked))


def v1_paths(path: str, found: Hierarchies) -> "dict[str, str]":
    """The cgroup in each v1 hierarchy, in the order in which they are entered, then in a hybrid host's v2 one."""
    paths: dict[str, str] = {}
    own = {} if path.startswith("/") else parse_proc_cgroup()
    for controller in CONTROLLERS:
        mount = found.mounts.get(controller)
        if mount is not None:
            above = below_mount(own.get(controller, ""), found.roots[controller])
            paths[controller] = join(mount, above, path)
    if "" in found.mounts:
        paths[""] = join(found.mounts[""], path)
    return paths


def state_of(manager: "Manager") -> "dict[str, Any]":
    """What state.json keeps of the cgroups: cgroup_paths, and systemd for those that systemd has made."""
    unit = getattr(manager, "unit", None)
    return {"cgroup_paths": manager.paths, **(unit.state() if unit is not None else {})}


def from_paths(
    paths: "dict[str, str]", *, rootless_cgroups: bool, systemd: "dict[str, Any] | None" = None
) -> "Manager":
    """The cgroups of a container that exists.

    Args:
        paths: what state.json has as cgroup_paths: by controller, "" for v2. Empty if it was made without cgroups.
        rootless_cgroups: as at creation.
        systemd: what state.json has as systemd, if it has that.

    Raises:
        CgroupError: a path is not absolute.
    """
    for path in paths.values():
        if not path.startswith("/") or "\0" in path:
            raise CgroupError(f'state has the cgroup path "{path}", expected an absolute one')
    if systemd:
        from ctr_supervisor.cgroups import systemd as driver

        return driver.from_state(paths, systemd, rootless_cgroups=rootless_cgroups)
    if list(paths) == [""] or (not paths and hierarchies().mode == "unified"):
        from ctr_supervisor.cgroups.v2 import Manager as V2

        return V2(paths, rootless=rootless_cgroups)
    from ctr_supervisor.cgroups.v1 import Manager as V1

    return V1(paths, rootless=rootless_cgroups)
