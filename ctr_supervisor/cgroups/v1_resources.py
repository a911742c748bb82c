"""Limits on cgroup v1: what of `.linux.resources` goes into which file, in which order.

Each setter touches its directory only if the configuration asks for something of its controller. 0 counts as not
given, as everywhere in the field, where the specification does not give 0 a meaning. Sources: runtime-spec
config-linux.md "Control groups"; kernel admin-guide/cgroup-v1.
"""

import errno
import os

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import device_rules, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Resources
    from ctr_supervisor.cgroups.files import Directory

RESOURCES = ".linux.resources"


# -- cpuset


def prepare_cpuset(path: str, resources: "Resources") -> None:
    """Makes sure that processes can enter a cpuset cgroup: it and all above it have cpus and memory nodes.

    A new one has none. What the configuration does not give comes from the cgroup above; only that, and not
    cgroup.clone_children, gets along with cpuset.cpu_exclusive.

    Raises:
        CgroupError: the configuration asks for cpus that there are not.
    """
    if (resources.get("cpu") or {}).get("cpus") or (resources.get("cpu") or {}).get("mems"):
        # First above: a cgroup has only what its parent has.
        _inherit_cpuset(os.path.dirname(path))
        with files.Directory(path, "cpuset") as directory:
            cpuset(directory, resources)
    _inherit_cpuset(path)


def _inherit_cpuset(path: str) -> None:
    with files.Directory(path, "cpuset") as directory:
        missing = [name for name in ("cpuset.cpus", "cpuset.mems") if not directory.read(name)]
        if not missing:
            return
        above = os.path.dirname(path)
        # A child is a subset of its parent, so the first cgroup with both ends the way up.
        _inherit_cpuset(above)
        with files.Directory(above, "cpuset") as parent:
            for name in missing:
                directory.write(name, parent.read(name))


def cpuset(directory: "Directory", resources: "Resources") -> None:
    """Cpus and memory nodes."""
    cpu = resources.get("cpu") or {}
    if cpu.get("cpus"):
        directory.write("cpuset.cpus", cpu["cpus"], f"{RESOURCES}.cpu.cpus")
    if cpu.get("mems"):
        directory.write("cpuset.mems", cpu["mems"], f"{RESOURCES}.cpu.mems")


# -- devices


def devices(directory: "Directory", resources: "Resources") -> None:
    """Device rules; there are always some, the default ones."""
    target = device_rules.Emulator.of_rules(device_rules.from_config(resources.get("devices")))
    current = device_rules.Emulator.of_list(directory.read("devices.list"))
    where = device_rules.DEVICES_PATH
    run: list[str] = []
    allow: bool | None = None
    for rule in current.transition(target):
        if rule.allow is not allow:
            _write_rules(directory, allow, run, where)
            run, allow = [], rule.allow
        run.append(str(rule))
    _write_rules(directory, allow, run, where)
    after = device_rules.Emulator.of_list(directory.read("devices.list"))
    # A kernel that did something else than what was asked for must not go unnoticed; exceptions of an allowing
    # cgroup can't be read back.
    if after.default_allow != target.default_allow or not (target.default_allow or after == target):
        raise CgroupError("resulting devices cgroup doesn't match the rules:", path=directory.path, json_path=where)


def _write_rules(directory: "Directory", allow: "bool | None", rules: list[str], json_path: str) -> None:
    if rules:
        directory.write_each("devices.allow" if allow else "devices.deny", rules, json_path)


# -- memory


def memory(directory: "Directory", resources: "Resources") -> None:
    """Memory limits. Kernel memory ones are ignored: the kernel has given them up (Linux 5.4 and 5.16)."""
    wanted = resources.get("memory") or {}
    where = f"{RESOURCES}.memory"
    if wanted.get("useHierarchy") and directory.read("memory.use_hierarchy") != "1":
        directory.write("memory.use_hierarchy", 1, f"{where}.useHierarchy")
    _memory_and_swap(directory, wanted.get("limit") or 0, wanted.get("swap") or 0)
    if wanted.get("reservation"):
        directory.write("memory.soft_limit_in_bytes", wanted["reservation"], f"{where}.reservation")
    if wanted.get("disableOOMKiller"):
        directory.write("memory.oom_control", 1, f"{where}.disableOOMKiller")
    swappiness = wanted.get("swappiness")
    # -1 as an unsigned number stands for "not given" with old engines.
    if swappiness is not None and swappiness not in (-1, 0xFFFFFFFFFFFFFFFF):
        if not 0 <= swappiness <= 100:
            raise CgroupError(
                f"invalid memory swappiness value: {swappiness} (valid range is 0-100)",
                json_path=f"{where}.swappiness",
            )
        directory.write("memory.swappiness", swappiness, f"{where}.swappiness")


