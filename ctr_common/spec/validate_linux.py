"""Checks `.linux`."""

import os

from ctr_common.errors import strerror
from ctr_common.fastjson import dumps
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import NSFS_MAGIC
from ctr_common.spec import seccomp_names, sysctl
from ctr_common.spec.namespaces import NAMESPACES
from ctr_common.spec.problems import Problems, member
from ctr_common.spec.validate_process import is_mapped, one_of, selinux_enabled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Config, Device, IDMapping, Linux, Resources, Seccomp

NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)

PROPAGATIONS = (
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
)
PERSONALITY_DOMAINS = ("LINUX", "LINUX32")
MEMORY_MODES = (
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
)
MEMORY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")


def check(config: "Config", rootless: bool, problems: "Problems") -> None:
    """Checks `.linux` and what depends on its namespaces.

    Args:
        config: with the right types.
        rootless: the engine has no privileges on the host.
        problems: takes what is found.
    """
    linux = config.get("linux") or {}
    kinds = _check_namespaces(linux, problems)
    _check_user_namespace(config, linux, kinds, rootless, problems)
    if "mount" not in kinds:
        for key, paths in (("maskedPaths", linux.get("maskedPaths")), ("readonlyPaths", linux.get("readonlyPaths"))):
            if paths:
                problems.add(f".linux.{key}", "unable to restrict sys entries without a private MNT namespace")
    _check_sysctls(config, linux, kinds, problems)
    _check_time_offsets(linux, kinds, problems)
    _check_net_devices(linux, kinds, rootless, problems)
    for index, device in enumerate(linux.get("devices") or []):
        _check_device(device, f".linux.devices[{index}]", problems)
    _check_resources(linux.get("resources") or {}, problems)
    seccomp = linux.get("seccomp")
    if seccomp:
        _check_seccomp(seccomp, problems)
    propagation = linux.get("rootfsPropagation")
    if propagation and propagation not in PROPAGATIONS:
        problems.add(
            ".linux.rootfsPropagation",
            f"rootfsPropagation={propagation} is not supported, expected one of {', '.join(PROPAGATIONS)}",
        )
    if linux.get("mountLabel") and not selinux_enabled():
        problems.add(
            ".linux.mountLabel", "selinux label is specified in config, but selinux is disabled or not supported"
        )
    _check_intel_rdt(linux, problems)
    _check_personality(linux, problems)
    _check_memory_policy(linux, problems)


# -- namespaces


def _check_namespaces(linux: "Linux", problems: "Problems") -> "dict[str, str]":
    """The path, "" for a new one, of each namespace."""
    kinds: dict[str, str] = {}
    for index, entry in enumerate(linux.get("namespaces") or []):
        where = f".linux.namespaces[{index}]"
        kind, path = entry["type"], entry.get("path") or ""
        if kind not in NAMESPACES:
            message = f"namespace {{{dumps(kind)} {dumps(path)}}} does not exist, expected one of "
            problems.add(f"{where}.type", message + ", ".join(sorted(NAMESPACES)))
            continue
        if kind in kinds:
            problems.add(where, f"malformed spec file: duplicated ns {{{dumps(kind)} {dumps(path)}}}")
            continue
        kinds[kind] = path
        if path:
            reason = _path_refusal(kind, path)
            if reason:
                problems.add(f"{where}.path", reason)
        elif not os.path.exists(f"/proc/self/ns/{NAMESPACES[kind][1]}") and os.path.exists("/proc/self/ns"):
            problems.add(f"{where}.type", f"this kernel has no {kind} namespaces")
    return kinds


def _path_refusal(kind: str, path: str) -> str:
    """Why a path is no namespace of a type; "" if it is one, or if only the process that joins it can tell."""
    if not path.startswith("/"):
        return f"expected an absolute path, got {dumps(path)}"
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        return ""
    except OSError as error:
        return f"namespace path: lstat {path}: {strerror(error.errno or 0)}"
    try:
        if _kernel.fstatfs_type(fd) != NSFS_MAGIC:
            return f"{path} is not a namespace"
        # Only now is opening it for real sure to be harmless; O_PATH fds take no ioctl.
        real = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    finally:
        os.close(fd)
    import fcntl

    try:
        flag = fcntl.ioctl(real, NS_GET_NSTYPE)
    except OSError:
        return ""
    finally:
        os.close(real)
    if flag == NAMESPACES[kind][0]:
        return ""
    found = next((name for name, (value, _) in NAMESPACES.items() if value == flag), "foreign")
    return f"{path} is a {found} namespace, expected a {kind} namespace"


