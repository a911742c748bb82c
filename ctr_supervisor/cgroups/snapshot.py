"""What the limits of a container's cgroups were, to put them back when an update fails half-way.

It is taken from the kernel, not from the configuration: that knows only the limits that somebody asked for, and an
update may change others.
"""

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files, stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import Resources

V1_FILES = {
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": (
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.oom_control",
        "memory.swappiness",
    ),
    "cpu": (
        "cpu.idle",
        "cpu.shares",
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
        "cpu.cfs_burst_us",
        "cpu.rt_period_us",
        "cpu.rt_runtime_us",
    ),
    "pids": ("pids.max",),
    "blkio": (
        "blkio.weight",
        "blkio.bfq.weight",
        "blkio.leaf_weight",
        "blkio.weight_device",
        "blkio.bfq.weight_device",
        "blkio.leaf_weight_device",
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
    ),
    "net_cls": ("net_cls.classid",),
    "net_prio": ("net_prio.ifpriomap",),
    "rdma": ("rdma.max",),
}
V2_FILES = (
    "pids.max",
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "io.weight",
    "io.bfq.weight",
    "io.max",
    "cpu.idle",
    "cpu.weight",
    "cpu.max",
    "cpu.max.burst",
    "cpuset.cpus",
    "cpuset.mems",
    "rdma.max",
)

# Files with a line for each device, and what to write behind a device to be rid of its line.
RESETS = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "rdma.max": "hca_handle=max hca_object=max",
    "net_prio.ifpriomap": "0",
    "blkio.weight_device": "0",
    "blkio.bfq.weight_device": "default",
    "blkio.leaf_weight_device": "0",
    "blkio.throttle.read_bps_device": "0",
    "blkio.throttle.write_bps_device": "0",
    "blkio.throttle.read_iops_device": "0",
    "blkio.throttle.write_iops_device": "0",
}


class Snapshot:
    """The contents of the files that an update may write to.

    Args:
        paths: the cgroup by controller, "" for v2.
        update: what will be set; it names files of its own (huge pages, `unified`).
    """

    __slots__ = ("_contents", "_paths")

    def __init__(self, paths: "dict[str, str]", update: "Resources") -> None:
        self._paths = {path: controller for controller, path in paths.items()}
        self._contents: dict[tuple[str, str], str] = {}
        sizes = [entry["pageSize"] for entry in update.get("hugepageLimits") or ()]
        if list(paths) == [""]:
            pages = [f"hugetlb.{size}{kind}.max" for size in sizes for kind in ("", ".rsvd")]
            self._take(paths[""], (*V2_FILES, *pages, *(update.get("unified") or {})))
            return
        for controller, names in V1_FILES.items():
            if controller in paths:
                self._take(paths[controller], names)
        if "hugetlb" in paths:
            pages = [f"hugetlb.{size}{kind}.limit_in_bytes" for size in sizes for kind in ("", ".rsvd")]
            self._take(paths["hugetlb"], pages)

    def _take(self, path: str, names: "Any") -> None:
        directory = stats.opened(path)
        if directory is None:
            return
        with directory:
            for name in names:
                if "/" not in name and directory.has(name):
                    self._contents[path, name] = _read(directory, name)

    def restore(self) -> None:
        """Puts back what has changed since.

        The order is found by trying: what the kernel refuses because of another value (memory and swap, period and
        quota) is written again after that one.

        Raises:
            CgroupError: what could not be put back; the rest is.
        """
        left = dict(self._contents)
        while left:
            failures: list[CgroupError] = []
            done = []
            for (path, name), contents in left.items():
                try:
                    with files.Directory(path, self._paths[path]) as directory:
                        for value in _changes(name, contents, _read(directory, name)):
                            directory.write(name, value)
                    done.append((path, name))
                except CgroupError as error:
                    failures.append(error)
            for key in done:
                del left[key]
            if failures and not done:
                raise failures[0]


def _read(directory: files.Directory, name: str) -> str:
    contents = stats.text(directory, name)
    if name == "memory.oom_control":
        # A table, of which the first entry is what is written.
        return contents.partition("\n")[0].rpartition(" ")[2]
    return contents


def _changes(name: str, old: str, current: str) -> "list[str]":
    """What has to be written to a file so that it is as it was."""
    if old == current:
        return []
    if name not in RESETS:
        # The kernel does not see a write of nothing.
        return [old or "\n"]
    before, now = _lines(old), _lines(current)
    added = [f"{device} {RESETS[name]}" for device in now if device not in before]
    return added + [f"{device} {value}".rstrip() for device, value in before.items() if now.get(device) != value]


def _lines(contents: str) -> "dict[str, str]":
    return {device: value for device, _, value in (line.partition(" ") for line in contents.split("\n")) if device}