def _memory_and_swap(directory: "Directory", limit: int, swap: int) -> None:
    # No limit on memory with the old limit on memory and swap would be none in name only.
    if limit == -1 and swap == 0 and directory.has("memory.memsw.limit_in_bytes"):
        swap = -1
    # The kernel refuses any step in which memory > memory+swap: raising starts with swap, lowering with memory.
    swap_first = bool(limit and swap) and (swap == -1 or int(directory.read("memory.limit_in_bytes")) < swap)
    for name in ("swap", "limit") if swap_first else ("limit", "swap"):
        if name == "limit" and limit:
            _memory_limit(directory, limit)
        elif name == "swap" and swap:
            directory.write("memory.memsw.limit_in_bytes", swap, f"{RESOURCES}.memory.swap")


def _memory_limit(directory: "Directory", limit: int) -> None:
    where = f"{RESOURCES}.memory.limit"
    try:
        directory.write("memory.limit_in_bytes", limit, where)
    except CgroupError as error:
        if error.errno != errno.EBUSY:
            raise
        usage = directory.read("memory.usage_in_bytes")
        peak = directory.read("memory.max_usage_in_bytes")
        raise CgroupError(
            f"unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})",
            syscall="write",
            path=directory.path,
            json_path=where,
        ) from None


# -- cpu


def cpu(directory: "Directory", resources: "Resources") -> None:
    """CPU shares and bandwidth."""
    wanted = resources.get("cpu") or {}
    where = f"{RESOURCES}.cpu"
    idle = wanted.get("idle")
    # The shares of an idle cgroup can't be changed, so becoming idle comes last and ceasing to be so first.
    if idle == 0:
        directory.write("cpu.idle", 0, f"{where}.idle")
    shares = wanted.get("shares")
    if shares:
        directory.write("cpu.shares", shares, f"{where}.shares")
        # The kernel takes what is out of its range for the nearest end of it.
        actual = int(directory.read("cpu.shares"))
        if actual != shares:
            end = "maximum" if shares > actual else "minimum"
            raise CgroupError(f"the {end} allowed cpu-shares is {actual}", json_path=f"{where}.shares")
    quota = wanted.get("quota")
    # A new period or burst may not fit the old quota (EINVAL); where the quota changes too, it is tried again after.
    again = []
    period, burst = wanted.get("period"), wanted.get("burst")
    values = []
    if period:
        values.append(("cpu.cfs_period_us", period, f"{where}.period"))
    if burst is not None:
        values.append(("cpu.cfs_burst_us", burst, f"{where}.burst"))
    for name, value, json_path in values:
        try:
            directory.write(name, value, json_path)
        except CgroupError as error:
            if error.errno != errno.EINVAL or not quota:
                raise
            again.append((name, value, json_path))
    if quota:
        directory.write("cpu.cfs_quota_us", quota, f"{where}.quota")
    for name, value, json_path in again:
        directory.write(name, value, json_path)
    if idle:
        directory.write("cpu.idle", idle, f"{where}.idle")
    _realtime(directory, wanted.get("realtimePeriod") or 0, wanted.get("realtimeRuntime") or 0)


def _realtime(directory: "Directory", period: int, runtime: int) -> None:
    again = False
    if period:
        try:
            directory.write("cpu.rt_period_us", period, f"{RESOURCES}.cpu.realtimePeriod")
        except CgroupError as error:
            if error.errno != errno.EINVAL or not runtime:
                raise
            again = True
    if runtime:
        directory.write("cpu.rt_runtime_us", runtime, f"{RESOURCES}.cpu.realtimeRuntime")
    if again:
        directory.write("cpu.rt_period_us", period, f"{RESOURCES}.cpu.realtimePeriod")


# -- the others


