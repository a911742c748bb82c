"""`explain`: the steps of a start as data, from the same functions that a start gets its messages and plans from."""

from ctr_common import fastjson
from ctr_common.bootstrap import attributes_of
from ctr_common.errors import ConfigError
from ctr_common.kernel import _kernel
from ctr_common.spec import capabilities, load, namespaces, validate
from ctr_common.state import StateDir
from ctr_supervisor.cgroups import manager as cgroups
from ctr_supervisor.engine import create, settings
from ctr_supervisor.engine.options import CreateOptions
from ctr_supervisor.engine.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Steps = list[dict[str, str]]

ENGINE = "engine"
STAGE_0 = "ctr-init, stage 0"
WORKER = "setup worker"
PROCESS = "container process"

CONTAINER_ID = "<container-id>"
# The worker's step in which it waits for the engine.
RUNTIME_HOOKS = "prestart and createRuntime hooks"


def explain(runtime: Runtime, bundle: str, options: CreateOptions) -> "Steps":
    """What `run` would do for a bundle.

    Args:
        runtime: the surroundings; decides on cgroups and on what a plain user does differently.
        bundle: directory with config.json.
        options: of the creation.

    Returns:
        Maps of `process`, `step`, `detail` and, where the configuration asks for it, `json_path`, in order.

    Raises:
        ConfigError: the configuration is not valid.
    """
    config = load.load_config(bundle)
    if config.get("process") is None:
        raise ConfigError("process property must not be empty", json_path=".process")
    warnings = validate.check(config, bundle, rootless=runtime.rootless_euid)
    creation = create.Creation(runtime, StateDir(runtime.root, CONTAINER_ID), config, bundle, options)
    creation.cgroups = cgroups.for_container(
        config, CONTAINER_ID, rootless_cgroups=runtime.rootless_cgroups, systemd=runtime.systemd_cgroup
    )
    steps: Steps = [_step(ENGINE, "check config.json", "")]
    steps += [_step(ENGINE, "warn", warning) for warning in warnings]
    steps.append(_step(ENGINE, "take the id", f"{runtime.root}/{CONTAINER_ID}, write config.json and state.json there"))
    steps += _cgroup_steps(creation)
    steps.append(_step(ENGINE, "run ctr-init from a sealed memfd", "send BOOTSTRAP"))
    steps += _told(STAGE_0, creation.bootstrap(), BOOTSTRAP)
    steps.append(_step(STAGE_0, "tell the engine pid and pidfd, end", ""))
    steps.append(_step(ENGINE, "let the process enter what cgroups it was not born in", "send GO"))
    steps.append(_step(PROCESS, "leave the working directory, keep the mount namespace, wait", ""))
    steps.append(_step(ENGINE, "write state.json", "with the pid"))
    steps += _network_steps(creation)
    steps.append(_step(ENGINE, "fork the setup worker", ""))
    for entry in creation.worker_steps():
        steps.append({"process": WORKER, **entry})
        if entry["step"] == RUNTIME_HOOKS:
            steps += _hook_steps(config, ENGINE, ("prestart", "createRuntime"), "while the worker waits")
    steps.append(_step(ENGINE, "make exec.fifo", "send SETTINGS"))
    steps.append(_step(PROCESS, "enter the new root of the mount namespace", ""))
    steps.append(_step(PROCESS, "close all other fds", ""))
    told = [*creation.process_settings(), *settings.home_attributes(config["process"], None)]
    told += creation.hook_settings(told)
    steps += _told(PROCESS, told, SETTINGS)
    if config["process"].get("terminal"):
        steps.append(_step(PROCESS, "make the terminal its controlling terminal and stdio", "", ".process.terminal"))
    steps += _told(PROCESS, told, LIMITS)
    # Without no_new_privs loading a filter needs CAP_SYS_ADMIN, which the identity may lack.
    early = not config["process"].get("noNewPrivileges")
    for table in (FILTER, IDENTITY) if early else (IDENTITY, FILTER):
        steps += _told(PROCESS, told, table)
    steps.append(_step(ENGINE, "write state.json, pid file", 'the container is "created"'))
    steps.append(_step(PROCESS, "wait in exec.fifo", "until `start` reads it"))
    steps += _hook_steps(config, PROCESS, ("startContainer",), "")
    steps.append(_step(PROCESS, "execve", " ".join(config["process"].get("args") or ()), ".process.args"))
    steps += _hook_steps(config, ENGINE, ("poststart",), "")
    return steps


