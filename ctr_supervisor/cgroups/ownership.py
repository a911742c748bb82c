"""Whom the container's cgroup v2 belongs to (runtime-spec, config-linux.md, "Cgroup ownership")."""

import os

from ctr_supervisor.cgroups import files
from ctr_supervisor.cgroups.hierarchies import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Config

# cgroup v2 files that belong to whom a cgroup is delegated, for kernels that don't say which (cgroups(7)).
DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
DELEGATED_LIST = "/sys/kernel/cgroup/delegate"


def owner(config: "Config") -> "int | None":
    """The uid on the host to which the container's cgroup is handed over.

    That is the process's user if the container can use the cgroup: it has a cgroup namespace of its own, and the
    cgroups mounted for writing (runtime-spec, config-linux.md, "Cgroup ownership").
    """
    linux = config.get("linux") or {}
    kinds = {space["type"]: space for space in linux.get("namespaces") or ()}
    if "cgroup" not in kinds or kinds["cgroup"].get("path"):
        return None
    if not any(
        clean(mount["destination"]) == "/sys/fs/cgroup"
        and "cgroup" in (mount.get("type"), mount.get("source"))
        and "ro" not in (mount.get("options") or ())
        for mount in config.get("mounts") or ()
    ):
        return None
    uid = ((config.get("process") or {}).get("user") or {}).get("uid", 0)
    if "user" not in kinds:
        return uid
    for mapping in linux.get("uidMappings") or ():
        inside = uid - mapping["containerID"]
        if 0 <= inside < mapping["size"]:
            return int(mapping["hostID"]) + inside
    return None


def hand_over(path: str, owner: int, *, rootless: bool) -> None:
    """Gives a cgroup to the container's user.

    Args:
        path: the cgroup.
        owner: uid on the host.
        rootless: what may not be given stays ours.

    Raises:
        CgroupError: it could not be given.
    """
    try:
        with open(DELEGATED_LIST, encoding="ascii") as lines:
            names = [line for line in lines.read().split() if "/" not in line]
    except OSError:
        names = list(DELEGATED)
    with files.Directory(path) as directory:
        for name in (".", *names):
            try:
                os.chown(name, owner, -1, dir_fd=directory.fileno(), follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                if not (rootless and error.errno in files.DENIED):
                    raise files.failure(error, "chown", f"{path}/{name}") from None
