"""Checks what a configuration means: values, combinations, and what they need on this host.

The types are right already (`load.py`). Everything that is wrong is collected and raised as one ConfigError. Where a
user of runc knows the words of an error, they are the same here.
"""

import os
import stat

from ctr_common.errors import UsageError, strerror
from ctr_common.fastjson import dumps
from ctr_common.spec.problems import Problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import Config, Mount, Process

ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
ID_LENGTH = 255  # NAME_MAX: the id is the name of the state directory

HOSTNAME_LENGTH = 64  # __NEW_UTS_LEN


def validate_id(container_id: str) -> None:
    """Checks the id of a container, which becomes the name of a directory and of a cgroup.

    Raises:
        UsageError: it is empty, too long, `.` or `..`, or has other characters than letters, digits and `_+-.`.
    """
    if not container_id:
        raise UsageError("container id cannot be empty")
    if not ID_CHARACTERS.issuperset(container_id) or container_id in (".", ".."):
        raise UsageError(f"invalid container ID format: {dumps(container_id)}")
    if len(container_id) > ID_LENGTH:
        raise UsageError(f"container ID is longer than {ID_LENGTH} characters")


def rootfs_path(config: "Config", bundle: str) -> str:
    """Absolute path of the root filesystem, without symlinks in the bundle's part of it.

    Args:
        config: with `.root.path`, which is relative to the bundle or absolute.
        bundle: its directory.
    """
    return os.path.normpath(os.path.join(os.path.realpath(bundle), config["root"]["path"]))


def check(config: "Config", bundle: str, *, rootless: bool) -> "list[str]":
    """Checks a configuration that `load_config` returned.

    Args:
        config: the configuration.
        bundle: directory that it came from.
        rootless: the engine has no privileges on the host.

    Returns:
        warnings, one line each, about what is tolerated as runc does.

    Raises:
        ConfigError: `.problems` lists everything that is wrong as (JSON path, message).
    """
    # Imported here because every verb checks an id with this module, and only `create` checks more.
    from ctr_common.spec import validate_linux, validate_process

    problems = Problems()
    warnings: list[str] = []
    _check_version(config, problems)
    process = config.get("process")
    if process is None:
        problems.add(".process", "process property must not be empty")
    else:
        validate_process.check(process, ".process", problems, warnings)
        validate_process.check_ids(process, config, rootless, problems)
    _check_root(config, bundle, problems)
    _check_names(config, problems)
    _check_mounts(config.get("mounts") or [], problems, warnings)
    kinds = [entry["type"] for entry in (config.get("linux") or {}).get("namespaces") or ()]
    if config.get("mounts") and "mount" not in kinds:
        warnings.append(".mounts: none of them is made, since without a mount namespace they would be the host's")
    _check_hooks(config, problems)
    if "" in (config.get("annotations") or {}):
        problems.add('.annotations[""]', "a key must not be empty")
    validate_linux.check(config, rootless, problems)
    problems.raise_first()
    return warnings


def check_process(process: "Process", config: "Config", *, rootless: bool) -> "list[str]":
    """Checks a process to run in an existing container.

    Args:
        process: what `load_process` returned, or the command line made.
        config: configuration of the container.
        rootless: the engine has no privileges on the host.

    Returns:
        warnings, as `check`.

    Raises:
        ConfigError: JSON paths start at the process.
    """
    from ctr_common.spec import validate_process

    problems = Problems()
    warnings: list[str] = []
    validate_process.check(process, "", problems, warnings)
    validate_process.check_ids(process, config, rootless, problems, "")
    problems.raise_first()
    return warnings


def _check_version(config: "Config", problems: "Problems") -> None:
    version = config["ociVersion"]
    core = version.partition("+")[0].partition("-")[0].split(".")
    if len(core) != 3 or not all(part.isascii() and part.isdigit() for part in core):
        problems.add(".ociVersion", f"expected a semantic version such as 1.3.0, got {dumps(version)}")
    elif core[0] != "1":
        problems.add(".ociVersion", f"version {version} is not supported, expected 1.x")


