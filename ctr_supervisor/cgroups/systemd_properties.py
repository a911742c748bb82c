"""Limits as systemd's unit properties: what of `.linux.resources` has one, of which type, in which unit.

systemd writes its own idea of a unit's limits again whenever it reloads, so what it can express it is told; the files
are written after it, and have the exact values. Each property is `(name, (D-Bus signature, value))`.
Sources: org.freedesktop.systemd1(5), systemd.resource-control(5).
"""

import os

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import conversions, device_rules
from ctr_supervisor.cgroups.device_rules import ANY, DEVICES_PATH
from ctr_supervisor.cgroups.v1_resources import RESOURCES
from ctr_supervisor.cgroups.v2_resources import CPU_PERIOD_DEFAULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ctr_common.spec.types import Resources
    from ctr_supervisor.cgroups.device_rules import Rule

    Property = tuple[str, tuple[str, Any]]
    # Number of systemd's release; asked for only where something depends on it.
    Version = Callable[[], int]

INFINITY = 0xFFFFFFFFFFFFFFFF  # CGROUP_LIMIT_MAX, USEC_INFINITY

# The release that brought each of them (systemd's NEWS).
DEVICE_NUMBERS_SINCE = 240
QUOTA_PERIOD_SINCE = 242
CPUSET_SINCE = 244
CPU_IDLE_SINCE = 252

SECOND = 1000000  # microseconds
PERCENT = 10000  # microseconds in a hundredth of a second: systemd keeps quotas as whole percentages
CPUSET_MAX = 65535  # far above any kernel's number of CPUs or memory nodes

DEVICE_GROUPS = {"b": "block-", "c": "char-"}
DEVICE_LINKS = {"b": "/dev/block", "c": "/dev/char"}

_UNIFIED_LIMITS = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}


def unsigned(name: str, value: int) -> "Property":
    """A limit; below zero is none."""
    return name, ("t", value if value >= 0 else INFINITY)


def v1(resources: "Resources", version: "Version", *, skip_devices: bool) -> "list[Property]":
    """The properties for limits on cgroup v1.

    Raises:
        CgroupError: systemd or v1 could not have such a limit.
    """
    found = [] if skip_devices else devices_v1(resources, version)
    limit = (resources.get("memory") or {}).get("limit") or 0
    if limit:
        found.append(unsigned("MemoryLimit", limit))
    shares = (resources.get("cpu") or {}).get("shares") or 0
    if shares:
        found.append(unsigned("CPUShares", shares))
    found += cpu_quota(resources, version)
    weight = (resources.get("blockIO") or {}).get("weight") or 0
    if weight:
        found.append(unsigned("BlockIOWeight", weight))
    return found + tasks(resources) + cpuset(resources, version)


def v2(resources: "Resources", version: "Version", *, skip_devices: bool) -> "list[Property]":
    """The properties for limits on cgroup v2.

    Raises:
        CgroupError: systemd could not have such a limit.
    """
    found = [] if skip_devices else devices_v2(resources, version)
    memory = resources.get("memory") or {}
    limit, reservation = memory.get("limit") or 0, memory.get("reservation") or 0
    if limit:
        found.append(unsigned("MemoryMax", limit))
    if reservation:
        found.append(unsigned("MemoryLow", reservation))
    swap = conversions.swap_limit(memory.get("swap") or 0, limit)
    if swap is not None:
        found.append(unsigned("MemorySwapMax", swap))
    cpu = resources.get("cpu") or {}
    weight = conversions.cpu_weight(cpu.get("shares") or 0)
    # A weight of 0 is systemd's word for cpu.idle; it has none for not idle but a weight.
    if cpu.get("idle") == 1 and version() >= CPU_IDLE_SINCE:
        weight = 0
        found.append(unsigned("CPUWeight", 0))
    if weight:
        found.append(unsigned("CPUWeight", weight))
    found += cpu_quota(resources, version)
    io_weight = conversions.io_weight((resources.get("blockIO") or {}).get("weight") or 0)
    if io_weight:
        found.append(unsigned("IOWeight", io_weight))
    return found + tasks(resources) + cpuset(resources, version) + unified(resources.get("unified") or {}, version)


def tasks(resources: "Resources") -> "list[Property]":
    """The number of processes."""
    limit = (resources.get("pids") or {}).get("limit") or 0
    return [unsigned("TasksMax", limit)] if limit else []


