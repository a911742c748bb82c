"""Statistics of one container's cgroups, as plain data in the shape and the order of keys that runc's `events` prints.

Which keys are left out when they are zero, and which are there always, is part of that shape. What v1 and v2 have in
common is here; `stats_v1` and `stats_v2` know their files.
"""

import errno
import os

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ctr_supervisor.cgroups.files import Directory

UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1

HUGEPAGES = "/sys/kernel/mm/hugepages"

# Not there: the controller is off, the kernel older or newer, the cgroup going; EOPNOTSUPP: psi=0, a threaded cgroup.
MISSING = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)


def read(paths: "dict[str, str]") -> "dict[str, Any]":
    """The statistics of a container's cgroups; what the kernel does not tell is zero.

    Args:
        paths: the cgroup by controller, "" for v2.

    Returns:
        cpu, cpuset, memory, pids, blkio, hugetlb, and rdma if there is such a device. Times are in nanoseconds,
        those of `psi` in percent and microseconds; sizes in bytes. 2^64-1 stands for "no limit" on v2.

    Raises:
        CgroupError: a file is there and can't be read.
    """
    if list(paths) == [""]:
        from ctr_supervisor.cgroups import stats_v2

        return stats_v2.read(paths[""])
    from ctr_supervisor.cgroups import stats_v1

    return stats_v1.read(paths)


def compact(values: "dict[str, Any]", keep: "tuple[str, ...]" = ()) -> "dict[str, Any]":
    """The values without the empty ones.

    Args:
        values: in the order of the output.
        keep: names that stay even when they are zero.
    """
    return {name: value for name, value in values.items() if value or name in keep}


def memory_entry(limit: int, usage: int, peak: int, failures: int) -> "dict[str, int]":
    """One kind of memory."""
    return compact({"limit": limit, "usage": usage, "max": peak, "failcnt": failures}, ("limit", "failcnt"))


def text(directory: "Directory", name: str) -> str:
    """Contents of a file, "" if there is none."""
    try:
        return directory.read(name)
    except CgroupError as error:
        if error.errno in MISSING:
            return ""
        raise


def number(directory: "Directory", name: str, unlimited: int = UINT64_MAX) -> int:
    """The number in a file, 0 if there is no file.

    Args:
        unlimited: what "max" stands for.
    """
    return as_number(text(directory, name), f"{directory.path}/{name}", unlimited)


def as_number(word: str, path: str, unlimited: int = UINT64_MAX) -> int:
    """A word of a cgroup file as a number, never below zero.

    Raises:
        CgroupError: it is none.
    """
    if not word:
        return 0
    if word == "max":
        return unlimited
    try:
        # Counters that the kernel lets go below zero for a moment are no 2^64 minus something.
        return max(int(word), 0)
    except ValueError:
        raise CgroupError(f'expected a number, got "{word}" in', path=path) from None


def table(directory: "Directory", name: str) -> "dict[str, int]":
    """A file with a name and a number on each line; empty if there is none."""
    path = f"{directory.path}/{name}"
    found = {}
    for line in text(directory, name).split("\n"):
        key, space, value = line.partition(" ")
        if space:
            found[key] = as_number(value.strip(), path)
    return found


def numbers_of(listed: str) -> "list[int]":
    """A list of cpus or memory nodes such as "0-2,7" in full."""
    found: list[int] = []
    for part in listed.split(","):
        first, dash, last = part.strip().partition("-")
        if first.isdigit() and (last.isdigit() or not dash):
            found += range(int(first), int(last or first) + 1)
    return found


def hugepage_sizes(top: str = HUGEPAGES) -> "list[str]":
    """Sizes of huge pages that this kernel has, as the names of cgroup files have them ("2MB"), smallest first."""
    sizes = []
    try:
        names = os.listdir(top)
    except OSError:
        return []
    for name in names:
        digits = name.removeprefix("hugepages-").removesuffix("kB")
        if digits.isdigit():
            sizes.append(int(digits))
    return [hugepage_name(size) for size in sorted(sizes)]


def hugepage_name(kibibytes: int) -> str:
    """A page size as the kernel writes it into file names (mem_fmt() of mm/hugetlb_cgroup.c)."""
    for unit in ("KB", "MB"):
        if kibibytes < 1024:
            return f"{kibibytes}{unit}"
        kibibytes //= 1024
    return f"{kibibytes}GB"


def hugetlb_entry(usage: int, peak: int, failures: int) -> "dict[str, int]":
    """Huge pages of one size."""
    return compact({"usage": usage, "max": peak, "failcnt": failures}, ("failcnt",))


def rdma(directory: "Directory") -> "dict[str, Any]":
    """RDMA handles and objects by device: the same files on v1 and v2; empty without such a device."""
    return compact(
        {
            "rdma_limit": _rdma_entries(directory, "rdma.max"),
            "rdma_current": _rdma_entries(directory, "rdma.current"),
        }
    )


def _rdma_entries(directory: "Directory", name: str) -> "list[dict[str, Any]]":
    path = f"{directory.path}/{name}"
    entries = []
    for line in text(directory, name).split("\n"):
        device, *pairs = line.split() or [""]
        if not device:
            continue
        values = dict(pair.partition("=")[::2] for pair in pairs)
        entries.append(
            compact(
                {
                    "device": device,
                    "hca_handles": as_number(values.get("hca_handle", ""), path, UINT32_MAX),
                    "hca_objects": as_number(values.get("hca_object", ""), path, UINT32_MAX),
                }
            )
        )
    return entries


def block_entry(major: str, minor: str, operation: str, value: int) -> "dict[str, Any]":
    """One counter of a block device."""
    return compact({"major": int(major), "minor": int(minor), "op": operation, "value": value})


def in_order(entries: "dict[str, list[dict[str, Any]]]", names: "Iterable[str]") -> "dict[str, Any]":
    """The tables of block devices that have something in them, in the order of the output."""
    return {name: entries[name] for name in names if entries.get(name)}


BLOCK_TABLES = (
    "ioServiceBytesRecursive",
    "ioServicedRecursive",
    "ioQueueRecursive",
    "ioServiceTimeRecursive",
    "ioWaitTimeRecursive",
    "ioMergedRecursive",
    "ioTimeRecursive",
    "sectorsRecursive",
)


def opened(path: str, controller: str = "") -> "Directory | None":
    """The cgroup, None if it is gone; the caller closes it."""
    directory = files.Directory(path, controller)
    try:
        directory.fileno()
    except CgroupError as error:
        if error.errno in MISSING:
            return None
        raise
    return directory
