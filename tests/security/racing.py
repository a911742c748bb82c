"""A neighbour that never loses a race: it acts between two chosen system calls of the runtime.

The runtime runs under a seccomp filter that stops it, in every one of its processes, at the calls that resolve a path
or change a mount. At the stop of the wanted number the neighbour changes the files that it shares with the container,
and the runtime goes on. Done for each stop in turn, this tries every interleaving there is with one change, at any
speed of the machine.

Linux, x86_64 and aarch64; needs CAP_SYS_ADMIN (a filter without no_new_privs).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.slowness import SLOWNESS

libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
RENAME_EXCHANGE = 2

# Number, and which argument is the path (-1: none).
COMMON = {
    "open_tree": (428, 1),
    "move_mount": (429, 3),
    "fsconfig": (431, -1),
    "openat2": (437, 1),
    "mount_setattr": (442, 1),
}
BY_MACHINE = {
    "x86_64": {
        "open": (2, 0),
        "stat": (4, 0),
        "chdir": (80, 0),
        "mkdir": (83, 0),
        "symlink": (88, 1),
        "readlink": (89, 0),
        "mknod": (133, 0),
        "pivot_root": (155, -1),
        "mount": (165, 1),
        "umount2": (166, 0),
        "openat": (257, 1),
        "mkdirat": (258, 1),
        "mknodat": (259, 1),
        "newfstatat": (262, 1),
        "unlinkat": (263, 1),
        "symlinkat": (266, 2),
    },
    "aarch64": {
        "mknodat": (33, 1),
        "mkdirat": (34, 1),
        "unlinkat": (35, 1),
        "symlinkat": (36, 2),
        "umount2": (39, 0),
        "mount": (40, 1),
        "pivot_root": (41, -1),
        "chdir": (49, 0),
        "openat": (56, 1),
        "newfstatat": (79, 1),
    },
}
CALLS = COMMON | BY_MACHINE.get(platform.machine(), {})
NAMES = {number: (name, argument) for name, (number, argument) in CALLS.items()}
# Calls that only look are many, and no neighbour gains from a change right before one of them.
LOOKS = ("newfstatat", "readlink")
SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), -1)

SECCOMP_SET_MODE_FILTER = 1
FILTER_FLAG_NEW_LISTENER = 1 << 3
RET_USER_NOTIF = 0x7FC00000
RET_ALLOW = 0x7FFF0000
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
NOTIF = struct.Struct("=QIIiIQ6Q")
ANSWER = struct.Struct("=QqiI")
FLAG_CONTINUE = 1
# BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _instruction(code: int, true: int, false: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, true, false, value)


def _filter(looks: bool) -> bytes:
    numbers = [number for number, (name, _) in NAMES.items() if looks or name not in LOOKS]
    code = _instruction(LOAD, 0, 0, 0)
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        code += _instruction(JUMP_EQUAL, left, 0, number)
    return code + _instruction(RETURN, 0, 0, RET_ALLOW) + _instruction(RETURN, 0, 0, RET_USER_NOTIF)


def exchange(one: Path, other: Path) -> None:
    """Swaps two directory entries in one step, as a container would do it (renameat2(2))."""
    if libc.renameat2(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


class Stop:
    """A system call of the runtime that has not been carried out yet.

    Attributes:
        name: of the call.
        path: what it names, "" where it names nothing.
        pid: who makes it; its /proc/PID shows the state before the call.
    """

    def __init__(self, name: str, path: str, pid: int) -> None:
        self.name = name
        self.path = path
        self.pid = pid

    def mount_points(self) -> list[str]:
        """The mounts that the calling process sees."""
        return [line.split()[4] for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()]


class Outcome:
    """How a run ended: exit status and output as in a Result, and the calls that it made."""

    def __init__(self, code: int, out: str, err: str, stops: list[Stop]) -> None:
        self.code = code
        self.out = out
        self.err = err
        self.stops = stops

    def __repr__(self) -> str:
        calls = "\n".join(f"  {index} {stop.name} {stop.path}" for index, stop in list(enumerate(self.stops))[-60:])
        return f"exit status {self.code}\nstdout:\n{self.out}\nstderr:\n{self.err}\nlast calls:\n{calls}"


def run(
    argv: Sequence[str | Path], at_stop: Callable[[int, Stop], None], looks: bool = False, limit: float = 20
) -> Outcome:
    """Runs a command to its end, and that of all its descendants.

    Args:
        argv: the command.
        at_stop: called before each watched call is carried out, with its number and what it is.
        looks: watch the calls too that only look at files.
        limit: seconds after which everything is killed and the test fails.
    """
    __tracebackhide__ = True
    ours, theirs = socket.socketpair()
    code = _filter(looks)

    def install() -> None:
        program = Program(len(code) // 8, code)
        listener = libc.syscall(SECCOMP, SECCOMP_SET_MODE_FILTER, FILTER_FLAG_NEW_LISTENER, ctypes.byref(program))
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(theirs, [b"l"], [listener])
        os.close(listener)

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, ours, theirs:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=install,  # noqa: PLW1509  (no threads here)
        )
        listener = socket.recv_fds(ours, 1, 1)[1][0]
        try:
            stops = _serve(listener, at_stop, time.monotonic() + limit * SLOWNESS)
        finally:
            if process.poll() is None:
                try:
                    process.wait(0.5 * SLOWNESS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, 9)
            os.close(listener)
            status = process.wait(10 * SLOWNESS)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Outcome(status, texts[0], texts[1], stops)


def _serve(listener: int, at_stop: Callable[[int, Stop], None], deadline: float) -> list[Stop]:
    stops: list[Stop] = []
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        assert events, f"no end in time; last calls: {[(stop.name, stop.path) for stop in stops[-5:]]}"
        if not events[0][1] & select.POLLIN:
            return stops  # POLLHUP: the last process under the filter has ended
        notification = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(listener, NOTIF_RECV, notification)
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue  # it was killed meanwhile
            raise
        identity, pid, _, number, _, _, *arguments = NOTIF.unpack(notification)
        name, argument = NAMES[number]
        stop = Stop(name, _string(pid, arguments[argument]) if argument >= 0 else "", pid)
        stops.append(stop)
        at_stop(len(stops) - 1, stop)
        try:
            fcntl.ioctl(listener, NOTIF_SEND, ANSWER.pack(identity, 0, 0, FLAG_CONTINUE))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _string(pid: int, address: int) -> str:
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        return ""
    try:
        # not across a page that may be missing
        data = os.pread(memory, min(4096, 4096 - address % 4096), address)
    except OSError:
        return ""
    finally:
        os.close(memory)
    return os.fsdecode(data.partition(b"\0")[0])
