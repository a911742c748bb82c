"""Limits on cgroup v2: what of `.linux.resources` goes into which file, in which order.

As in v1_resources, 0 counts as not given. Sources: runtime-spec config-linux.md "Control groups"; kernel
admin-guide/cgroup-v2.
"""

import errno

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import conversions, device_rules
from ctr_supervisor.cgroups.v1_resources import RESOURCES, rdma

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import CPU, BlockIO, Resources, WeightDevice
    from ctr_supervisor.cgroups.files import Directory

CPU_PERIOD_DEFAULT = 100000  # microseconds

# In these the kernel can't tell threads of a process apart, so a threaded cgroup has none of them.
DOMAIN_CONTROLLERS = ("memory", "io", "cpu", "hugetlb")


def wanted_controllers(resources: "Resources") -> list[str]:
    """Controllers for which the configuration sets a limit (device rules need none)."""
    cpu_ = resources.get("cpu") or {}
    memory_ = resources.get("memory") or {}
    found = []
    if (resources.get("pids") or {}).get("limit"):
        found.append("pids")
    if any(memory_.get(key) for key in ("limit", "swap", "reservation")):
        found.append("memory")
    if any((resources.get("blockIO") or {}).values()):
        found.append("io")
    if any(cpu_.get(key) for key in ("shares", "quota", "period", "burst")) or cpu_.get("idle") is not None:
        found.append("cpu")
    if cpu_.get("cpus") or cpu_.get("mems"):
        found.append("cpuset")
    if resources.get("hugepageLimits"):
        found.append("hugetlb")
    if resources.get("rdma"):
        found.append("rdma")
    return found


def pids(directory: "Directory", resources: "Resources") -> None:
    """The number of processes: below zero is unlimited."""
    limit = (resources.get("pids") or {}).get("limit") or 0
    if limit:
        directory.write("pids.max", _or_max(limit if limit > 0 else -1), f"{RESOURCES}.pids.limit")


def memory(directory: "Directory", resources: "Resources") -> None:
    """Memory limits; v2 has no swappiness, kernel memory limit or OOM switch, so those are ignored."""
    wanted = resources.get("memory") or {}
    where = f"{RESOURCES}.memory"
    limit, both = wanted.get("limit") or 0, wanted.get("swap") or 0
    if wanted.get("checkBeforeUpdate") and (limit > 0 or both > 0):
        _check_usage(directory, limit, both)
    swap = conversions.swap_limit(both, limit)
    if swap is not None:
        try:
            directory.write("memory.swap.max", _or_max(swap), f"{where}.swap")
        except CgroupError as error:
            # A kernel without swap accounting: no swap is what it has, and unlimited is no limit.
            if error.errno != errno.ENOENT or swap > 0:
                raise
    if limit:
        directory.write("memory.max", _or_max(limit), f"{where}.limit")
    reservation = wanted.get("reservation") or 0
    if reservation:
        directory.write("memory.low", _or_max(reservation), f"{where}.reservation")


def _check_usage(directory: "Directory", limit: int, both: int) -> None:
    # v2 would reclaim and then kill rather than refuse, as v1 does.
    try:
        usage = int(directory.read("memory.current"))
    except CgroupError as error:
        if error.errno != errno.ENOENT:
            raise
        return
    if 0 < both <= usage:
        raise CgroupError(f"rejecting memory+swap limit {both} <= usage {usage}", json_path=f"{RESOURCES}.memory.swap")
    if 0 < limit <= usage:
        raise CgroupError(f"rejecting memory limit {limit} <= usage {usage}", json_path=f"{RESOURCES}.memory.limit")


def io(directory: "Directory", resources: "Resources") -> None:
    """Block I/O weights and limits; v2 has no leaf weights, so those are ignored."""
    wanted = resources.get("blockIO") or {}
    where = f"{RESOURCES}.blockIO"
    weight, devices_ = wanted.get("weight") or 0, wanted.get("weightDevice") or []
    if weight or devices_:
        _io_weights(directory, weight, devices_, where)
    _io_limits(directory, wanted, where)


def _io_weights(directory: "Directory", weight: int, devices_: "list[WeightDevice]", where: str) -> None:
    bfq = directory.has("io.bfq.weight")
    if weight:
        if bfq:
            directory.write("io.bfq.weight", weight, f"{where}.weight")
        else:
            directory.write("io.weight", conversions.io_weight(weight), f"{where}.weight")
    # Before Linux 5.4 the file has one bare number, and no weights of devices.
    by_device = bfq and not directory.read("io.bfq.weight").isdigit()
    for index, device in enumerate(devices_):
        if by_device and device.get("weight"):
            directory.write(
                "io.bfq.weight",
                f"{device['major']}:{device['minor']} {device['weight']}",
                f"{where}.weightDevice[{index}].weight",
            )