def _check_user_namespace(
    config: "Config", linux: "Linux", kinds: "dict[str, str]", rootless: bool, problems: "Problems"
) -> None:
    uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    if "user" not in kinds:
        if uids or gids:
            problems.add(
                f".linux.{'uid' if uids else 'gid'}Mappings",
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            )
        if rootless:
            problems.add(".linux.namespaces", "rootless container requires user namespaces")
        return
    for name, mappings in (("uid", uids), ("gid", gids)):
        where = f".linux.{name}Mappings"
        if not mappings:
            if not kinds["user"]:
                problems.add(where, f"user namespaces enabled, but no {name} mappings found")
            continue
        check_mappings(mappings, where, problems)
        if not is_mapped(mappings, 0):
            problems.add(where, f"{name} 0 of the container is not mapped")
    _check_mount_ids(config, uids, gids, problems)


def check_mappings(mappings: "list[IDMapping]", where: str, problems: "Problems") -> None:
    """Checks that a map has lines that the kernel takes: not empty, inside 32 bits, not overlapping."""
    for index, entry in enumerate(mappings):
        place = f"{where}[{index}]"
        if not entry["size"]:
            problems.add(f"{place}.size", "must not be 0")
        for side, start in (("containerID", entry["containerID"]), ("hostID", entry["hostID"])):
            if start + entry["size"] > 2**32 - 1:
                problems.add(f"{place}.{side}", f"{start} + {entry['size']} ids go beyond 4294967294")
    for side in ("containerID", "hostID"):
        ranges = sorted((entry[side], entry["size"], index) for index, entry in enumerate(mappings))  # type: ignore[literal-required]
        end, last = 0, 0
        for start, size, index in ranges:
            if start < end:
                problems.add(f"{where}[{max(last, index)}].{side}", f"overlaps {where}[{min(last, index)}]")
            if start + size > end:
                end, last = start + size, index


def _check_mount_ids(config: "Config", uids: "list[IDMapping]", gids: "list[IDMapping]", problems: "Problems") -> None:
    """Mount options name ids of the container; the kernel has only "invalid argument" for those that are not mapped."""
    for index, mount in enumerate(config.get("mounts") or []):
        options = mount.get("options") or []
        if "bind" in options or "rbind" in options:  # a bind mount has no data
            continue
        for number, option in enumerate(options):
            name, equals, value = option.partition("=")
            if not equals or name not in ("uid", "gid") or not value.isdecimal():
                continue
            mappings = uids if name == "uid" else gids
            if mappings and not is_mapped(mappings, int(value)):
                problems.add(
                    f".mounts[{index}].options[{number}]",
                    f"cannot specify {name}={value} mount option for unmapped {name} in a user namespace",
                )


def _check_sysctls(config: "Config", linux: "Linux", kinds: "dict[str, str]", problems: "Problems") -> None:
    def is_host_network() -> bool:
        try:
            return bool(kinds["network"]) and os.path.samefile(kinds["network"], "/proc/self/ns/net")
        except OSError:
            return False

    for name in linux.get("sysctl") or {}:
        where = member(".linux.sysctl", name)
        try:
            sysctl.path(name)
        except ValueError as error:
            problems.add(where, str(error))
            continue
        reason = sysctl.refusal(name, kinds.__contains__, is_host_network, config.get("domainname") or "")
        if reason:
            problems.add(where, reason)


