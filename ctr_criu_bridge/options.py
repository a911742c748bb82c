"""What a caller wants of a dump or a restore, as options of CRIU's RPC, with the version that they need."""

from ctr_common.errors import UsageError
from ctr_criu_bridge import rpc, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ctr_criu_bridge.work import Folders

    Wishes = Mapping[str, Any]

LOG_LEVEL = 4

# Wishes that are options of the same name and meaning, whichever CRIU this is.
PLAIN = {
    "leave_running": bool,
    "ext_unix_sk": bool,
    "tcp_established": bool,
    "tcp_close": bool,
    "tcp_skip_in_flight": bool,
    "shell_job": bool,
    "file_locks": bool,
    "link_remap": bool,
    "auto_dedup": bool,
    "lazy_pages": bool,
    "evasive_devices": bool,
    "ghost_limit": int,
    "empty_ns": int,
    "pid": int,
    "root": str,
    "parent_img": str,
    "track_mem": bool,
    "timeout": int,
}
# Wish: (type, least version, what it is called).
NEWER = {
    "config_file": (str, version.CONFIG_FILE, "a configuration file"),
    "lsm_profile": (str, version.LSM_PROFILE, "--lsm-profile"),
    "lsm_mount_context": (str, version.LSM_MOUNT_CONTEXT, "--lsm-mount-context"),
}
# Wishes that are more than one value, or have no option of their own.
STRUCTURED = {
    "cgroup_mode": str,
    "cgroup_controllers": list,
    "network_lock": str,
    "freeze_cgroup": str,
    "freeze_cgroup_v2": bool,
    "page_server": list,
    "external_mounts": list,
    "external_namespaces": list,
    "inherit": list,
    "veths": list,
}
CGROUP_MODES = {
    "soft": "SOFT",
    "full": "FULL",
    "strict": "STRICT",
    "ignore": "IGNORE",
    "none": "CG_NONE",
    "props": "PROPS",
}
NETWORK_LOCKS = {"iptables": "IPTABLES", "nftables": "NFTABLES", "skip": "SKIP"}
NAMESPACE_VERSIONS = {"net": version.EXTERNAL_NET_NAMESPACE, "pid": version.EXTERNAL_PID_NAMESPACE}
# Names under which external namespaces stand in the images, as runc has them: each can restore the other's.
NAMESPACE_KEYS = {"net": "extRootNetNS", "pid": "extRootPidNS"}


def check(wishes: "Wishes") -> None:
    """Refuses wishes that there are not, or of a wrong type.

    Raises:
        UsageError: names the first one.
    """
    types = {**PLAIN, **{name: kind for name, (kind, _, _) in NEWER.items()}, **STRUCTURED}
    for name, value in wishes.items():
        kind = types.get(name)
        if kind is None:
            raise UsageError(f"no such option: {name}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise UsageError(f"{name} is {type(value).__name__}, expected {kind.__name__}")


def common(folders: "Folders", log_file: str) -> "dict[str, Any]":
    """The options that each dump and each restore has."""
    return {
        "images_dir_fd": folders.images,
        "work_dir_fd": folders.work,
        "log_level": LOG_LEVEL,
        "log_file": log_file,
        "notify_scripts": True,
        "manage_cgroups": True,
        "orphan_pts_master": True,
    }


def fill(options: "dict[str, Any]", wishes: "Wishes", found: int) -> None:
    """Puts wishes into the options of a request.

    Args:
        options: changed here.
        wishes: checked ones.
        found: CRIU's version.

    Raises:
        CriuError: a wish needs a newer CRIU.
        UsageError: a value is not possible.
    """
    for name in PLAIN:
        if name in wishes:
            options[name] = wishes[name]
    for name, (_, minimum, what) in NEWER.items():
        if name in wishes:
            version.require(found, minimum, what)
            options[name] = wishes[name]
    lists = {
        "ext_mnt": [{"key": key, "val": value} for key, value in wishes.get("external_mounts", ())],
        "veths": [{"if_in": inside, "if_out": outside} for inside, outside in wishes.get("veths", ())],
        # CRIU before 2.2 leaves this unread, and dumps all.
        "cgroup_dump_controller": list(wishes.get("cgroup_controllers", ())),
        "inherit_fd": [{"key": key, "fd": fd} for key, fd in wishes.get("inherit", ())],
        # An older CRIU makes a namespace of its own instead, as it always did.
        "external": [
            f"{kind}[{inode}]:{NAMESPACE_KEYS[kind]}"
            for kind, inode in wishes.get("external_namespaces", ())
            if found >= NAMESPACE_VERSIONS[kind]
        ],
    }
    options.update((name, value) for name, value in lists.items() if value)
    if wishes.get("freeze_cgroup") and (not wishes.get("freeze_cgroup_v2") or found >= version.FREEZE_CGROUP_V2):
        options["freeze_cgroup"] = wishes["freeze_cgroup"]
    if wishes.get("page_server"):
        address, port = wishes["page_server"]
        options["ps"] = {"address": address, "port": port}
    fill_modes(options, wishes, found)


def fill_modes(options: "dict[str, Any]", wishes: "Wishes", found: int) -> None:
    """Puts in what is one of several ways: cgroups, the network's lock. Nothing is said where nothing was asked for."""
    mode = wishes.get("cgroup_mode")
    if mode:
        version.require(found, version.MANAGE_CGROUPS_MODE, "--manage-cgroups-mode")
        options["manage_cgroups_mode"] = rpc.ENUMS["cg_mode"][_one_of("manage-cgroups-mode", mode, CGROUP_MODES)]
    lock = wishes.get("network_lock")
    if lock:
        version.require(found, version.NETWORK_LOCK, "--network-lock")
        name = _one_of("network-lock", lock, NETWORK_LOCKS)
        options["network_lock"] = rpc.ENUMS["network_lock_method"][name]


def _one_of(what: str, value: str, known: "Mapping[str, str]") -> str:
    if value not in known:
        raise UsageError(f"{what} is {value}, expected one of {', '.join(known)}")
    return known[value]