def pids(directory: "Directory", resources: "Resources") -> None:
    """The number of processes: below zero is unlimited."""
    limit = (resources.get("pids") or {}).get("limit") or 0
    if limit:
        directory.write("pids.max", limit if limit > 0 else "max", f"{RESOURCES}.pids.limit")


def blkio(directory: "Directory", resources: "Resources") -> None:
    """Block I/O weights and limits."""
    wanted = resources.get("blockIO") or {}
    where = f"{RESOURCES}.blockIO"
    prefix = "blkio"
    if wanted.get("weight") or wanted.get("weightDevice"):
        # With the BFQ scheduler in place of CFQ, which Linux 5.0 removed.
        prefix = "blkio" if directory.has("blkio.weight") else "blkio.bfq"
    if wanted.get("weight"):
        directory.write(f"{prefix}.weight", wanted["weight"], f"{where}.weight")
    if wanted.get("leafWeight"):
        directory.write("blkio.leaf_weight", wanted["leafWeight"], f"{where}.leafWeight")
    for index, device in enumerate(wanted.get("weightDevice") or ()):
        number = f"{device['major']}:{device['minor']}"
        if device.get("weight"):
            directory.write(
                f"{prefix}.weight_device", f"{number} {device['weight']}", f"{where}.weightDevice[{index}].weight"
            )
        if device.get("leafWeight"):
            directory.write(
                "blkio.leaf_weight_device",
                f"{number} {device['leafWeight']}",
                f"{where}.weightDevice[{index}].leafWeight",
            )
    for key, devices_, name in (
        ("throttleReadBpsDevice", wanted.get("throttleReadBpsDevice"), "read_bps"),
        ("throttleWriteBpsDevice", wanted.get("throttleWriteBpsDevice"), "write_bps"),
        ("throttleReadIOPSDevice", wanted.get("throttleReadIOPSDevice"), "read_iops"),
        ("throttleWriteIOPSDevice", wanted.get("throttleWriteIOPSDevice"), "write_iops"),
    ):
        for index, limit in enumerate(devices_ or ()):
            directory.write(
                f"blkio.throttle.{name}_device",
                f"{limit['major']}:{limit['minor']} {limit.get('rate', 0)}",
                f"{where}.{key}[{index}]",
            )


def hugetlb(directory: "Directory", resources: "Resources") -> None:
    """Huge pages in use and, where the kernel counts them (Linux 5.7), reserved."""
    for index, entry in enumerate(resources.get("hugepageLimits") or ()):
        where = f"{RESOURCES}.hugepageLimits[{index}]"
        prefix = f"hugetlb.{entry['pageSize']}"
        directory.write(f"{prefix}.limit_in_bytes", entry["limit"], where)
        try:
            directory.write(f"{prefix}.rsvd.limit_in_bytes", entry["limit"], where)
        except CgroupError as error:
            if error.errno != errno.ENOENT:
                raise


def net_cls(directory: "Directory", resources: "Resources") -> None:
    """The class of packets."""
    class_id = (resources.get("network") or {}).get("classID")
    if class_id:
        directory.write("net_cls.classid", class_id, f"{RESOURCES}.network.classID")


def net_prio(directory: "Directory", resources: "Resources") -> None:
    """The priority of packets by interface."""
    for index, entry in enumerate((resources.get("network") or {}).get("priorities") or ()):
        directory.write(
            "net_prio.ifpriomap",
            f"{entry['name']} {entry['priority']}",
            f"{RESOURCES}.network.priorities[{index}]",
        )


def rdma(directory: "Directory", resources: "Resources") -> None:
    """RDMA handles and objects; the same file on v1 and v2."""
    for device, limits in (resources.get("rdma") or {}).items():
        words = [device]
        if limits.get("hcaHandles") is not None:
            words.append(f"hca_handle={limits['hcaHandles']}")
        if limits.get("hcaObjects") is not None:
            words.append(f"hca_object={limits['hcaObjects']}")
        directory.write("rdma.max", " ".join(words), f"{RESOURCES}.rdma.{device}")


SETTERS = (
    ("cpuset", cpuset),
    ("devices", devices),
    ("memory", memory),
    ("cpu", cpu),
    ("pids", pids),
    ("blkio", blkio),
    ("hugetlb", hugetlb),
    ("net_cls", net_cls),
    ("net_prio", net_prio),
    ("rdma", rdma),
)