def _check_time_offsets(linux: "Linux", kinds: "dict[str, str]", problems: "Problems") -> None:
    offsets = linux.get("timeOffsets") or {}
    if not offsets:
        return
    if "time" not in kinds:
        problems.add(".linux.timeOffsets", "unable to set time offsets without a private time namespace")
    elif kinds["time"]:
        problems.add(".linux.timeOffsets", "the offsets of a time namespace that is joined by path cannot be changed")
    for clock, offset in (("boottime", offsets.get("boottime")), ("monotonic", offsets.get("monotonic"))):
        if offset and offset.get("nanosecs", 0) >= 10**9:
            problems.add(
                f".linux.timeOffsets.{clock}.nanosecs", f"expected less than a second, got {offset['nanosecs']}"
            )


def _check_net_devices(linux: "Linux", kinds: "dict[str, str]", rootless: bool, problems: "Problems") -> None:
    devices = linux.get("netDevices") or {}
    if not devices:
        return
    if "network" not in kinds:
        problems.add(".linux.netDevices", "unable to move network devices without a private NET namespace")
    if rootless:
        problems.add(".linux.netDevices", "network devices are not supported for rootless containers")
    names: dict[str, str] = {}
    for name, device in devices.items():
        where = member(".linux.netDevices", name)
        new = device.get("name") or name
        for place, text in ((where, name), (f"{where}.name", new)):
            # dev_valid_name() of net/core/dev.c
            if not 0 < len(text.encode()) < 16 or text in (".", "..") or any(c in "/:" or c.isspace() for c in text):
                problems.add(place, f"{dumps(text)} is not a name for a network device")
                break
        # The kernel puts a number where %d stands.
        other = where if "%d" in new else names.setdefault(new, where)
        if other != where:
            problems.add(f"{where}.name", f"{dumps(new)} is the name of {other} already")


# -- devices and resources


def _check_device(device: "Device", where: str, problems: "Problems") -> None:
    kind = device["type"]
    if kind not in ("c", "b", "u", "p"):
        problems.add(f"{where}.type", f"invalid device type {dumps(kind)}, expected one of c, b, u, p")
        return
    if not device["path"].startswith("/"):
        problems.add(f"{where}.path", f"expected an absolute path, got {dumps(device['path'])}")
    if kind != "p":
        # 0:0 as a character device is overlayfs's whiteout, so there is no harmless default.
        for key, number, limit in (("major", device.get("major"), 4095), ("minor", device.get("minor"), 1048575)):
            if number is None:
                problems.add(f"{where}.{key}", "is missing")
            elif not 0 <= number <= limit:
                problems.add(f"{where}.{key}", f"expected a number from 0 to {limit}, got {number}")
    for key, owner in (("uid", device.get("uid")), ("gid", device.get("gid"))):
        if owner == 2**32 - 1:
            problems.add(f"{where}.{key}", f"{owner} means no id to the kernel")


def _check_resources(resources: "Resources", problems: "Problems") -> None:
    where = ".linux.resources"
    for index, rule in enumerate(resources.get("devices") or []):
        place = f"{where}.devices[{index}]"
        kind, access = rule.get("type") or "a", rule.get("access") or ""
        if kind not in ("a", "b", "c"):
            problems.add(f"{place}.type", f"invalid device type {dumps(kind)}, expected one of a, b, c")
        if not access:
            problems.add(f"{place}.access", f"device access at {index} field cannot be empty")
        elif not set(access) <= {"r", "w", "m"}:
            problems.add(f"{place}.access", f"expected some of r, w, m, got {dumps(access)}")
    for index, limit in enumerate(resources.get("hugepageLimits") or []):
        size = limit["pageSize"]
        if not (size[-2:] in ("KB", "MB", "GB") and size[:-2].isdecimal() and size.isascii() and size[0] != "0"):
            problems.add(f"{where}.hugepageLimits[{index}].pageSize", f"expected a size such as 2MB, got {dumps(size)}")
    for name in resources.get("unified") or {}:
        if "/" in name or "." not in name.strip("."):
            problems.add(
                member(f"{where}.unified", name), f"unified resource {dumps(name)} must be a file name (no slashes)"
            )


# -- seccomp and the rest


