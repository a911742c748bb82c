"""Capability names and the sets of a process (capabilities(7))."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the kernel's order: the position is the number (include/uapi/linux/capability.h).
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

NUMBERS = {name: number for number, name in enumerate(NAMES)}

SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

_last: "int | None" = None


def last() -> int:
    """Number of the last capability that the running kernel knows."""
    global _last
    if _last is None:
        try:
            fd = os.open("/proc/sys/kernel/cap_last_cap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no procfs: as new as this list
            _last = len(NAMES) - 1
            return _last
        try:
            _last = int(os.read(fd, 16))
        finally:
            os.close(fd)
    return _last


def mask(names: "Iterable[str]") -> int:
    """A capability set as a bit mask.

    Args:
        names: CAP_ names; those that this kernel or this list does not know are left out, as in runc, because engines
            ask for all capabilities of newer kernels too. `unknown` tells which ones.
    """
    bits = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is not None and number <= last():
            bits |= 1 << number
    return bits


def unknown(names: "Iterable[str]") -> "list[str]":
    """The names that `mask` leaves out, each once, in their order."""
    return list(dict.fromkeys(name for name in names if NUMBERS.get(name, 64) > last()))
