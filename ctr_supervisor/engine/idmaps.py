"""User and group id maps of a new user namespace."""

import os

from ctr_common.bootstrap import boolean, text
from ctr_common.errors import ConfigError, NotSupported
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_common.spec.types import IDMapping, Linux

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def encode(mappings: "Sequence[IDMapping]") -> str:
    """Mappings as uid_map and gid_map take them (user_namespaces(7))."""
    return "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in mappings)


def attributes(linux: "Linux", *, rootless: bool) -> "list[tuple[int, bytes]]":
    """BOOTSTRAP attributes for the maps of a new user namespace.

    Args:
        rootless: we may map nothing but ourselves; more takes newuidmap and newgidmap.

    Raises:
        NotSupported: a mapping tool is needed and not installed.
    """
    uids = linux.get("uidMappings") or []
    gids = linux.get("gidMappings") or []
    found = []
    if uids:
        found.append((_kernel.ATTR_UIDMAP, text(encode(uids))))
    if gids:
        found.append((_kernel.ATTR_GIDMAP, text(encode(gids))))
    if not rootless:
        return found
    if needs_tool(uids, os.geteuid()):
        found.append((_kernel.ATTR_NEWUIDMAP, text(find_tool("newuidmap"))))
    if needs_tool(gids, os.getegid()):
        found.append((_kernel.ATTR_NEWGIDMAP, text(find_tool("newgidmap"))))
    else:
        # user_namespaces(7): without CAP_SETGID outside, setgroups must be denied before gid_map can be written.
        found.append((_kernel.ATTR_SETGROUPS_DENY, boolean(True)))
    return found


def needs_tool(mappings: "Sequence[IDMapping]", own: int) -> bool:
    """Whether an unprivileged user can't write this map without help: anything but one line that maps oneself."""
    return not (len(mappings) == 1 and mappings[0]["hostID"] == own and mappings[0]["size"] == 1)


def find_tool(name: str) -> str:
    """Absolute path of a mapping tool.

    Raises:
        NotSupported: it is not installed.
    """
    for directory in (os.environ.get("PATH") or SEARCH_PATH).split(":"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    raise NotSupported(
        f"the id mappings need {name}, which is not on PATH", hint="install the package uidmap (shadow-utils)"
    )


def host_root(linux: "Linux") -> "tuple[int, int]":
    """Host ids of the container's uid 0 and gid 0.

    Raises:
        ConfigError: a map is given and leaves 0 out.
    """
    return (
        to_host(linux.get("uidMappings") or (), 0, ".linux.uidMappings", os.geteuid()),
        to_host(linux.get("gidMappings") or (), 0, ".linux.gidMappings", os.getegid()),
    )


def to_host(mappings: "Sequence[IDMapping]", inside: int, json_path: str, default: int) -> int:
    """The host id of an id inside.

    Args:
        default: the answer without mappings (no user namespace, or one that is joined).

    Raises:
        ConfigError: it is not mapped.
    """
    if not mappings:
        return default
    for entry in mappings:
        offset = inside - entry["containerID"]
        if 0 <= offset < entry["size"]:
            return entry["hostID"] + offset
    raise ConfigError(f"container id {inside} is not mapped", json_path=json_path)
