"""Intel RDT (`.linux.intelRdt`): the share of cache and memory bandwidth that a container gets, and what it uses.

A class of service (CLOS) is a directory of the resctrl filesystem: `schemata` says what its tasks may use. One named by
the container is the container's own, made and removed with it; one named by `closID` is shared, and usually somebody
else's. A monitoring group below it counts for one container.
"""

import errno
import os

from ctr_common import resctrl
from ctr_common.errors import ConfigError, CtrError, NotSupported
from ctr_common.fd import Fd
from ctr_supervisor.process import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ctr_common.spec.types import IntelRdt

WHERE = ".linux.intelRdt"
STEP = "unable to apply Intel RDT configuration"

ROOT_CLOS = "/"  # as a closID: the default group, where every task starts
RESERVED = ("info", "mon_data", "mon_groups")  # what the kernel has in the root itself

SCHEMATA = "schemata"
TASKS = "tasks"

# How often to make a class of service anew that another container's end removed before this one was in.
ATTEMPTS = 5


class Group:
    """Where a container is in the resctrl filesystem.

    Args:
        root: mount point of resctrl.
        path: directory of the class of service.
        monitoring_path: directory of the container's monitoring group, "" for none.
        owned: the directory is this container's to remove.
        shared: others may be in it, so it is removed only when it is empty.
    """

    __slots__ = ("monitoring_path", "owned", "path", "root", "shared")

    def __init__(
        self, root: str, path: str, monitoring_path: str = "", owned: bool = False, shared: bool = False
    ) -> None:
        self.root = root
        self.path = path
        self.monitoring_path = monitoring_path
        self.owned = owned
        self.shared = shared

    def as_state(self) -> "dict[str, Any]":
        """The group as keys of state.json; `intel_rdt_path` is runc's name."""
        return {
            "intel_rdt_path": self.path,
            "intel_rdt_monitoring_path": self.monitoring_path,
            "intel_rdt_owned": self.owned,
            "intel_rdt_shared": self.shared,
            "intel_rdt_root": self.root,
        }


def from_state(state: "dict[str, Any]") -> "Group | None":
    """The group that `as_state` described, None for a container that has none."""
    path = state.get("intel_rdt_path")
    if not path:
        return None
    return Group(
        state["intel_rdt_root"],
        path,
        state.get("intel_rdt_monitoring_path", ""),
        owned=bool(state.get("intel_rdt_owned")),
        shared=bool(state.get("intel_rdt_shared")),
    )


def plan(rdt: "IntelRdt", container_id: str, mounted: "resctrl.Resctrl | None" = None) -> Group:
    """Where a container will be; makes nothing.

    Args:
        rdt: `.linux.intelRdt`, which may be empty: then the container gets a class of service of its own.
        container_id: names what is its own.
        mounted: the filesystem; None to look for it.

    Raises:
        NotSupported: no resctrl filesystem is mounted.
        ConfigError: the name is one that the kernel has taken.
    """
    mounted = mounted or resctrl.find()
    if mounted is None:
        raise NotSupported("intelRdt is specified in config, but Intel RDT is not enabled", json_path=WHERE)
    given = rdt.get("closID") or ""
    name = given or container_id
    if name in RESERVED:
        raise ConfigError(f"{name} cannot be the name of a class of service", json_path=f"{WHERE}.closID")
    path = mounted.root if name == ROOT_CLOS else f"{mounted.root}/{name}"
    return Group(
        mounted.root,
        path,
        f"{path}/mon_groups/{container_id}" if monitors(rdt) else "",
        # What has been there before is somebody else's.
        owned=not given or not os.path.isdir(path),
        shared=bool(given),
    )


def monitors(rdt: "IntelRdt") -> bool:
    """Whether the container is to have counters of its own; enableCMT and enableMBM said so before version 1.3."""
    return any(rdt.get(key) for key in ("enableMonitoring", "enableCMT", "enableMBM"))


def joined(rdt: "IntelRdt") -> str:
    """What `schemata` is to hold: the L3 and the bandwidth schema, then the lines of `schemata` (config-linux.md)."""
    cache, bandwidth = rdt.get("l3CacheSchema") or "", rdt.get("memBwSchema") or ""
    if bandwidth:
        cache = "\n".join(line for line in cache.split("\n") if not line.startswith("MB:"))
    lines = [cache, bandwidth, *(rdt.get("schemata") or ())]
    return "".join(f"{line}\n" for line in lines if line)


