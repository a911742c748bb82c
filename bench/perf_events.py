"""Counts of perf_event_open(2) over this process and everything that it starts from then on."""

import ctypes
import os
import platform
import struct

PERF_TYPE_HARDWARE = 0
PERF_TYPE_SOFTWARE = 1
PERF_COUNT_HW_INSTRUCTIONS = 1
PERF_COUNT_SW_TASK_CLOCK = 1

SYSCALL_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
FLAG_FD_CLOEXEC = 8
INHERIT = 1 << 1
# struct perf_event_attr of the first size: type, size, config, period, sample type, read format, flags, the rest zero
ATTRIBUTES = struct.Struct("=IIQQQQQ16x")


class Counter:
    """One count.

    Args:
        kind: PERF_TYPE_*.
        event: PERF_COUNT_*.
        inherit: of descendants too.

    Raises:
        OSError: this machine or this user can't count it.
    """

    def __init__(self, kind: int, event: int, inherit: bool) -> None:
        number = SYSCALL_NUMBERS.get(platform.machine())
        if number is None:
            raise OSError(f"no number of perf_event_open for {platform.machine()}")
        data = ATTRIBUTES.pack(kind, ATTRIBUTES.size, event, 0, 0, 0, INHERIT if inherit else 0)
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.syscall(number, ctypes.c_char_p(data), 0, -1, -1, FLAG_FD_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "perf_event_open")

    def read(self) -> int:
        """The count so far."""
        return int.from_bytes(os.read(self.fd, 8), "little")


class Descendants:
    """What descendants alone count: those that were started while this exists, daemons among them.

    Args:
        kind: PERF_TYPE_*.
        event: PERF_COUNT_*.

    Raises:
        OSError: as from Counter.
    """

    def __init__(self, kind: int = PERF_TYPE_HARDWARE, event: int = PERF_COUNT_HW_INSTRUCTIONS) -> None:
        self.everything = Counter(kind, event, inherit=True)
        self.own = Counter(kind, event, inherit=False)

    def read(self) -> int:
        """The count so far."""
        return self.everything.read() - self.own.read()

    def close(self) -> None:
        """Counts no more."""
        os.close(self.everything.fd)
        os.close(self.own.fd)