def _step(process: str, step: str, detail: str, json_path: str = "") -> "dict[str, str]":
    entry = {"process": process, "step": step, "detail": detail}
    if json_path:
        entry["json_path"] = json_path
    return entry


def _cgroup_steps(creation: "create.Creation") -> "Steps":
    assert creation.cgroups is not None
    place = ".linux.cgroupsPath" if creation.linux.get("cgroupsPath") else ""
    how = "as a scope of systemd" if creation.runtime.systemd_cgroup else ""
    steps = []
    for path in dict.fromkeys(creation.cgroups.paths.values()):
        steps.append(_step(ENGINE, "make cgroup", " ".join(word for word in (path, how) if word), place))
    for name, value in (creation.linux.get("resources") or {}).items():
        steps.append(_step(ENGINE, f"limit {name}", fastjson.dumps(value), f".linux.resources.{name}"))
    if creation.linux.get("intelRdt") is not None:
        detail = fastjson.dumps(creation.linux["intelRdt"])
        steps.append(_step(ENGINE, "make class of service of Intel RDT", detail, ".linux.intelRdt"))
    return steps


def _network_steps(creation: "create.Creation") -> "Steps":
    return [
        _step(ENGINE, "move network device", name, f".linux.netDevices.{name}")
        for name in creation.linux.get("netDevices") or {}
    ]


def _hook_steps(config: "Any", process: str, kinds: "tuple[str, ...]", when: str) -> "Steps":
    return [
        _step(process, f"run {kind} hook", f"{hook['path']}{f', {when}' if when else ''}", f".hooks.{kind}[{index}]")
        for kind in kinds
        for index, hook in enumerate((config.get("hooks") or {}).get(kind) or ())
    ]


def _told(process: str, attributes: "list[tuple[int, bytes]]", table: "Table") -> "Steps":
    """What attributes of a message make a process do, in the order in which it does it."""
    steps = []
    for step, json_path, attribute, describe in table:
        values = [value for number, value in attributes if number == attribute]
        if values:
            detail = describe(values)
            if detail is not None:
                steps.append(_step(process, step, detail, json_path))
    return steps


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _numbers(values: "list[bytes]") -> str:
    return ", ".join(str(_number(value)) for value in values)


def _words(values: "list[bytes]") -> str:
    return ", ".join(value.decode(errors="replace").strip().replace("\n", "; ") for value in values)


def _nothing(_: "list[bytes]") -> str:
    return ""


def _count(values: "list[bytes]") -> str:
    return f"{len(values)} of them"


def _flags(values: "list[bytes]") -> "str | None":
    flags = _number(values[0])
    names = [kind for kind, (flag, _) in namespaces.NAMESPACES.items() if flags & flag]
    return ", ".join(names) if names else "none"


def _groups(values: "list[bytes]") -> str:
    data = values[0]
    return ", ".join(str(_number(data[at : at + 4])) for at in range(0, len(data), 4)) or "none"


def _capabilities(values: "list[bytes]") -> str:
    mask = _number(values[0])
    return ", ".join(name for number, name in enumerate(capabilities.NAMES) if mask >> number & 1) or "none"


def _limit(values: "list[bytes]") -> str:
    found = []
    for value in values:
        number, _, soft, hard = settings.RLIMIT.unpack(value)
        found.append(f"{_limit_name(number)} {soft}:{hard}")
    return ", ".join(found)


def _limit_name(number: int) -> str:
    from ctr_common.spec import rlimits

    return next((name for name in rlimits.NUMBERS if rlimits.NUMBERS[name] == number), str(number))


def _umask(values: "list[bytes]") -> str:
    return f"{_number(values[0]):04o}"