# -- cpu


def cpu_quota(resources: "Resources", version: "Version") -> "list[Property]":
    """CPU bandwidth, of `.linux.resources.cpu`."""
    cpu = resources.get("cpu") or {}
    return _bandwidth(cpu.get("quota") or 0, cpu.get("period") or 0, version)


def _bandwidth(quota: int, period: int, version: "Version") -> "list[Property]":
    found = []
    if period and version() >= QUOTA_PERIOD_SINCE:
        found.append(unsigned("CPUQuotaPeriodUSec", period))
    if quota or period:
        found.append(unsigned("CPUQuotaPerSecUSec", per_second(quota, period) if quota > 0 else INFINITY))
    return found


def per_second(quota: int, period: int) -> int:
    """Microseconds of CPU time in a second, up to the next whole percent: systemd knows nothing between."""
    exact = quota * SECOND // (period or CPU_PERIOD_DEFAULT)
    return -(-exact // PERCENT) * PERCENT


def with_rounded_quota(resources: "Resources") -> "Resources":
    """The same limits with the CPU quota that systemd makes of the one that is asked for.

    Otherwise the files and systemd, which writes its own value again on a reload, would disagree.
    """
    cpu = resources.get("cpu") or {}
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota <= 0:
        return resources
    rounded = per_second(quota, period) * (period or CPU_PERIOD_DEFAULT) // SECOND
    changed = resources.copy()
    changed["cpu"] = cpu.copy()
    changed["cpu"]["quota"] = rounded
    return changed


def cpuset(resources: "Resources", version: "Version") -> "list[Property]":
    """CPUs and memory nodes, of `.linux.resources.cpu`."""
    cpu = resources.get("cpu") or {}
    found: list[Property] = []
    for text, key, name in (
        (cpu.get("cpus"), "cpus", "AllowedCPUs"),
        (cpu.get("mems"), "mems", "AllowedMemoryNodes"),
    ):
        # Parsed also for an old systemd, so that a mistake is one everywhere.
        if text:
            bits = ("ay", cpuset_bits(text, f"{RESOURCES}.cpu.{key}"))
            if version() >= CPUSET_SINCE:
                found.append((name, bits))
    return found


def cpuset_bits(text: str, json_path: str) -> bytes:
    """The bit mask that systemd takes for a list such as `0,2-3`: bit n of the bytes is number n.

    Raises:
        CgroupError: it is no such list, or an empty one.
    """
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first and not dash:
            continue
        words = (first, last) if dash else (first, first)
        if not all(word.isascii() and word.isdigit() for word in words):
            raise CgroupError(f'"{text}" is not a list of numbers and ranges', json_path=json_path)
        low, high = int(words[0]), int(words[1])
        if low > high or high > CPUSET_MAX:
            raise CgroupError(f'invalid range "{part.strip()}"', json_path=json_path)
        mask |= (1 << high + 1) - (1 << low)
    if not mask:
        raise CgroupError(f'"{text}" names no number', json_path=json_path)
    return mask.to_bytes(mask.bit_length() + 7 >> 3, "little")


# -- unified


def unified(files: "dict[str, str]", version: "Version") -> "list[Property]":
    """Properties for files of cgroup v2 that systemd knows by another name; it is not told of the others.

    Raises:
        CgroupError: a name can't be a file's, or a value is not of the file's form.
    """
    found: list[Property] = []
    # cpu.idle says what cpu.weight would only repeat or contradict.
    idle = files.get("cpu.idle", "").strip() == "1"
    for name, text in files.items():
        where = f'{RESOURCES}.unified["{name}"]'
        value = text.strip()
        if "/" in name:
            raise CgroupError(f'unified resource "{name}" must be a file name (no slashes)', json_path=where)
        if name.find(".") <= 0:
            raise CgroupError(f'unified resource "{name}" must be in the form CONTROLLER.PARAMETER', json_path=where)
        if name in _UNIFIED_LIMITS:
            found.append(unsigned(_UNIFIED_LIMITS[name], INFINITY if value == "max" else _integer(value, name, where)))
        elif name == "cpu.idle":
            if idle and version() >= CPU_IDLE_SINCE:
                found.append(unsigned("CPUWeight", 0))
        elif name == "cpu.weight":
            weight = _integer(value, name, where)
            if not idle or version() < CPU_IDLE_SINCE:
                found.append(unsigned("CPUWeight", weight))
        elif name == "cpu.max":
            words = value.split()
            if len(words) not in (1, 2):
                raise CgroupError(f'unified resource "{name}" value invalid: "{value}"', json_path=where)
            quota = 0 if words[0] == "max" else _integer(words[0], name, where)
            period = _integer(words[1], name, where) if len(words) == 2 else CPU_PERIOD_DEFAULT
            found += _bandwidth(quota, period, version)
        elif name in ("cpuset.cpus", "cpuset.mems"):
            bits = cpuset_bits(value, where)
            if version() >= CPUSET_SINCE:
                found.append(("AllowedCPUs" if name == "cpuset.cpus" else "AllowedMemoryNodes", ("ay", bits)))
    return found


def _integer(text: str, name: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > INFINITY:
        raise CgroupError(
            f'unified resource "{name}" value conversion error: "{text}" is not a number', json_path=where
        )
    return int(text)


# -- devices


def devices_v1(resources: "Resources", version: "Version") -> "list[Property]":
    """Device rules on v1, where systemd's rules and ours are the same list in the kernel.

    systemd has lists of what is allowed only. Rules that deny some of everything become "deny all" here, never "allow
    all": the files say the rest, and a reload of systemd must not open anything.

    Raises:
        CgroupError: v1 can't express a rule.
    """
    rules = device_rules.from_config(resources.get("devices"))
    state = device_rules.Emulator.of_rules(rules)
    if state.default_allow:
        return everything_allowed() if not state.exceptions else allowed([])
    return allowed(device_list(device_rules.Emulator().transition(state), version))


def devices_v2(resources: "Resources", version: "Version") -> "list[Property]":
    """Device rules on v2, where systemd's program and ours both have to say yes if both are attached.

    Ours is exact, so where systemd can't list what the rules allow it is told to leave devices alone: a list that is
    too short would take devices away at its next reload.
    """
    rules = device_rules.from_config(resources.get("devices"))
    try:
        state = device_rules.Emulator.of_rules(rules)
    except CgroupError as error:
        # Holes in wider rules, which only v1 does not know.
        if error.json_path != DEVICES_PATH:
            raise
        return everything_allowed()
    if state.default_allow:
        return everything_allowed()
    return allowed(device_list(device_rules.Emulator().transition(state), version))


def allowed(entries: "list[tuple[str, str]]") -> "list[Property]":
    """Only these devices; the list is emptied before it is filled, as setting it appends."""
    found: list[Property] = [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", []))]
    if entries:
        found.append(("DeviceAllow", ("a(ss)", entries)))
    return found


def everything_allowed() -> "list[Property]":
    """No device rules, which are also the ones that a new unit has."""
    return [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]


def device_list(rules: "list[Rule]", version: "Version") -> "list[tuple[str, str]]":
    """Rules as systemd.resource-control(5) writes them, as far as it can: a device by its node, all devices of a
    major number by the name of their group, all devices by `char-*`.

    Args:
        rules: allowing ones, for one kind of device each.
    """
    found = []
    for rule in rules:
        if rule.major == ANY:
            # It has no words for a minor number of every major one.
            specifier = f"{DEVICE_GROUPS[rule.kind]}*" if rule.minor == ANY else ""
        elif rule.minor == ANY:
            specifier = _device_group(rule, version)
        else:
            specifier = f"{DEVICE_LINKS[rule.kind]}/{rule.major}:{rule.minor}"
            # Newer ones take the numbers out of the name; older ones warn of a node that is not there.
            if version() < DEVICE_NUMBERS_SINCE and not os.path.exists(specifier):
                continue
        if specifier:
            found.append((specifier, str(rule).rpartition(" ")[2]))
    return found


def _device_group(rule: "Rule", version: "Version") -> str:
    prefix = DEVICE_GROUPS[rule.kind]
    if version() >= DEVICE_NUMBERS_SINCE:
        return f"{prefix}{rule.major}"
    with open("/proc/devices", encoding="ascii", errors="replace") as lines:
        kind = ""
        for line in lines:
            number, _, name = line.strip().partition(" ")
            if name == "devices:":
                kind = number[0].lower()
            elif kind == rule.kind and number == str(rule.major):
                return prefix + name
    return ""
