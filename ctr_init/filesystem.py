"""New mounts of a filesystem type, by the fd-based mount calls: detached until all of their settings are right."""

import os

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_POSIXACL,
    MS_RDONLY,
    MS_SILENT,
    MS_SYNCHRONOUS,
)
from ctr_common.spec.mount_options import attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUPERBLOCK_FLAGS = (
    (MS_RDONLY, "ro"),
    (MS_SYNCHRONOUS, "sync"),
    (MS_DIRSYNC, "dirsync"),
    (MS_LAZYTIME, "lazytime"),
    (MS_MANDLOCK, "mand"),
)
# Flags of mount(2) for which fsconfig(2) has no name.
OLD_CALL_FLAGS = MS_I_VERSION | MS_POSIXACL | MS_SILENT
# fsconfig(2) takes strings of up to 255 bytes; lowerdir= of an overlay is often longer.
VALUE_MAX = 255


def split_data(options: "Iterable[str]") -> list[str]:
    """Filesystem options one by one; several may stand in one string, and a quoted value may have commas."""
    result = []
    for option in options:
        if '"' in option or "," not in option:
            result.append(option)
        else:
            result.extend(part for part in option.split(",") if part)
    return result


def needs_old_call(data: "Sequence[str]", flags: int) -> bool:
    """Whether mount(2) must be used."""
    return bool(flags & OLD_CALL_FLAGS) or any(len(os.fsencode(option)) > VALUE_MAX for option in data)


def new_mount(fstype: str, source: str, data: "Iterable[str]", flags: int, pid_namespace: int = -1) -> int:
    """A detached mount of a new filesystem instance.

    Args:
        fstype: as in /proc/filesystems.
        source: device, or a name to show in mountinfo.
        data: the filesystem's own options, `key` or `key=value`.
        flags: MS_*.
        pid_namespace: fd of the one that a procfs shows; -1 for the caller's.

    Returns:
        its fd.

    Raises:
        OSError: with what the filesystem says about the option that it did not like.
    """
    context = _kernel.fsopen(fstype)
    try:
        if source:
            _kernel.fsconfig(context, FSCONFIG_SET_STRING, "source", source)
        if flags:
            for flag, name in SUPERBLOCK_FLAGS:
                if flags & flag:
                    _kernel.fsconfig(context, FSCONFIG_SET_FLAG, name)
        for option in data:
            key, equals, value = option.partition("=")
            if equals:
                _kernel.fsconfig(context, FSCONFIG_SET_STRING, key, value.strip('"'))
            else:
                _kernel.fsconfig(context, FSCONFIG_SET_FLAG, key)
        if pid_namespace >= 0 and fstype == "proc":
            _kernel.fsconfig(context, FSCONFIG_SET_FD, "pidns", None, pid_namespace)
        _kernel.fsconfig(context, FSCONFIG_CMD_CREATE)
        return _kernel.fsmount(context, 0, attributes(flags))
    finally:
        os.close(context)


def mount_by_old_call(destination: int, fstype: str, source: str, data: "Sequence[str]", flags: int) -> None:
    """Mounts on a directory by mount(2).

    The directory becomes the working directory first, so that the path to it is just `.` and nobody can change it.
    """
    os.fchdir(destination)
    try:
        _kernel.mount(source or None, ".", fstype, flags, ",".join(data))
    finally:
        os.chdir("/")
