"""The SETTINGS message: what the container process sets for itself, in C, before execve."""

import os
import struct

from ctr_common.bootstrap import boolean, nest, text, u32, u32s, u64
from ctr_common.errors import ConfigError
from ctr_common.kernel import _kernel
from ctr_common.spec import capabilities, rlimits
from ctr_common.spec.validate_process import apparmor_enabled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ctr_common.spec.types import Config, Hook, Process
    from ctr_supervisor.engine.seccomp import CompiledFilter

    Attributes = list[tuple[int, bytes]]

# Whatever the caller's is: a daemon with umask 0 must not make a container whose files everybody can write.
DEFAULT_UMASK = 0o022

RLIMIT = struct.Struct("=IIQQ")
CONSOLE_SIZE = struct.Struct("=II")

# struct sched_attr, sched_setattr(2), size 56 with the utilization clamps.
SCHED_ATTR = struct.Struct("=IIQiIQQQII")
SCHEDULER_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

# ioprio_set(2)
IOPRIO_CLASS_SHIFT = 13
IOPRIO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

# set_mempolicy(2)
MEMORY_POLICIES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_POLICY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}

# personality(2)
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

# A list such as 0-4294967295 must not become a mask of that size.
BITS_MAX = 65536


def process_attributes(process: "Process", config: "Config") -> "Attributes":
    """What `process` says, as attributes, but for the `home_attributes`.

    Args:
        process: `.process` of config.json, or a process.json.
        config: the container's configuration, for what belongs to the container as a whole.

    Raises:
        ConfigError: a value has no meaning for the kernel.
    """
    user = process.get("user") or {}
    attributes: Attributes = [(_kernel.ATTR_ARG, text(argument)) for argument in process["args"]]
    attributes += [(_kernel.ATTR_ENV, text(entry)) for entry in environment(process).values()]
    attributes += [
        (_kernel.ATTR_CWD, text(process["cwd"])),
        (_kernel.ATTR_UID, u32(user.get("uid", 0))),
        (_kernel.ATTR_GID, u32(user.get("gid", 0))),
    ]
    if user.get("additionalGids") or may_set_groups(config):
        attributes.append((_kernel.ATTR_GROUPS, u32s(user.get("additionalGids") or ())))
    umask = user.get("umask")
    attributes.append((_kernel.ATTR_UMASK, u32(DEFAULT_UMASK if umask is None else umask)))
    # A process without `capabilities` gets none at all, as under runc.
    sets: Mapping[str, Iterable[str]] = process.get("capabilities") or {}  # type: ignore[assignment]  # all its values are lists
    for attribute, name in (
        (_kernel.ATTR_CAP_BOUNDING, "bounding"),
        (_kernel.ATTR_CAP_EFFECTIVE, "effective"),
        (_kernel.ATTR_CAP_INHERITABLE, "inheritable"),
        (_kernel.ATTR_CAP_PERMITTED, "permitted"),
        (_kernel.ATTR_CAP_AMBIENT, "ambient"),
    ):
        attributes.append((attribute, u64(capabilities.mask(sets.get(name) or ()))))
    for limit in process.get("rlimits") or ():
        number = rlimits.number(limit["type"])
        attributes.append((_kernel.ATTR_RLIMIT, RLIMIT.pack(number, 0, limit["soft"], limit["hard"])))
    if process.get("noNewPrivileges"):
        attributes.append((_kernel.ATTR_NO_NEW_PRIVS, boolean(True)))
    profile = process.get("apparmorProfile")
    # Without AppArmor every process is unconfined, and there is no file to say so in.
    if profile and (profile != "unconfined" or apparmor_enabled()):
        attributes.append((_kernel.ATTR_APPARMOR, text(profile)))
    if process.get("selinuxLabel"):
        attributes.append((_kernel.ATTR_SELINUX, text(process["selinuxLabel"])))
    attributes += scheduling_attributes(process)
    attributes += container_wide_attributes(config)
    size = process.get("consoleSize")
    if process.get("terminal") and size:
        attributes.append((_kernel.ATTR_CONSOLE_SIZE, CONSOLE_SIZE.pack(size["width"], size["height"])))
    return attributes


def may_set_groups(config: "Config") -> bool:
    """Whether setgroups may be called: not under a gid map that an unprivileged user wrote (user_namespaces(7))."""
    return os.geteuid() == 0 or len((config.get("linux") or {}).get("gidMappings") or ()) > 1


def environment(process: "Process") -> "dict[str, str]":
    """The entries of the environment by name, of which the last definition wins; none for an empty HOME."""
    entries: dict[str, str] = {}
    for entry in process.get("env") or ():
        name, _, _ = entry.partition("=")
        entries.pop(name, None)
        entries[name] = entry
    if entries.get("HOME") in ("HOME", "HOME="):
        del entries["HOME"]
    return entries


