"""Statistics on cgroup v1 (kernel admin-guide/cgroup-v1); see `stats`."""

from ctr_supervisor.cgroups import stats
from ctr_supervisor.cgroups.stats import number, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ctr_supervisor.cgroups.files import Directory

# cpuacct.stat counts in USER_HZ, which is 100 wherever the kernel has v1.
NANOSECONDS_PER_TICK = 10_000_000

CPUSET_FLAGS = (
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
)

# Groups of files of which a kernel and its I/O schedulers fill one: the first with something in its first file counts.
_TIMES = (
    ("io_service_time", "ioServiceTimeRecursive"),
    ("io_wait_time", "ioWaitTimeRecursive"),
    ("io_merged", "ioMergedRecursive"),
    ("io_queued", "ioQueueRecursive"),
    ("time", "ioTimeRecursive"),
)
_COUNTS = (("io_serviced", "ioServicedRecursive"), ("io_service_bytes", "ioServiceBytesRecursive"))
_ALL = (("sectors", "sectorsRecursive"), *_TIMES, *_COUNTS)
BLKIO_GROUPS = (
    ("blkio.bfq.", "_recursive", _ALL),  # BFQ with debugging
    ("blkio.bfq.", "_recursive", _COUNTS),
    ("blkio.", "_recursive", _ALL),  # CFQ, before Linux 5.0
    ("blkio.throttle.", "_recursive", _COUNTS),
    ("blkio.throttle.", "", _COUNTS),
)


def read(paths: "dict[str, str]") -> "dict[str, Any]":
    """The statistics of all hierarchies.

    Args:
        paths: the cgroup by controller.
    """
    usage = _of(paths, "cpuacct", cpu_usage)
    found = {
        "cpu": {
            "usage": usage or {"kernel": 0, "user": 0},
            "throttling": _of(paths, "cpu", throttling),
        },
        "cpuset": _of(paths, "cpuset", cpuset) or no_cpuset(),
        "memory": _of(paths, "memory", memory) or no_memory(),
        "pids": _of(paths, "pids", pids),
        "blkio": _of(paths, "blkio", blkio),
        "hugetlb": _of(paths, "hugetlb", hugetlb),
    }
    if "hugetlb" not in paths:
        from ctr_supervisor.cgroups import stats_v2

        # A hybrid host may have given this controller to its v2 hierarchy.
        found["hugetlb"] = _of(paths, "", stats_v2.hugetlb)
    devices = _of(paths, "rdma", stats.rdma)
    if devices:
        found["rdma"] = devices
    return found


def _of(paths: "dict[str, str]", controller: str, reader: "Callable[[Directory], dict[str, Any]]") -> "dict[str, Any]":
    """What a reader finds in the cgroup of a controller, nothing without one."""
    if controller not in paths:
        return {}
    directory = stats.opened(paths[controller], controller)
    if directory is None:
        return {}
    with directory:
        return reader(directory)


def cpu_usage(directory: "Directory") -> "dict[str, Any]":
    """CPU time in all, by CPU, in the kernel and in user space."""
    ticks = table(directory, "cpuacct.stat")
    by_cpu = [stats.as_number(word, directory.path) for word in text(directory, "cpuacct.usage_percpu").split()]
    kernel, user = [], []
    for line in text(directory, "cpuacct.usage_all").split("\n")[1:]:
        words = line.split()
        if len(words) == 3:
            user.append(stats.as_number(words[1], directory.path))
            kernel.append(stats.as_number(words[2], directory.path))
    return stats.compact(
        {
            "total": number(directory, "cpuacct.usage"),
            "percpu": by_cpu,
            "percpu_kernel": kernel,
            "percpu_user": user,
            "kernel": ticks.get("system", 0) * NANOSECONDS_PER_TICK,
            "user": ticks.get("user", 0) * NANOSECONDS_PER_TICK,
        },
        ("kernel", "user"),
    )


def throttling(directory: "Directory") -> "dict[str, int]":
    """How often and how long a CPU quota held the container up."""
    found = table(directory, "cpu.stat")
    return stats.compact(
        {
            "periods": found.get("nr_periods", 0),
            "throttledPeriods": found.get("nr_throttled", 0),
            "throttledTime": found.get("throttled_time", 0),
        }
    )


