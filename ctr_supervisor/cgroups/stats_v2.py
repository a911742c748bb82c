"""Statistics on cgroup v2 (kernel admin-guide/cgroup-v2), told in the terms of v1 as runc does; see `stats`."""

from ctr_supervisor.cgroups import stats, stats_v1
from ctr_supervisor.cgroups.stats import UINT64_MAX, number, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_supervisor.cgroups.files import Directory

NANOSECONDS = 1000  # v2 counts microseconds

# Counters of io.stat that have a place in the tables of v1.
IO_COUNTERS = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def read(path: str) -> "dict[str, Any]":
    """The statistics of a cgroup."""
    directory = stats.opened(path)
    if directory is None:
        return {
            "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
            "cpuset": stats_v1.no_cpuset(),
            "memory": stats_v1.no_memory(),
            "pids": {},
            "blkio": {},
            "hugetlb": {},
        }
    with directory:
        found = {
            "cpu": cpu(directory),
            "cpuset": cpuset(directory),
            "memory": memory(directory),
            "pids": pids(directory),
            "blkio": io(directory),
            "hugetlb": hugetlb(directory),
        }
        devices = stats.rdma(directory)
        if devices:
            found["rdma"] = devices
        return found


def cpu(directory: "Directory") -> "dict[str, Any]":
    """CPU time and throttling; cpu.stat is there without the controller, too."""
    found = table(directory, "cpu.stat")
    times = {name: found.get(name, 0) * NANOSECONDS for name in ("usage_usec", "user_usec", "system_usec")}
    return _with_pressure(
        {
            "usage": stats.compact(
                {"total": times["usage_usec"], "kernel": times["system_usec"], "user": times["user_usec"]},
                ("kernel", "user"),
            ),
            "throttling": stats.compact(
                {
                    "periods": found.get("nr_periods", 0),
                    "throttledPeriods": found.get("nr_throttled", 0),
                    "throttledTime": found.get("throttled_usec", 0) * NANOSECONDS,
                }
            ),
        },
        directory,
        "cpu.pressure",
    )


def cpuset(directory: "Directory") -> "dict[str, Any]":
    """Cpus and memory nodes that the container can use; v2 has no others of v1's settings."""
    cpus = stats.numbers_of(text(directory, "cpuset.cpus.effective"))
    mems = stats.numbers_of(text(directory, "cpuset.mems.effective"))
    found: dict[str, Any] = {"cpus": cpus, "cpu_exclusive": 0, "mems": mems, **stats_v1.no_cpuset()}
    return {name: value for name, value in found.items() if value != []}


def memory(directory: "Directory") -> "dict[str, Any]":
    """Memory; swap is told together with it, as on v1."""
    raw = table(directory, "memory.stat")
    usage, limit = number(directory, "memory.current"), number(directory, "memory.max")
    swap = stats.memory_entry(0, 0, 0, 0)
    if directory.has("memory.swap.current"):
        swap_limit = number(directory, "memory.swap.max")
        swap = stats.memory_entry(
            UINT64_MAX if swap_limit == UINT64_MAX else min(swap_limit + limit, UINT64_MAX),
            number(directory, "memory.swap.current") + usage,
            number(directory, "memory.swap.peak"),
            0,
        )
    found = stats.compact(
        {
            "cache": raw.get("file", 0),
            "usage": stats.memory_entry(limit, usage, number(directory, "memory.peak"), 0),
            "swap": swap,
            "kernel": stats.memory_entry(0, 0, 0, 0),
            "kernelTCP": stats.memory_entry(0, 0, 0, 0),
            "raw": dict(sorted(raw.items())),
        }
    )
    return _with_pressure(found, directory, "memory.pressure")


def pids(directory: "Directory") -> "dict[str, int]":
    """The number of processes, and its limit if there is one."""
    if directory.has("pids.current"):
        return stats_v1.pids(directory)
    # Without the controller those of the cgroups below are not counted; a threaded cgroup lists threads only.
    listed = text(directory, "cgroup.procs") or text(directory, "cgroup.threads")
    return stats.compact({"current": len(listed.split())})


def io(directory: "Directory") -> "dict[str, Any]":
    """Counters of block devices."""
    path = f"{directory.path}/io.stat"
    found: dict[str, list[dict[str, Any]]] = {}
    for line in text(directory, "io.stat").split("\n"):
        # "8:0 rbytes=4096 wbytes=0 …"; a device that saw nothing may stand alone on its line.
        words = line.split()
        device = words[0].split(":") if words else []
        if len(device) != 2:
            continue
        for word in words[1:]:
            name, _, value = word.partition("=")
            if name in IO_COUNTERS:
                key, operation = IO_COUNTERS[name]
                entry = stats.block_entry(device[0], device[1], operation, stats.as_number(value, path))
                found.setdefault(key, []).append(entry)
    return _with_pressure(stats.in_order(found, stats.BLOCK_TABLES), directory, "io.pressure")


def hugetlb(directory: "Directory") -> "dict[str, Any]":
    """Huge pages by size; where the kernel counts reservations (Linux 5.7), those."""
    found = {}
    for size in stats.hugepage_sizes():
        if not directory.has(f"hugetlb.{size}.current"):
            continue
        reserved = f"hugetlb.{size}.rsvd.current"
        usage = number(directory, reserved if directory.has(reserved) else f"hugetlb.{size}.current")
        failures = table(directory, f"hugetlb.{size}.events").get("max", 0)
        found[size] = stats.hugetlb_entry(usage, 0, failures)
    return dict(sorted(found.items()))


def _with_pressure(found: "dict[str, Any]", directory: "Directory", name: str) -> "dict[str, Any]":
    """Adds `psi` where the kernel has it (Linux 4.20 with CONFIG_PSI; kernel accounting/psi)."""
    stalls = pressure(text(directory, name))
    if stalls:
        found["psi"] = stalls
    return found


def pressure(contents: str) -> "dict[str, Any]":
    """A pressure file as data; empty if there is none.

    Returns:
        `some` and `full`: percent of the time in 10, 60 and 300 seconds, and the microseconds in all.
    """
    found: dict[str, Any] = {}
    for line in contents.split("\n"):
        kind, *pairs = line.split() or [""]
        if kind in ("some", "full"):
            values = dict(pair.partition("=")[::2] for pair in pairs)
            found[kind] = {
                "avg10": _percent(values.get("avg10")),
                "avg60": _percent(values.get("avg60")),
                "avg300": _percent(values.get("avg300")),
                "total": stats.as_number(values.get("total", ""), "total"),
            }
    if found:
        # The cpu.pressure of Linux before 5.13 has no such line.
        found.setdefault("full", {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0})
    return found


def _percent(word: "str | None") -> "int | float":
    value = float(word or 0)
    # Go writes a whole number without a point.
    return int(value) if value.is_integer() else value
