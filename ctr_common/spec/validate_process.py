"""Checks `.process`, and the process of `exec --process`."""

import os

from ctr_common.fastjson import dumps
from ctr_common.spec import capabilities, rlimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_common.spec.problems import Problems
    from ctr_common.spec.types import Config, IDMapping, Process, Scheduler

NO_ID = 2**32 - 1  # (uid_t)-1, which setresuid(2) and chown(2) take for "leave it as it is"

SCHEDULER_POLICIES = (
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
)
SCHEDULER_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
)
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")


def one_of(value: str, known: "Sequence[str]") -> str:
    """The message for a value that is not among the known ones."""
    return f"expected one of {', '.join(known)}, got {dumps(value)}"


def check(process: "Process", where: str, problems: "Problems", warnings: "list[str]") -> None:
    """Checks everything but the ids.

    Args:
        process: with the right types.
        where: JSON path of the process; "" if it is the whole file.
        problems, warnings: take what is found.
    """
    if not process.get("args"):
        problems.add(f"{where}.args", "args must not be empty")
    cwd = process.get("cwd")
    if not cwd:
        problems.add(f"{where}.cwd", "Cwd property must not be empty")
    elif not cwd.startswith("/"):
        problems.add(f"{where}.cwd", f"Cwd must be an absolute path, got {dumps(cwd)}")
    check_environment(process.get("env") or [], f"{where}.env", problems)
    _check_capabilities(process, where, warnings)
    _check_rlimits(process, where, problems)
    score = process.get("oomScoreAdj")
    if score is not None and not -1000 <= score <= 1000:
        problems.add(f"{where}.oomScoreAdj", f"expected a number from -1000 to 1000, got {score}")
    size = process.get("consoleSize")
    if size:
        for key, length in (("height", size["height"]), ("width", size["width"])):
            if length > 0xFFFF:  # struct winsize
                problems.add(f"{where}.consoleSize.{key}", f"expected a number from 0 to 65535, got {length}")
    _check_labels(process, where, problems)
    scheduler = process.get("scheduler")
    if scheduler:
        _check_scheduler(scheduler, f"{where}.scheduler", problems)
    priority = process.get("ioPriority")
    if priority:
        if priority.get("class") not in IO_CLASSES:
            problems.add(f"{where}.ioPriority.class", one_of(priority.get("class", ""), IO_CLASSES))
        if not 0 <= priority.get("priority", 0) <= 7:
            problems.add(f"{where}.ioPriority.priority", f"invalid ioPriority.Priority: {priority.get('priority')}")


def check_environment(env: "list[str]", where: str, problems: "Problems") -> None:
    """Checks that every entry has the form NAME=value."""
    for index, entry in enumerate(env):
        equals = entry.find("=")
        if equals < 0:
            problems.add(f"{where}[{index}]", f"invalid environment variable: {dumps(entry)}")
        elif not equals:
            problems.add(f"{where}[{index}]", f"environment variable name can't be empty: {dumps(entry)}")


def _check_capabilities(process: "Process", where: str, warnings: "list[str]") -> None:
    sets: dict[str, list[str]] = dict(process.get("capabilities") or {})  # type: ignore[arg-type]  # all are lists
    unknown = capabilities.unknown(name for key in capabilities.SETS for name in sets.get(key) or ())
    if unknown:
        warnings.append(f"{where}.capabilities: ignoring unknown or unavailable capabilities: {' '.join(unknown)}")
    ambient = sets.get("ambient")
    if ambient:
        # capabilities(7), and runc's words; the process goes on without them.
        possible = {*(sets.get("permitted") or ())} & {*(sets.get("inheritable") or ())}
        warnings += [
            f"can't raise ambient capability {name}: operation not permitted"
            for name in dict.fromkeys(ambient)
            if name not in possible and name not in unknown
        ]


def _check_rlimits(process: "Process", where: str, problems: "Problems") -> None:
    seen: dict[str, int] = {}
    for index, limit in enumerate(process.get("rlimits") or []):
        place = f"{where}.rlimits[{index}]"
        name = limit["type"]
        if name not in rlimits.NUMBERS:
            problems.add(f"{place}.type", f"wrong rlimit value: {name}")
        first = seen.setdefault(name, index)
        if first != index:  # config.md: "the runtime MUST generate an error"
            problems.add(place, f"{name} is set by {where}.rlimits[{first}] already")
        if limit["soft"] > limit["hard"]:
            problems.add(f"{place}.soft", f"{limit['soft']} is above the hard limit {limit['hard']}")