def _check_root(config: "Config", bundle: str, problems: "Problems") -> None:
    root = config.get("root")
    if root is None:
        problems.add(".root", "root must be specified")
        return
    if not root["path"]:
        problems.add(".root.path", "must not be empty")
        return
    path = rootfs_path(config, bundle)
    try:
        status = os.stat(path)
    except OSError as error:
        problems.add(".root.path", f"invalid rootfs: stat {path}: {strerror(error.errno or 0)}")
        return
    if not stat.S_ISDIR(status.st_mode):
        problems.add(".root.path", f"invalid rootfs: {path} is not a directory")
    elif os.path.realpath(path) != path:
        # A symlink could be pointed elsewhere between this check and the mount (CVE-2021-30465's kind of race).
        problems.add(".root.path", "invalid rootfs: not an absolute path, or a symlink")


def _check_names(config: "Config", problems: "Problems") -> None:
    kinds = [entry["type"] for entry in (config.get("linux") or {}).get("namespaces") or []]
    for key, name in (("hostname", config.get("hostname")), ("domainname", config.get("domainname"))):
        if not name:
            continue
        if "uts" not in kinds:
            problems.add(f".{key}", f"unable to set {key} without a private UTS namespace")
        if len(name.encode(errors="replace")) > HOSTNAME_LENGTH:
            problems.add(f".{key}", f"longer than {HOSTNAME_LENGTH} bytes")


def is_bind(mount: "Mount") -> bool:
    """Whether a mount is a bind mount: its options say so, whatever its type is."""
    options = mount.get("options") or ()
    return "bind" in options or "rbind" in options or mount.get("type") == "bind"


def _check_mounts(mounts: "list[Mount]", problems: "Problems", warnings: "list[str]") -> None:
    seen: dict[tuple[object, ...], int] = {}
    for index, mount in enumerate(mounts):
        where = f".mounts[{index}]"
        destination = mount["destination"]
        if not destination:
            problems.add(f"{where}.destination", "must not be empty")
        elif not destination.startswith("/"):
            warnings.append(f"{where}.destination: {dumps(destination)} is not absolute, taken as /{destination}")
        # Mounting over a destination once more is what engines do; the very same mount twice is a mistake.
        maps = repr((mount.get("uidMappings"), mount.get("gidMappings"))) if "uidMappings" in mount else ""
        entry = (destination, mount.get("type"), mount.get("source"), *(mount.get("options") or ()), maps)
        first = seen.setdefault(entry, index)
        if first != index:
            problems.add(where, f"is the same mount as .mounts[{first}], on {destination}")
        if is_bind(mount) and not mount.get("source"):
            problems.add(f"{where}.source", "is missing, a bind mount needs one")
        _check_idmap(mount, where, problems)


def _check_idmap(mount: "Mount", where: str, problems: "Problems") -> None:
    uids, gids = mount.get("uidMappings") or [], mount.get("gidMappings") or []
    if not uids and not gids:
        return
    if not uids or not gids:
        missing = "gidMappings" if uids else "uidMappings"
        problems.add(f"{where}.{missing}", "id-mapped mounts must specify both uidMappings and gidMappings")
    if not is_bind(mount):
        problems.add(where, "id-mapped mounts must be bind mounts")
    from ctr_common.spec.validate_linux import check_mappings

    check_mappings(uids, f"{where}.uidMappings", problems)
    check_mappings(gids, f"{where}.gidMappings", problems)


def _check_hooks(config: "Config", problems: "Problems") -> None:
    for kind, hooks in (config.get("hooks") or {}).items():
        if not isinstance(hooks, list):  # an unknown property
            continue
        for index, hook in enumerate(hooks):
            if not isinstance(hook, dict) or "path" not in hook:
                continue
            where = f".hooks.{kind}[{index}]"
            if not hook["path"].startswith("/"):
                problems.add(f"{where}.path", f"expected an absolute path, got {dumps(hook['path'])}")
            timeout = hook.get("timeout")
            if timeout is not None and not 0 < timeout < 2**32:
                problems.add(f"{where}.timeout", f"expected a number of seconds above 0, got {timeout}")