def _filter(values: "list[bytes]") -> str:
    return f"{len(values[0]) // 8} instructions"


def _hook(values: "list[bytes]") -> str:
    paths = []
    for value in values:
        paths += [text for number, text in attributes_of(value) if number == _kernel.ATTR_HOOK_PATH]
    return _words(paths)


if TYPE_CHECKING:
    Table = tuple[tuple[str, str, int, Callable[[list[bytes]], str | None]], ...]

# step, place in config.json, attribute that asks for it, what its values say; in the order of c/nsexec/prelude.c
BOOTSTRAP: "Table" = (
    ("set oom_score_adj", ".process.oomScoreAdj", _kernel.ATTR_OOM_SCORE_ADJ, _words),
    ("join namespaces", ".linux.namespaces", _kernel.ATTR_NS_PATH, _words),
    ("clone3 with new namespaces", ".linux.namespaces", _kernel.ATTR_CLONE_FLAGS, _flags),
    ("write uid map", ".linux.uidMappings", _kernel.ATTR_UIDMAP, _words),
    ("write gid map", ".linux.gidMappings", _kernel.ATTR_GIDMAP, _words),
    ("deny setgroups", "", _kernel.ATTR_SETGROUPS_DENY, _nothing),
    ("become root of the user namespace", "", _kernel.ATTR_BECOME_ROOT, _nothing),
    ("set time offsets", ".linux.timeOffsets", _kernel.ATTR_TIME_OFFSETS, _words),
)
# in the order of `finalise` in c/nsexec/process.c
SETTINGS: "Table" = (
    ("make session keyring", "", _kernel.ATTR_KEYRING, _words),
    ("label the keyring", ".process.selinuxLabel", _kernel.ATTR_KEYRING_LABEL, _words),
)
LIMITS: "Table" = (
    ("set personality", ".linux.personality", _kernel.ATTR_PERSONALITY, _numbers),
    ("set scheduler", ".process.scheduler", _kernel.ATTR_SCHEDULER, _nothing),
    ("set I/O priority", ".process.ioPriority", _kernel.ATTR_IO_PRIORITY, _numbers),
    ("set memory policy", ".linux.memoryPolicy", _kernel.ATTR_MEMORY_POLICY, _nothing),
    ("set AppArmor profile", ".process.apparmorProfile", _kernel.ATTR_APPARMOR, _words),
    ("set SELinux label", ".process.selinuxLabel", _kernel.ATTR_SELINUX, _words),
    ("set limits", ".process.rlimits", _kernel.ATTR_RLIMIT, _limit),
    ("set no_new_privs", ".process.noNewPrivileges", _kernel.ATTR_NO_NEW_PRIVS, _nothing),
)
IDENTITY: "Table" = (
    ("drop from the bounding set all but", ".process.capabilities.bounding", _kernel.ATTR_CAP_BOUNDING, _capabilities),
    ("set supplementary groups", ".process.user.additionalGids", _kernel.ATTR_GROUPS, _groups),
    ("set group id", ".process.user.gid", _kernel.ATTR_GID, _numbers),
    ("set user id", ".process.user.uid", _kernel.ATTR_UID, _numbers),
    ("enter working directory", ".process.cwd", _kernel.ATTR_CWD, _words),
    ("set effective capabilities", ".process.capabilities.effective", _kernel.ATTR_CAP_EFFECTIVE, _capabilities),
    ("set permitted capabilities", ".process.capabilities.permitted", _kernel.ATTR_CAP_PERMITTED, _capabilities),
    ("set inheritable capabilities", ".process.capabilities.inheritable", _kernel.ATTR_CAP_INHERITABLE, _capabilities),
    ("set ambient capabilities", ".process.capabilities.ambient", _kernel.ATTR_CAP_AMBIENT, _capabilities),
    ("set umask", ".process.user.umask", _kernel.ATTR_UMASK, _umask),
    ("set environment", ".process.env", _kernel.ATTR_ENV, _count),
)
FILTER: "Table" = (("load seccomp filter", ".linux.seccomp", _kernel.ATTR_SECCOMP_BPF, _filter),)