def selinux_enabled() -> bool:
    """Whether SELinux is on."""
    return os.path.exists("/sys/fs/selinux/enforce")


def apparmor_enabled() -> bool:
    """Whether AppArmor is on."""
    try:
        fd = os.open("/sys/module/apparmor/parameters/enabled", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, 1) == b"Y"
    finally:
        os.close(fd)


def _check_labels(process: "Process", where: str, problems: "Problems") -> None:
    if process.get("selinuxLabel") and not selinux_enabled():
        problems.add(
            f"{where}.selinuxLabel",
            "selinux label is specified in config, but selinux is disabled or not supported",
        )
    profile = process.get("apparmorProfile")
    if profile and profile != "unconfined" and not apparmor_enabled():
        problems.add(f"{where}.apparmorProfile", "apparmor: config provided but apparmor not supported")


def _check_scheduler(scheduler: "Scheduler", where: str, problems: "Problems") -> None:
    policy = scheduler["policy"]
    if policy not in SCHEDULER_POLICIES:
        problems.add(f"{where}.policy", one_of(policy, SCHEDULER_POLICIES))
        return
    for index, flag in enumerate(scheduler.get("flags") or []):
        if flag not in SCHEDULER_FLAGS:
            problems.add(f"{where}.flags[{index}]", one_of(flag, SCHEDULER_FLAGS))
    if not -20 <= scheduler.get("nice", 0) <= 19:
        problems.add(f"{where}.nice", f"invalid scheduler.nice: {scheduler.get('nice')}, expected -20 to 19")
    priority = scheduler.get("priority", 0)
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not 1 <= priority <= 99:
            problems.add(f"{where}.priority", f"{policy} needs a priority from 1 to 99, got {priority}")
    elif priority:
        problems.add(f"{where}.priority", "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy")
    if policy != "SCHED_DEADLINE":
        for key in ("runtime", "deadline", "period"):
            if scheduler.get(key):
                problems.add(f"{where}.{key}", f"scheduler.{key} can only be specified for SCHED_DEADLINE policy")


def is_mapped(mappings: "list[IDMapping]", number: int) -> bool:
    """Whether an id of the container has a counterpart outside."""
    return any(0 <= number - entry["containerID"] < entry["size"] for entry in mappings)


def check_ids(
    process: "Process", config: "Config", rootless: bool, problems: "Problems", where: str = ".process"
) -> None:
    """Checks that the ids of the process exist in the container's user namespace.

    Args:
        process: with the right types.
        config: of the container that it will run in.
        rootless: the engine has no privileges on the host.
        problems: takes what is found.
        where: JSON path of the process.
    """
    user = process.get("user") or {}
    groups = user.get("additionalGids") or []
    ids = [("uid", user.get("uid", 0)), ("gid", user.get("gid", 0))]
    ids += [(f"additionalGids[{index}]", gid) for index, gid in enumerate(groups)]
    for key, number in ids:
        if number == NO_ID:
            problems.add(f"{where}.user.{key}", f"{number} means no id to the kernel")
    linux = config.get("linux") or {}
    if not any(entry["type"] == "user" for entry in linux.get("namespaces") or []):
        return
    uid_map, gid_map = linux.get("uidMappings") or [], linux.get("gidMappings") or []
    for key, number in ids:
        mappings = uid_map if key == "uid" else gid_map
        if mappings and number != NO_ID and not is_mapped(mappings, number):
            kind = "uid" if key == "uid" else "gid"
            problems.add(f"{where}.user.{key}", f"cannot set {kind} to unmapped user in user namespace: {number}")
    if rootless and groups and sum(entry["size"] for entry in gid_map) <= 1:
        # user_namespaces(7): a user who writes the gid map himself has to give up setgroups for it.
        problems.add(f"{where}.user.additionalGids", "cannot set any additional groups in a rootless container")