def _io_limits(directory: "Directory", wanted: "BlockIO", where: str) -> None:
    for key, devices_, name in (
        ("throttleReadBpsDevice", wanted.get("throttleReadBpsDevice"), "rbps"),
        ("throttleWriteBpsDevice", wanted.get("throttleWriteBpsDevice"), "wbps"),
        ("throttleReadIOPSDevice", wanted.get("throttleReadIOPSDevice"), "riops"),
        ("throttleWriteIOPSDevice", wanted.get("throttleWriteIOPSDevice"), "wiops"),
    ):
        for index, limit in enumerate(devices_ or ()):
            # v1 knows 0 for "no limit any more".
            directory.write(
                "io.max",
                f"{limit['major']}:{limit['minor']} {name}={limit.get('rate') or 'max'}",
                f"{where}.{key}[{index}]",
            )


def cpu(directory: "Directory", resources: "Resources") -> None:
    """CPU weight and bandwidth; v2 has no real-time limits, so those are ignored."""
    wanted = resources.get("cpu") or {}
    where = f"{RESOURCES}.cpu"
    idle = wanted.get("idle")
    # The weight of an idle cgroup can't be changed, so becoming idle comes last and ceasing to be so first.
    if idle == 0:
        directory.write("cpu.idle", 0, f"{where}.idle")
    weight = conversions.cpu_weight(wanted.get("shares") or 0)
    if weight:
        directory.write("cpu.weight", weight, f"{where}.shares")
    _cpu_bandwidth(directory, wanted, where)
    if idle:
        directory.write("cpu.idle", idle, f"{where}.idle")


def _cpu_bandwidth(directory: "Directory", wanted: "CPU", where: str) -> None:
    burst, quota, period = wanted.get("burst"), wanted.get("quota") or 0, wanted.get("period") or 0
    again = False
    if burst is not None:
        try:
            directory.write("cpu.max.burst", burst, f"{where}.burst")
        except CgroupError as error:
            # A burst larger than the old quota is refused; it may fit the new one.
            if error.errno != errno.EINVAL or not quota:
                raise
            again = True
    if quota or period:
        bandwidth = str(quota) if quota > 0 else "max"
        directory.write("cpu.max", f"{bandwidth} {period or CPU_PERIOD_DEFAULT}", f"{where}.quota")
    if again:
        directory.write("cpu.max.burst", burst or 0, f"{where}.burst")


def devices(directory: "Directory", resources: "Resources") -> None:
    """Device rules; there are always some, the default ones."""
    from ctr_supervisor.cgroups import devices_ebpf

    rules = device_rules.from_config(resources.get("devices"))
    devices_ebpf.attach(directory.fileno(), directory.path, rules)


def cpuset(directory: "Directory", resources: "Resources") -> None:
    """Cpus and memory nodes; what is not given is as in the cgroup above."""
    wanted = resources.get("cpu") or {}
    if wanted.get("cpus"):
        directory.write("cpuset.cpus", wanted["cpus"], f"{RESOURCES}.cpu.cpus")
    if wanted.get("mems"):
        directory.write("cpuset.mems", wanted["mems"], f"{RESOURCES}.cpu.mems")


def hugetlb(directory: "Directory", resources: "Resources") -> None:
    """Huge pages in use and, where the kernel counts them (Linux 5.7), reserved."""
    for index, entry in enumerate(resources.get("hugepageLimits") or ()):
        where = f"{RESOURCES}.hugepageLimits[{index}]"
        prefix = f"hugetlb.{entry['pageSize']}"
        directory.write(f"{prefix}.max", entry["limit"], where)
        try:
            directory.write(f"{prefix}.rsvd.max", entry["limit"], where)
        except CgroupError as error:
            if error.errno != errno.ENOENT:
                raise


def unified(directory: "Directory", resources: "Resources") -> None:
    """Files of cgroup v2 by their own names, last, so that they win over what was converted."""
    for name, value in (resources.get("unified") or {}).items():
        where = f'{RESOURCES}.unified["{name}"]'
        if "/" in name:
            raise CgroupError(f'unified resource "{name}" must be a file name (no slashes)', json_path=where)
        try:
            # The kernel takes one line a write: io.max and its like have one for each device.
            directory.write_each(name, value.strip("\n").split("\n"), where)
        except CgroupError as error:
            if error.errno in (errno.ENOENT, errno.EPERM, errno.EACCES):
                _explain_missing(directory, name, where)
            error.message = f'unable to set unified resource "{name}": {error.message}'
            raise


def _explain_missing(directory: "Directory", name: str, where: str) -> None:
    controller, dot, _ = name.partition(".")
    if not dot:
        raise CgroupError(
            f'unified resource "{name}" must be in the form CONTROLLER.PARAMETER', json_path=where
        ) from None
    if controller != "cgroup" and controller not in directory.read("cgroup.controllers").split():
        raise CgroupError(
            f'unified resource "{name}" can\'t be set: controller "{controller}" not available', json_path=where
        ) from None


def _or_max(value: int) -> str:
    return "max" if value == -1 else str(value)


SETTERS = (
    ("pids", pids),
    ("memory", memory),
    ("io", io),
    ("cpu", cpu),
    ("devices", devices),
    ("cpuset", cpuset),
    ("hugetlb", hugetlb),
    ("rdma", rdma),
    ("unified", unified),
)