def apply(group: Group, pid: int, rdt: "IntelRdt") -> None:
    """Makes what there is to make, sets what there is to set, and puts a process in.

    Args:
        group: as planned.
        pid: a process with one thread; what it forks later follows it.
        rdt: `.linux.intelRdt`.

    Raises:
        ConfigError: the class of service was to be there and is not, or is there and different.
        CtrError: the kernel refused; says what resctrl gives as the reason.
    """
    schemata = joined(rdt)
    if rdt.get("closID") and not schemata and not os.path.isdir(group.path):
        raise ConfigError(
            f"clos dir not accessible (must be pre-created when l3CacheSchema, memBwSchema and schemata are empty): "
            f"{group.path}",
            step=STEP,
            json_path=f"{WHERE}.closID",
        )
    for attempt in range(ATTEMPTS):
        made = _make(group.root, group.path)
        try:
            if schemata and rdt.get("closID") and not made:
                _compare(group, schemata)
            elif schemata:
                set_schemata(group, schemata)
            if group.monitoring_path:
                _make(group.root, group.monitoring_path)
            add_pid(group, pid)
            return
        except CtrError as error:
            # Its last user may have removed it after it was found to be there.
            if error.errno != errno.ENOENT or attempt == ATTEMPTS - 1 or os.path.isdir(group.path):
                raise


def add_pid(group: Group, pid: int) -> None:
    """Puts one more process in.

    Raises:
        CtrError: the kernel refused.
    """
    _write(group.root, f"{group.path}/{TASKS}", f"{pid}\n")
    if group.monitoring_path:
        # Only now: a task can be in those monitoring groups alone that are of its class of service.
        _write(group.root, f"{group.monitoring_path}/{TASKS}", f"{pid}\n")


def join(state: "dict[str, Any]", pid: int) -> None:
    """Puts a process of `exec` where the container is; does nothing if the administrator removed that meanwhile.

    Args:
        state: state.json of the container.
        pid: a process with one thread.

    Raises:
        CtrError: the kernel refused.
    """
    group = from_state(state)
    if group is not None and os.path.isdir(group.path):
        add_pid(group, pid)


def set_schemata(group: Group, schemata: str) -> None:
    """Sets what the tasks of a class of service may use.

    Args:
        schemata: lines such as `L3:0=f0;1=f`, as `joined` makes them.

    Raises:
        CtrError: the kernel refused.
    """
    _write(group.root, f"{group.path}/{SCHEMATA}", schemata)


def schemata(group: Group) -> str:
    """What the tasks of a class of service may use, as `set_schemata` takes it."""
    lines = resctrl.read(f"{group.path}/{SCHEMATA}").splitlines()
    return "".join(f"{line.strip()}\n" for line in lines if line.strip())


def update(
    rdt: "IntelRdt", group: "Group | None", container_id: str, pid: int, l3_cache: str = "", mem_bw: str = ""
) -> "tuple[IntelRdt, Group]":
    """Changes the schemata of a running container (`update --l3-cache-schema`, `--mem-bw-schema`).

    Args:
        rdt: `.linux.intelRdt` of its configuration, {} if there is none.
        group: as of its state; None if it has none: it gets one of its own then, as with runc.
        container_id: its id.
        pid: of its init process.
        l3_cache: new schema, "" to leave it alone.
        mem_bw: likewise.

    Returns:
        What belongs into the configuration and the state from now on.

    Raises:
        NotSupported: the host lacks it.
        CtrError: the kernel refused; nothing has changed then.
    """
    mounted = resctrl.find()
    if l3_cache and not (mounted and mounted.allocates_cache):
        raise NotSupported("Intel RDT/CAT: l3 cache schema is not enabled")
    if mem_bw and not (mounted and mounted.allocates_bandwidth):
        raise NotSupported("Intel RDT/MBA: memory bandwidth schema is not enabled")
    changed = rdt.copy()
    if l3_cache:
        changed["l3CacheSchema"] = l3_cache
    if mem_bw:
        changed["memBwSchema"] = mem_bw
    wanted = joined({"l3CacheSchema": l3_cache, "memBwSchema": mem_bw})
    if group is not None:
        set_schemata(group, wanted)
        return changed, group
    group = plan(rdt, container_id, mounted)
    try:
        apply(group, pid, changed)
    except CtrError:
        remove(group)
        raise
    return changed, group


def remove(group: Group) -> None:
    """Removes what is the container's own; may be run twice.

    A class of service with a name of its own that this container made goes with its last container only: what is in
    it would fall back into the root group.

    Raises:
        CtrError: the kernel refused.
    """
    if group.monitoring_path:
        _remove(group.monitoring_path)
    if group.owned and not (group.shared and _is_used(group.path)):
        _remove(group.path)


def _is_used(path: str) -> bool:
    """Whether a task of a group still runs; one that waits for its parent to ask how it ended is listed too."""
    stats = [status.read_stat(int(word)) for word in resctrl.read(f"{path}/{TASKS}").split()]
    return any(stat is not None and stat[0] not in status.DEAD_STATES for stat in stats)


