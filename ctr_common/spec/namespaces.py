"""The namespaces of a configuration."""

from ctr_common.kernel.constants import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Config, Namespace

# Type in the configuration: (clone flag, name in /proc/PID/ns). In the order to join them: the user namespace first,
# because it brings the capabilities for the others; the mount namespace last, because paths mean something else in it.
NAMESPACES = {
    "user": (CLONE_NEWUSER, "user"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "time": (CLONE_NEWTIME, "time"),
    "mount": (CLONE_NEWNS, "mnt"),
}


def _entries(config: "Config") -> "list[Namespace]":
    return (config.get("linux") or {}).get("namespaces") or []


def has(config: "Config", kind: str) -> bool:
    """Whether the container has a namespace of a type of its own, new or joined; `kind` is a key of NAMESPACES."""
    return any(entry["type"] == kind for entry in _entries(config))


def path_of(config: "Config", kind: str) -> str:
    """Path of the namespace of a type to join; "" for a new one, and for none."""
    for entry in _entries(config):
        if entry["type"] == kind:
            return entry.get("path") or ""
    return ""


def is_new(config: "Config", kind: str) -> bool:
    """Whether a namespace of a type is made for the container."""
    return has(config, kind) and not path_of(config, kind)


def clone_flags(config: "Config") -> int:
    """CLONE_NEW* flags of the namespaces to make; the joined ones are not among them."""
    flags = 0
    for entry in _entries(config):
        if not entry.get("path"):
            flags |= NAMESPACES[entry["type"]][0]
    return flags


def paths_of_process(pid: int) -> "dict[str, str]":
    """Paths in /proc of all namespaces of a process, by type."""
    return {kind: f"/proc/{pid}/ns/{name}" for kind, (_, name) in NAMESPACES.items()}