def home_attributes(process: "Process", home: "str | None") -> "Attributes":
    """HOME as the last resort.

    Args:
        home: home directory of the process's user.
    """
    return [] if "HOME" in environment(process) else [(_kernel.ATTR_ENV, text(f"HOME={home or '/'}"))]


def scheduling_attributes(process: "Process") -> "Attributes":
    """Scheduler and I/O priority of a process."""
    attributes: Attributes = []
    scheduler = process.get("scheduler")
    if scheduler:
        flags = 0
        for flag in scheduler.get("flags") or ():
            flags |= SCHEDULER_FLAGS[flag]
        attributes.append(
            (
                _kernel.ATTR_SCHEDULER,
                SCHED_ATTR.pack(
                    SCHED_ATTR.size,
                    SCHEDULER_POLICIES[scheduler["policy"]],
                    flags,
                    scheduler.get("nice", 0),
                    scheduler.get("priority", 0),
                    scheduler.get("runtime", 0),
                    scheduler.get("deadline", 0),
                    scheduler.get("period", 0),
                    0,
                    0,
                ),
            )
        )
    priority = process.get("ioPriority")
    if priority:
        value = IOPRIO_CLASSES[priority["class"]] << IOPRIO_CLASS_SHIFT | priority.get("priority", 0)
        attributes.append((_kernel.ATTR_IO_PRIORITY, u32(value)))
    return attributes


def exec_affinity_attributes(process: "Process") -> "Attributes":
    """CPU affinity of a process in its cgroup; for exec, since it is not for a container's init (config.md)."""
    final = (process.get("execCPUAffinity") or {}).get("final")
    return [(_kernel.ATTR_CPU_AFFINITY, bit_mask(final, ".execCPUAffinity.final", 1))] if final else []


def container_wide_attributes(config: "Config") -> "Attributes":
    """What `.linux` sets for every process of the container."""
    attributes: Attributes = []
    linux = config.get("linux") or {}
    personality = linux.get("personality")
    if personality:
        attributes.append((_kernel.ATTR_PERSONALITY, u64(PERSONALITIES[personality["domain"]])))
    policy = linux.get("memoryPolicy")
    if policy:
        mode = MEMORY_POLICIES[policy["mode"]]
        flags = 0
        for flag in policy.get("flags") or ():
            flags |= MEMORY_POLICY_FLAGS[flag]
        nodes = bit_mask(policy.get("nodes") or "", ".linux.memoryPolicy.nodes", 8)
        attributes.append((_kernel.ATTR_MEMORY_POLICY, struct.pack("=II", mode, flags) + nodes))
    return attributes


def seccomp_attributes(compiled: "CompiledFilter | None") -> "Attributes":
    """A compiled filter; nothing where there is none."""
    if compiled is None:
        return []
    return [
        (_kernel.ATTR_SECCOMP_BPF, compiled.bpf),
        (_kernel.ATTR_SECCOMP_FLAGS, u32(compiled.flags)),
    ]


def hook_attributes(hooks: "list[Hook]", state: bytes, default: "Attributes") -> "Attributes":
    """startContainer hooks, which the container process runs itself.

    Args:
        hooks: entries of `.hooks.startContainer`.
        state: OCI state for their stdin, as JSON.
        default: of the process; its environment is that of a hook that has none of its own, as under runc.
    """
    if not hooks:
        return []
    attributes: Attributes = [(_kernel.ATTR_HOOK_STATE, state)]
    for hook in hooks:
        parts: Attributes = [(_kernel.ATTR_HOOK_PATH, text(hook["path"]))]
        parts += [(_kernel.ATTR_HOOK_ARG, text(argument)) for argument in hook.get("args") or [hook["path"]]]
        given = [text(entry) for entry in hook.get("env") or ()]
        inherited = [value for number, value in default if number == _kernel.ATTR_ENV]
        parts += [(_kernel.ATTR_HOOK_ENV, value) for value in given or inherited]
        if hook.get("timeout") is not None:
            parts.append((_kernel.ATTR_HOOK_TIMEOUT, u32(hook["timeout"])))
        attributes.append((_kernel.ATTR_HOOK, nest(parts)))
    return attributes


def bit_mask(text_list: str, json_path: str, align: int) -> bytes:
    """A list such as `0-3,7` as a little-endian bit mask.

    Args:
        text_list: CPUs or memory nodes, in the format of cpuset(7).
        json_path: where it stands, for the error.
        align: the mask's length is a multiple of this many bytes.

    Raises:
        ConfigError: it is not such a list.
    """
    mask = 0
    for part in text_list.split(","):
        if not part.strip():
            continue
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise ConfigError(f"expected a list such as 0-3,7, got {text_list!r}", json_path=json_path) from None
        if not 0 <= low <= high < BITS_MAX:
            raise ConfigError(f"range {part.strip()!r} is not between 0 and {BITS_MAX - 1}", json_path=json_path)
        mask |= (1 << (high + 1)) - (1 << low)
    length = max(1, -(-mask.bit_length() // (8 * align))) * align
    return mask.to_bytes(length, "little")
