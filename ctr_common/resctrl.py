"""The kernel's resctrl filesystem: where it is mounted, and what of Intel RDT the host has (resctrl.rst)."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

MOUNTINFO = "/proc/self/mountinfo"

MBM_TOTAL = "mbm_total_bytes"
MBM_LOCAL = "mbm_local_bytes"
LLC_OCCUPANCY = "llc_occupancy"


class Resctrl:
    """A mounted resctrl filesystem.

    Args:
        root: its mount point.
        software_controller: it is mounted with mba_MBps, so bandwidth is in MB/s.

    Attributes:
        allocates_cache: the L3 cache can be divided (CAT).
        allocates_bandwidth: memory bandwidth can be divided (MBA).
        monitors: the counters that there are: mbm_total_bytes, mbm_local_bytes, llc_occupancy.
    """

    __slots__ = ("allocates_bandwidth", "allocates_cache", "monitors", "root", "software_controller")

    def __init__(self, root: str, software_controller: bool = False) -> None:
        self.root = root
        self.software_controller = software_controller
        # With mount option cdp, code and data are two resources of their own.
        self.allocates_cache = any(os.path.isdir(f"{root}/info/{name}") for name in ("L3", "L3CODE"))
        self.allocates_bandwidth = software_controller or os.path.isdir(f"{root}/info/MB")
        self.monitors: Collection[str] = read(f"{root}/info/L3_MON/mon_features").split()


def find() -> "Resctrl | None":
    """The resctrl filesystem of this mount namespace, None if none is mounted."""
    try:
        with open(MOUNTINFO, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        # proc_pid_mountinfo(5): the fields of the superblock come after a lone dash.
        fields, dash, superblock = line.partition(b" - ")
        kind, _, rest = superblock.partition(b" ")
        if dash and kind == b"resctrl":
            options = rest.rpartition(b" ")[2].split(b",")
            return Resctrl(os.fsdecode(_unescape(fields.split(b" ")[4])), b"mba_MBps" in options)
    return None


def read(path: str) -> str:
    """Contents of a small file without white space around it; "" if it can't be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _unescape(path: bytes) -> bytes:
    """A path of mountinfo with its octal escapes (space, tab, newline, backslash) undone."""
    parts = path.split(b"\\")
    return parts[0] + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in parts[1:])
