"""Executes its arguments as on a kernel without the newer system calls: `old_kernel.py ERRNO PROGRAM [ARGUMENT...]`."""

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
# clone3, close_range, openat2, faccessat2: the same numbers on every architecture
NEWER = (435, 436, 437, 439)
EXECVEAT = {"aarch64": 281, "x86_64": 322}


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


code = struct.pack("=HBBI", 0x20, 0, 0, 0)
for number in (*NEWER, EXECVEAT[os.uname().machine]):
    code += struct.pack("=HBBI", 0x15, 0, 1, number) + struct.pack("=HBBI", 0x06, 0, 0, 0x50000 | int(sys.argv[1]))
code += struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
program = Program(len(code) // 8, code)
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.execv(sys.argv[2], ["ctr-init"])