def cpuset(directory: "Directory") -> "dict[str, Any]":
    """Cpus, memory nodes and what is set about them."""
    found: dict[str, Any] = {
        "cpus": stats.numbers_of(text(directory, "cpuset.cpus")),
        "cpu_exclusive": number(directory, "cpuset.cpu_exclusive"),
        "mems": stats.numbers_of(text(directory, "cpuset.mems")),
    }
    found.update((name, number(directory, f"cpuset.{name}")) for name in CPUSET_FLAGS)
    # The one number that may be negative.
    found["sched_relax_domain_level"] = int(text(directory, "cpuset.sched_relax_domain_level") or 0)
    return {name: value for name, value in found.items() if value != []}


def no_cpuset() -> "dict[str, int]":
    """What `cpuset` has to say of a container without one."""
    return dict.fromkeys(("cpu_exclusive", *CPUSET_FLAGS, "sched_relax_domain_level"), 0)


def memory(directory: "Directory") -> "dict[str, Any]":
    """Memory, memory with swap, kernel memory, TCP buffers, and memory.stat as it is."""
    raw = table(directory, "memory.stat")
    return stats.compact(
        {
            "cache": raw.get("cache", 0),
            "usage": _memory(directory, "memory"),
            "swap": _memory(directory, "memory.memsw"),
            "kernel": _memory(directory, "memory.kmem"),
            "kernelTCP": _memory(directory, "memory.kmem.tcp"),
            "raw": dict(sorted(raw.items())),
        }
    )


def _memory(directory: "Directory", prefix: str) -> "dict[str, int]":
    return stats.memory_entry(
        number(directory, f"{prefix}.limit_in_bytes"),
        number(directory, f"{prefix}.usage_in_bytes"),
        number(directory, f"{prefix}.max_usage_in_bytes"),
        number(directory, f"{prefix}.failcnt"),
    )


def no_memory() -> "dict[str, Any]":
    """What `memory` has to say of a container without a memory cgroup."""
    return {kind: stats.memory_entry(0, 0, 0, 0) for kind in ("usage", "swap", "kernel", "kernelTCP")}


def pids(directory: "Directory") -> "dict[str, int]":
    """The number of processes, and its limit if there is one."""
    return stats.compact(
        {
            "current": number(directory, "pids.current"),
            "limit": number(directory, "pids.max", unlimited=0),
        }
    )


def blkio(directory: "Directory") -> "dict[str, Any]":
    """Counters of block devices."""
    for prefix, suffix, group in BLKIO_GROUPS:
        found: dict[str, list[dict[str, Any]]] = {}
        for name, key in group:
            found[key] = _block_entries(directory, f"{prefix}{name}{suffix}")
            # An empty first file: another scheduler does the counting.
            if len(found) == 1 and not found[key]:
                break
        else:
            return stats.in_order(found, stats.BLOCK_TABLES)
    return {}


def _block_entries(directory: "Directory", name: str) -> "list[dict[str, Any]]":
    path = f"{directory.path}/{name}"
    entries = []
    for line in text(directory, name).split("\n"):
        # "8:0 Read 4096", "8:0 4096", and "Total 4096" at the end.
        words = line.split()
        device = words[0].split(":") if words else []
        if len(device) == 2 and len(words) in (2, 3):
            operation = words[1] if len(words) == 3 else ""
            entries.append(stats.block_entry(device[0], device[1], operation, stats.as_number(words[-1], path)))
    return entries


def hugetlb(directory: "Directory") -> "dict[str, Any]":
    """Huge pages by size; where the kernel counts reservations (Linux 5.7), those."""
    found = {}
    for size in stats.hugepage_sizes():
        for prefix in (f"hugetlb.{size}.rsvd", f"hugetlb.{size}"):
            if directory.has(f"{prefix}.usage_in_bytes"):
                found[size] = stats.hugetlb_entry(
                    number(directory, f"{prefix}.usage_in_bytes"),
                    number(directory, f"{prefix}.max_usage_in_bytes"),
                    number(directory, f"{prefix}.failcnt"),
                )
                break
    return dict(sorted(found.items()))