def statistics(group: Group, mounted: "resctrl.Resctrl | None" = None) -> "dict[str, Any]":
    """What a container may use and uses, in the keys of runc's `events`; what the host lacks is left out.

    Args:
        mounted: the filesystem; None to look for it.
    """
    mounted = mounted or resctrl.find()
    if mounted is None:
        return {}
    found: dict[str, Any] = {}
    root, own = (resctrl.read(f"{path}/{SCHEMATA}").splitlines() for path in (group.root, group.path))
    for enabled, key, prefix, info in (
        (mounted.allocates_cache, "l3_cache", "L3", _cache_info),
        (mounted.allocates_bandwidth, "mem_bw", "MB", _bandwidth_info),
    ):
        if not enabled:
            continue
        found[f"{key}_info"] = info(group.root)
        for name, lines in ((f"{key}_schema_root", root), (f"{key}_schema", own)):
            text = next((line.strip() for line in lines if line.strip().startswith(prefix)), "")
            if text:
                found[name] = text
    data = f"{group.monitoring_path or group.path}/mon_data"
    domains = sorted(name for name in _listing(data) if os.path.isdir(f"{data}/{name}"))
    bandwidth = [name for name in (resctrl.MBM_TOTAL, resctrl.MBM_LOCAL) if name in mounted.monitors]
    if bandwidth:
        found["mbm_stats"] = [_numbers(f"{data}/{domain}", bandwidth) for domain in domains]
    if resctrl.LLC_OCCUPANCY in mounted.monitors:
        found["cmt_stats"] = [_numbers(f"{data}/{domain}", [resctrl.LLC_OCCUPANCY]) for domain in domains]
    return found


def _cache_info(root: str) -> "dict[str, Any]":
    directory = f"{root}/info/L3" if os.path.isdir(f"{root}/info/L3") else f"{root}/info/L3CODE"
    mask = resctrl.read(f"{directory}/cbm_mask")
    info: dict[str, Any] = {"cbm_mask": mask} if mask else {}
    return {**info, **_numbers(directory, ["min_cbm_bits", "num_closids"])}


def _bandwidth_info(root: str) -> "dict[str, Any]":
    return _numbers(f"{root}/info/MB", ["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"])


def _numbers(directory: str, names: "Sequence[str]") -> "dict[str, int]":
    """Those of the files that hold a number: a counter can be `Unavailable` or `Error`; like Go's, 0 is left out."""
    found = {}
    for name in names:
        text = resctrl.read(f"{directory}/{name}")
        if text.isdecimal() and int(text):
            found[name] = int(text)
    return found


def _listing(path: str) -> "list[str]":
    try:
        return os.listdir(path)
    except OSError:
        return []


def _compare(group: Group, schemata: str) -> None:
    """Holds what is asked for against a class of service that was there already (config-linux.md, "IntelRdt").

    Raises:
        ConfigError: it allows its tasks something else.
    """
    present = _parse(resctrl.read(f"{group.path}/{SCHEMATA}"))
    for (resource, domain), value in _parse(schemata).items():
        there = present.get((resource, domain))
        if there is not None and not _same(group.root, resource, value, there):
            raise ConfigError(
                f"class of service {group.path} has {resource}:{domain}={there}, but {value} is asked for",
                step=STEP,
                json_path=f"{WHERE}.closID",
                hint="leave the schemata out to use it as it is",
            )


def _parse(schemata: str) -> "dict[tuple[str, str], str]":
    """(resource, domain) → value, of lines such as `  L3:0=fffff;1=fffff`."""
    found = {}
    for line in schemata.splitlines():
        resource, _, rest = line.partition(":")
        for entry in rest.split(";"):
            domain, equals, value = entry.partition("=")
            if equals:
                found[resource.strip(), domain.strip()] = value.strip()
    return found


def _same(root: str, resource: str, wanted: str, there: str) -> bool:
    """Whether the kernel would print `there` for `wanted`: masks are hexadecimal, bandwidth is rounded up."""
    try:
        if resource != "MB":
            return int(wanted, 16) == int(there, 16)
        step = int(resctrl.read(f"{root}/info/MB/bandwidth_gran") or 1)
        return int(there) in (int(wanted), -(-int(wanted) // step) * step)
    except ValueError:
        return wanted == there


# -- the filesystem


def _make(root: str, path: str) -> bool:
    """Makes a group; says whether it was not there before."""
    try:
        make_group(path)
    except FileExistsError:
        return False
    except OSError as error:
        raise _failure(root, path, error) from None
    return True


def _remove(path: str) -> None:
    try:
        remove_group(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CtrError.from_os_error(error, "remove the resctrl group", path) from None


def make_group(path: str) -> None:
    """mkdir; the kernel puts the group's files there."""
    os.mkdir(path, 0o755)


def remove_group(path: str) -> None:
    """rmdir; the kernel takes them away, and moves tasks that are left to the parent group."""
    os.rmdir(path)


def _write(root: str, path: str, text: str) -> None:
    # In one write: resctrl takes each one for a whole command.
    try:
        with Fd(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)) as fd:
            os.write(fd.fileno(), text.encode())
    except OSError as error:
        raise _failure(root, path, error) from None


def _failure(root: str, path: str, error: OSError) -> CtrError:
    """An error with what resctrl says about the last command that it refused."""
    told = resctrl.read(f"{root}/info/last_cmd_status")
    message = f"{path} (last_cmd_status: {told})" if told and told != "ok" else path
    return CtrError(message, step=STEP, errno=error.errno or 0, path=path)
