"""Seccomp filters in tests: loading them for real, and running them on paper for architectures that are not here."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

SYS_SECCOMP = 317
SET_MODE_FILTER = 1
PR_SET_NO_NEW_PRIVS = 38

libc = ctypes.CDLL(None, use_errno=True)


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def load(bpf: bytes, flags: int) -> int:
    """Loads a filter into this process, for ever; returns what seccomp(2) returns.

    Raises:
        OSError: the kernel refused it.
    """
    program = Program(len(bpf) // 8, bpf)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    result: int = libc.syscall(SYS_SECCOMP, SET_MODE_FILTER, flags, ctypes.byref(program))
    if result < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return result


def call(number: int, *arguments: int) -> int:
    """The errno of a system call by number, 0 if it succeeded."""
    ctypes.set_errno(0)
    padded = [ctypes.c_long(argument) for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    result = libc.syscall(ctypes.c_long(number), *padded)
    return ctypes.get_errno() if result == -1 else 0


class Int80:
    """System calls of the i386 ABI, which an x86_64 process may make as well."""

    # push rbx; mov eax, edi; xor ebx, ebx; int 0x80; pop rbx; ret
    CODE = bytes.fromhex("53 89 f8 31 db cd 80 5b c3")

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory.write(self.CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(address)

    def call(self, number: int) -> int:
        """What the kernel returns: a negative errno for a failure."""
        result: int = self.function(number)
        return result


def answer(bpf: bytes, audit_arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """The SECCOMP_RET_* value of a filter for a system call, by interpreting classic BPF.

    Raises:
        AssertionError: an instruction that libseccomp and ctrun do not use.
    """
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit_arch, 0, *(value & (1 << 64) - 1 for value in padded))
    program = list(struct.iter_unpack("=HBBI", bpf))
    accumulator = 0
    at = 0
    while True:
        code, true, false, value = program[at]
        at += 1
        if code == 0x20:  # ld
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:  # and
            accumulator &= value
        elif code == 0x05:  # ja
            at += value
        elif code in (0x15, 0x25, 0x35, 0x45):  # jeq, jgt, jge, jset
            met = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += true if met else false
        else:
            assert code == 0x06, f"unknown instruction {code:#x}"
            return int(value)


def is_x86_64() -> bool:
    """Whether the system calls of `Int80` and the numbers of x86_64 mean anything here."""
    return os.uname().machine == "x86_64"