def _check_seccomp(seccomp: "Seccomp", problems: "Problems") -> None:
    where = ".linux.seccomp"
    default = seccomp["defaultAction"]
    syscalls = seccomp.get("syscalls") or []
    if not default and not syscalls:  # what Go writes for a profile that is not there
        return
    if default not in seccomp_names.ACTIONS:
        problems.add(f"{where}.defaultAction", f"string {default} is not a valid action for seccomp")
    elif default == "SCMP_ACT_NOTIFY":
        problems.add(f"{where}.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    for index, name in enumerate(seccomp.get("architectures") or []):
        if name not in seccomp_names.ARCHITECTURES:
            problems.add(f"{where}.architectures[{index}]", f"string {name} is not a valid arch for seccomp")
    for index, name in enumerate(seccomp.get("flags") or []):
        if name not in seccomp_names.FLAGS:
            problems.add(f"{where}.flags[{index}]", one_of(name, list(seccomp_names.FLAGS)))
    for index, rule in enumerate(syscalls):
        place = f"{where}.syscalls[{index}]"
        action = rule["action"]
        if action not in seccomp_names.ACTIONS:
            problems.add(f"{place}.action", f"string {action} is not a valid action for seccomp")
        elif action == "SCMP_ACT_NOTIFY" and "write" in rule["names"]:
            # The container process could not tell us the fd that it would wait for.
            problems.add(f"{place}.names", "SCMP_ACT_NOTIFY cannot be used for the write syscall")
        for number, argument in enumerate(rule.get("args") or []):
            if argument["op"] not in seccomp_names.OPERATORS:
                problems.add(
                    f"{place}.args[{number}].op", f"string {argument['op']} is not a valid operator for seccomp"
                )
            if argument["index"] > 5:
                problems.add(f"{place}.args[{number}].index", f"expected a number from 0 to 5, got {argument['index']}")


def _check_intel_rdt(linux: "Linux", problems: "Problems") -> None:
    rdt = linux.get("intelRdt")
    if rdt is None:
        return
    where = ".linux.intelRdt"
    group = rdt.get("closID") or ""
    if group in (".", "..") or ("/" in group and group != "/"):
        problems.add(f"{where}.closID", f"invalid intelRdt.ClosID {dumps(group)}")
    bandwidth = rdt.get("memBwSchema") or ""
    if bandwidth and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
        problems.add(f"{where}.memBwSchema", f"expected one line that starts with MB:, got {dumps(bandwidth)}")
    from ctr_common import resctrl

    mounted = resctrl.find()
    if mounted is None:
        problems.add(where, "intelRdt is specified in config, but Intel RDT is not enabled")
        return
    for key, wanted, there, what in (
        ("l3CacheSchema", rdt.get("l3CacheSchema"), mounted.allocates_cache, "Intel RDT/CAT is not enabled"),
        ("memBwSchema", bandwidth, mounted.allocates_bandwidth, "Intel RDT/MBA is not enabled"),
        ("enableMonitoring", rdt.get("enableMonitoring"), mounted.monitors, "this host has no counters for it"),
    ):
        if wanted and not there:
            problems.add(f"{where}.{key}", f"intelRdt.{key} is specified in config, but {what}")


def _check_personality(linux: "Linux", problems: "Problems") -> None:
    personality = linux.get("personality")
    if personality is None:
        return
    domain = personality.get("domain", "")
    if domain not in PERSONALITY_DOMAINS:
        problems.add(".linux.personality.domain", one_of(domain, PERSONALITY_DOMAINS))
    if personality.get("flags"):
        problems.add(".linux.personality.flags", "no personality flags are supported")


def _check_memory_policy(linux: "Linux", problems: "Problems") -> None:
    policy = linux.get("memoryPolicy")
    if policy is None:
        return
    if policy.get("mode", "") not in MEMORY_MODES:
        problems.add(".linux.memoryPolicy.mode", one_of(policy.get("mode", ""), MEMORY_MODES))
    for index, flag in enumerate(policy.get("flags") or []):
        if flag not in MEMORY_FLAGS:
            problems.add(f".linux.memoryPolicy.flags[{index}]", one_of(flag, MEMORY_FLAGS))
