"""The options of a mount in config.json, told apart: flags, propagation, recursive attributes, extensions, data.

Source: runtime-spec, config-linux.md and config.md, "Linux mount options"; mount(2), mount_setattr(2).
"""

from ctr_common.kernel.constants import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_POSIXACL,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# name: (sets the flag, flag); an option that does not set clears it. `defaults` and its like do neither.
FLAGS = {
    "acl": (True, MS_POSIXACL),
    "async": (False, MS_SYNCHRONOUS),
    "atime": (False, MS_NOATIME),
    "bind": (True, MS_BIND),
    "defaults": (True, 0),
    "dev": (False, MS_NODEV),
    "diratime": (False, MS_NODIRATIME),
    "dirsync": (True, MS_DIRSYNC),
    "exec": (False, MS_NOEXEC),
    "iversion": (True, MS_I_VERSION),
    "lazytime": (True, MS_LAZYTIME),
    "loud": (False, MS_SILENT),
    "mand": (True, MS_MANDLOCK),
    "noacl": (False, MS_POSIXACL),
    "noatime": (True, MS_NOATIME),
    "nodev": (True, MS_NODEV),
    "nodiratime": (True, MS_NODIRATIME),
    "noexec": (True, MS_NOEXEC),
    "noiversion": (False, MS_I_VERSION),
    "nolazytime": (False, MS_LAZYTIME),
    "nomand": (False, MS_MANDLOCK),
    "norelatime": (False, MS_RELATIME),
    "nostrictatime": (False, MS_STRICTATIME),
    "nosuid": (True, MS_NOSUID),
    "nosymfollow": (True, MS_NOSYMFOLLOW),
    "rbind": (True, MS_BIND | MS_REC),
    "relatime": (True, MS_RELATIME),
    "remount": (True, MS_REMOUNT),
    "ro": (True, MS_RDONLY),
    "rw": (False, MS_RDONLY),
    "silent": (True, MS_SILENT),
    "strictatime": (True, MS_STRICTATIME),
    "suid": (False, MS_NOSUID),
    "symfollow": (False, MS_NOSYMFOLLOW),
    "sync": (True, MS_SYNCHRONOUS),
}

PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "unbindable": MS_UNBINDABLE,
}

# The same for attributes of the whole tree below a bind mount, by mount_setattr(2) with AT_RECURSIVE.
RECURSIVE = {
    "ratime": (False, MOUNT_ATTR_NOATIME),
    "rdev": (False, MOUNT_ATTR_NODEV),
    "rdiratime": (False, MOUNT_ATTR_NODIRATIME),
    "rexec": (False, MOUNT_ATTR_NOEXEC),
    "rnoatime": (True, MOUNT_ATTR_NOATIME),
    "rnodev": (True, MOUNT_ATTR_NODEV),
    "rnodiratime": (True, MOUNT_ATTR_NODIRATIME),
    "rnoexec": (True, MOUNT_ATTR_NOEXEC),
    "rnorelatime": (False, MOUNT_ATTR_RELATIME),
    "rnostrictatime": (False, MOUNT_ATTR_STRICTATIME),
    "rnosuid": (True, MOUNT_ATTR_NOSUID),
    "rnosymfollow": (True, MOUNT_ATTR_NOSYMFOLLOW),
    "rrelatime": (True, MOUNT_ATTR_RELATIME),
    "rro": (True, MOUNT_ATTR_RDONLY),
    "rrw": (False, MOUNT_ATTR_RDONLY),
    "rstrictatime": (True, MOUNT_ATTR_STRICTATIME),
    "rsuid": (False, MOUNT_ATTR_NOSUID),
    "rsymfollow": (False, MOUNT_ATTR_NOSYMFOLLOW),
}

EXTENSIONS = ("idmap", "ridmap", "tmpcopyup")

