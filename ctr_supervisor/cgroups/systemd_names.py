"""What systemd calls the cgroup of a container: its slice, its unit, and where these are in a hierarchy.

Sources: systemd.slice(5), systemd.scope(5), systemd.unit(5); the form of `cgroupsPath` is the one that engines agreed
on for this driver.
"""

from ctr_common.errors import CgroupError

JSON_PATH = ".linux.cgroupsPath"

# What runc says. Unit names are seen by whoever monitors a host (systemd-cgls, exporters that match on scope prefixes),
# so a host on which runc was replaced keeps the names that it had.
DEFAULT_PREFIX = "runc"
SYSTEM_SLICE = "system.slice"
USER_SLICE = "user.slice"

# systemd.unit(5): "a unit name must consist of valid characters" and is at most 255 of them long.
_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@")
_LENGTH_MAX = 255


class Place:
    """Where a container is in the eyes of systemd.

    Attributes:
        slice: name of the slice above it.
        unit: name of the unit; a scope, or a slice if the configuration names one.
        name: the last part of `cgroupsPath`, for the unit's description.
    """

    __slots__ = ("name", "slice", "unit")

    def __init__(self, slice: str, unit: str, name: str) -> None:
        self.slice = slice
        self.unit = unit
        self.name = name

    def is_slice(self) -> bool:
        """Whether the unit is a slice, which systemd puts no process into."""
        return self.unit.endswith(".slice")

    def path(self) -> str:
        """The cgroup, from the top of what the service manager manages."""
        return f"{expand_slice(self.slice).rstrip('/')}/{self.unit}"


def place(cgroups_path: str, container_id: str, *, user: bool) -> Place:
    """The place that a configuration asks for.

    Args:
        cgroups_path: `slice:prefix:name`; "" for the default one.
        container_id: name of the unit if the configuration has none.
        user: the user's service manager is asked, not the system's.

    Raises:
        CgroupError: it is not of that form, or systemd could have no such unit.
    """
    above, prefix, name = "", DEFAULT_PREFIX, container_id
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise CgroupError(
                f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{cgroups_path}" '
                "instead",
                json_path=JSON_PATH,
            )
        above, prefix, name = parts
    above = above or (USER_SLICE if user else SYSTEM_SLICE)
    expand_slice(above)
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
    if unit.endswith(".slice"):
        expand_slice(unit)
    check_unit(unit)
    return Place(above, unit, name)


def check_unit(unit: str) -> None:
    """Makes sure that a name can be a unit's, and so one step of a path.

    Raises:
        CgroupError: it can't.
    """
    if not 0 < len(unit) <= _LENGTH_MAX or not _CHARACTERS.issuperset(unit):
        raise CgroupError(f'invalid unit name "{unit}"', json_path=JSON_PATH)


def expand_slice(slice: str) -> str:
    """Path of a slice: `a-b.slice` is `/a.slice/a-b.slice`, as each dash is a step down (systemd.slice(5)).

    Raises:
        CgroupError: systemd knows no such slice.
    """
    stem = slice.removesuffix(".slice")
    if stem == "-" and slice != stem:
        return "/"
    components = stem.split("-")
    if slice == stem or not _CHARACTERS.issuperset(slice) or "" in components or len(slice) > _LENGTH_MAX:
        raise CgroupError(f"invalid slice name: {slice}", json_path=JSON_PATH)
    return "".join(f"/{'-'.join(components[: count + 1])}.slice" for count in range(len(components)))
