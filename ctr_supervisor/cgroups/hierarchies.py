"""Which cgroup hierarchies this host has, where they are mounted, and where a process is in them.

Everything is read once in a process: /proc/self/mountinfo, /proc/self/cgroup (cgroups(7), proc(5)).
"""

import os
from posixpath import normpath

from ctr_common.errors import CgroupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CGROUP2_SUPER_MAGIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Mode = Literal["legacy", "hybrid", "unified"]

CGROUP_ROOT = "/sys/fs/cgroup"
HYBRID_ROOT = "/sys/fs/cgroup/unified"

# In the order in which containers enter and set them: cpuset first, since a process can't enter one without cpus;
# the device rules next, before anything runs.
CONTROLLERS = (
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "misc",
    "name=systemd",
)
_NAMES = frozenset(name.encode() for name in CONTROLLERS)


class Hierarchies:
    """The cgroup hierarchies of this host.

    Attributes:
        mode: "legacy" (v1), "hybrid" (v1, and v2 mounted at /sys/fs/cgroup/unified) or "unified" (v2).
        mounts: mount point of each v1 controller ("name=systemd" included); "" for v2.
        roots: for each of those, which cgroup the mount shows as its top; "/" unless it is a bind mount.
    """

    __slots__ = ("mode", "mounts", "roots")

    def __init__(self, mode: "Mode", mounts: "dict[str, str]", roots: "dict[str, str]") -> None:
        self.mode = mode
        self.mounts = mounts
        self.roots = roots


_found: "Hierarchies | None" = None


def hierarchies() -> Hierarchies:
    """The hierarchies of this host, as this process first saw them."""
    global _found
    if _found is None:
        _found = _look()
    return _found


def forget() -> None:
    """Has the next one look again: for a process that lives longer than one command."""
    global _found
    _found = None


def _look() -> Hierarchies:
    try:
        if _is_cgroup2(CGROUP_ROOT):
            return Hierarchies("unified", {"": CGROUP_ROOT}, {"": "/"})
    except OSError:
        return Hierarchies("legacy", {}, {})
    found = parse_mountinfo(_read("/proc/self/mountinfo"))
    if found.mode == "hybrid" and not _is_there(HYBRID_ROOT):
        # Below the cgroup mount of a container that has the host's whole /sys.
        del found.mounts[""], found.roots[""]
        found.mode = "legacy"
    return found


def _is_cgroup2(path: str) -> bool:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _kernel.fstatfs_type(fd) == CGROUP2_SUPER_MAGIC
    finally:
        os.close(fd)


def _is_there(path: str) -> bool:
    try:
        return _is_cgroup2(path)
    except OSError:
        return False


def parse_mountinfo(data: bytes) -> Hierarchies:
    """The v1 or hybrid hierarchies of a mountinfo text (proc_pid_mountinfo(5)).

    Where a controller is mounted more than once, the mount below /sys/fs/cgroup counts, else the first.
    """
    mounts: dict[str, str] = {}
    roots: dict[str, str] = {}
    hybrid = False
    for line in data.split(b"\n"):
        head, separator, tail = line.partition(b" - cgroup")
        if not separator:
            continue
        fields = head.split(b" ")
        point = _unescape(fields[4])
        if tail.startswith(b"2 "):
            names = [""] if point == HYBRID_ROOT else []
            hybrid = hybrid or bool(names)
        elif tail.startswith(b" "):
            names = [name.decode() for name in tail.rsplit(b" ", 1)[-1].split(b",") if name in _NAMES]
        else:
            continue
        for name in names:
            if name not in mounts or (_is_default(point) and not _is_default(mounts[name])):
                mounts[name] = point
                roots[name] = _unescape(fields[3])
    return Hierarchies("hybrid" if hybrid else "legacy", mounts, roots)


def _is_default(point: str) -> bool:
    return point.startswith(CGROUP_ROOT + "/")


def _unescape(field: bytes) -> str:
    if b"\\" in field:
        for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
            field = field.replace(code, char)
    return os.fsdecode(field)


def parse_proc_cgroup(pid: "int | str" = "self") -> "dict[str, str]":
    """The cgroup of a process in each hierarchy, by controller; "" is v2.

    Args:
        pid: process number or "self".

    Raises:
        OSError: there is no such process.
    """
    return parse_cgroup_file(_read(f"/proc/{pid}/cgroup"))


def parse_cgroup_file(data: bytes) -> "dict[str, str]":
    """The contents of a /proc/PID/cgroup, by controller (cgroups(7))."""
    found: dict[str, str] = {}
    for line in os.fsdecode(data).split("\n"):
        fields = line.split(":", 2)
        if len(fields) == 3:
            for name in fields[1].split(","):
                found[name] = fields[2]
    return found


def clean(path: str) -> str:
    """A cgroup path that stays inside its hierarchy, however many `..` it has; absolute if it was."""
    if "\0" in path:
        raise CgroupError("NUL byte in the path", json_path=".linux.cgroupsPath")
    cleaned = normpath("/" + path.lstrip("/"))
    return cleaned if path.startswith("/") else cleaned[1:]


def join(top: str, *parts: str) -> str:
    """A path below `top`, which is clean already; parts count as relative."""
    return normpath("/".join((top, *parts)))


def below_mount(cgroup: str, root: str) -> str:
    """Path below a mount point of a cgroup that /proc/PID/cgroup tells.

    Args:
        cgroup: from the top of the hierarchy.
        root: what the mount shows as its top.
    """
    # In a bind mount of a part of the hierarchy, as in a container without a cgroup namespace.
    if root != "/" and (cgroup == root or cgroup.startswith(root + "/")):
        return cgroup[len(root) :] or "/"
    return cgroup


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)