ATTRIBUTES = (
    (MS_RDONLY, MOUNT_ATTR_RDONLY),
    (MS_NOSUID, MOUNT_ATTR_NOSUID),
    (MS_NODEV, MOUNT_ATTR_NODEV),
    (MS_NOEXEC, MOUNT_ATTR_NOEXEC),
    (MS_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    (MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW),
)
ATIME_FLAGS = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME


class MountOptions:
    """The options of one mount.

    Attributes:
        flags: MS_* flags to set; MS_BIND and MS_REC are among them.
        cleared: MS_* flags that an option asks to clear.
        propagation: MS_* propagation flags, in their order, to apply one by one once the mount is there.
        recursive_set: MOUNT_ATTR_* to set on the whole tree.
        recursive_clear: MOUNT_ATTR_* to clear on the whole tree.
        data: what is left, for the filesystem itself.
        tmpcopyup: the tmpfs starts with a copy of what it hides.
        idmap: "", "idmap" or "ridmap".
    """

    __slots__ = (
        "cleared",
        "data",
        "flags",
        "idmap",
        "propagation",
        "recursive_clear",
        "recursive_set",
        "tmpcopyup",
    )

    def __init__(self) -> None:
        self.flags = 0
        self.cleared = 0
        self.propagation: list[int] = []
        self.recursive_set = 0
        self.recursive_clear = 0
        self.data: list[str] = []
        self.tmpcopyup = False
        self.idmap = ""

    def read_only_from_the_top(self) -> None:
        """Makes `rro` and `rrw` the flag of a new mount, which has nothing below it and may be filled first."""
        if self.recursive_set & MOUNT_ATTR_RDONLY:
            self.flags |= MS_RDONLY
        elif self.recursive_clear & MOUNT_ATTR_RDONLY:
            self.flags &= ~MS_RDONLY
        self.recursive_set &= ~MOUNT_ATTR_RDONLY
        self.recursive_clear &= ~MOUNT_ATTR_RDONLY


def parse(options: "Iterable[str]") -> MountOptions:
    """Sorts options; a later one overrides an earlier one.

    Returns:
        the sorted options; nothing is refused here, an option that nobody knows is data for the filesystem.
    """
    result = MountOptions()
    for option in options:
        if option in FLAGS:
            sets, flag = FLAGS[option]
            if sets:
                result.flags |= flag
                result.cleared &= ~flag
            else:
                result.flags &= ~flag
                result.cleared |= flag
        elif option in PROPAGATION:
            result.propagation.append(PROPAGATION[option])
        elif option in RECURSIVE:
            _add_recursive(result, *RECURSIVE[option])
        elif option == "tmpcopyup":
            result.tmpcopyup = True
        elif option in ("idmap", "ridmap"):
            result.idmap = option
        elif option:
            result.data.append(option)
    return result


def _add_recursive(result: MountOptions, sets: bool, attribute: int) -> None:
    if sets:
        result.recursive_set |= attribute
        result.recursive_clear &= ~attribute
        if attribute in (MOUNT_ATTR_NOATIME, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME):
            # The access time modes are one enumerated field: to set one is to clear the field (mount_setattr(2)).
            result.recursive_set &= ~MOUNT_ATTR__ATIME | attribute
            result.recursive_clear |= MOUNT_ATTR__ATIME
    else:
        result.recursive_set &= ~attribute
        # The kernel takes the field as a whole only, so clearing one mode means going back to relatime, which is 0.
        result.recursive_clear |= MOUNT_ATTR__ATIME if attribute & MOUNT_ATTR__ATIME else attribute


def attributes(flags: int) -> int:
    """MOUNT_ATTR_* of a new mount for its MS_* flags; relatime unless they say otherwise, as mount(2) has it."""
    result = 0
    for flag, attribute in ATTRIBUTES:
        if flags & flag:
            result |= attribute
    if flags & MS_STRICTATIME:
        result |= MOUNT_ATTR_STRICTATIME
    elif flags & MS_NOATIME:
        result |= MOUNT_ATTR_NOATIME
    return result


def bind_changes(flags: int, cleared: int, source: int = 0) -> tuple[int, int]:
    """What a bind mount's flags change on the copy of the source mount.

    As with `mount -o remount,bind,…`, flags that are given replace those of the source; access time modes stay unless
    one is given. With no flags at all only what an option names is cleared, an access time mode if the source has it.

    Args:
        flags: MS_* to set.
        cleared: MS_* to clear.
        source: access time mode of the source, MS_NOATIME, MS_RELATIME or MS_STRICTATIME.

    Returns:
        MOUNT_ATTR_* to set and to clear; (0, 0) leaves the mount as its source is.
    """
    setting = attributes(flags)
    clearing = 0
    wanted = flags & ~(MS_BIND | MS_REC | MS_REMOUNT)
    for flag, attribute in ATTRIBUTES:
        if not flags & flag and (cleared & flag or (wanted and flag != MS_NODIRATIME)):
            clearing |= attribute
    if flags & ATIME_FLAGS:
        clearing |= MOUNT_ATTR__ATIME
        if not flags & MS_NODIRATIME:
            clearing |= MOUNT_ATTR_NODIRATIME
    elif cleared & source & (MS_NOATIME | MS_STRICTATIME):
        # Without either there is the kernel's default, relatime; to be without that says nothing about what to have.
        clearing |= MOUNT_ATTR__ATIME
    return setting, clearing
