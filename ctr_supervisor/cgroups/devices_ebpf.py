"""Device rules on cgroup v2: a small BPF program of type BPF_PROG_TYPE_CGROUP_DEVICE, attached to the cgroup.

The kernel runs it at each open and mknod of a device node with struct bpf_cgroup_dev_ctx (linux/bpf.h):
access and type, major, minor; 1 allows. Instruction set: kernel, bpf/standardization/instruction-set.rst.
"""

import errno
import os
import struct

from ctr_common.errors import CgroupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    BPF_CGROUP_DEVICE,
    BPF_F_ALLOW_MULTI,
    BPF_F_REPLACE,
    BPF_PROG_TYPE_CGROUP_DEVICE,
)
from ctr_supervisor.cgroups.device_rules import ALL, ANY, DEVICES_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctr_supervisor.cgroups.device_rules import Rule

# struct bpf_insn: code, destination and source register (a nibble each), jump offset, immediate value.
INSN = struct.Struct("=BBhi")

LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
AND32 = 0x54  # BPF_ALU | BPF_AND | BPF_K
SHIFT_RIGHT32 = 0x74  # BPF_ALU | BPF_RSH | BPF_K
MOVE32 = 0xB4  # BPF_ALU | BPF_MOV | BPF_K
MOVE32_REGISTER = 0xBC  # BPF_ALU | BPF_MOV | BPF_X
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_NOT_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
EXIT = 0x95  # BPF_JMP | BPF_EXIT

VERDICT, CONTEXT, TYPE, WANTED, MAJOR, MINOR = range(6)
SCRATCH = CONTEXT  # free once the context is read

# BPF_DEVCG_DEV_*
DEVICE_TYPES = {"b": 1, "c": 2}

# Larger numbers exist in no device node (dev_t has 12 + 20 bits), and would not fit a signed immediate.
IMMEDIATE_MAX = 0x7FFFFFFF

# Programs of long-lived processes, by what their rules say, the oldest first.
KEPT_MAX = 16
_programs: "dict[tuple[tuple[bool, str, int, int, int], ...], int]" = {}


def kept_fds() -> "list[int]":
    """The loaded programs of this process, which stay open from one container to the next."""
    return list(_programs.values())


def insn(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """One instruction."""
    # The nibbles are a C bit field, so their order is that of the machine.
    registers = source << 4 | destination if struct.pack("=H", 1)[0] else destination << 4 | source
    return INSN.pack(code, registers, offset, immediate)


def program(rules: "Sequence[Rule]") -> bytes:
    """The program for rules of which later ones win; everything else is denied.

    The rules are asked from the last to the first. An allowing rule takes its accesses off the wanted ones, and the
    answer is yes when none is left; a denying rule that has one of those left over is a no. So each single access is
    decided by the last rule that names it.

    Args:
        rules: as device_rules.from_config gives them.

    Returns:
        struct bpf_insn[].
    """
    code = [
        insn(LOAD_WORD, TYPE, CONTEXT, 0),
        insn(AND32, TYPE, immediate=0xFFFF),
        insn(LOAD_WORD, WANTED, CONTEXT, 0),
        insn(SHIFT_RIGHT32, WANTED, immediate=16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4),
        insn(LOAD_WORD, MINOR, CONTEXT, 8),
    ]
    for rule in reversed(rules):
        if rule.is_everything():
            # Code that nothing reaches is refused by the verifier: what is before this rule is left out.
            return b"".join((*code, *_answer(rule.allow)))
        if max(rule.major, rule.minor) <= IMMEDIATE_MAX:
            code += _rule(rule)
    return b"".join((*code, *_answer(False)))


def _answer(allow: bool) -> list[bytes]:
    return [insn(MOVE32, VERDICT, immediate=int(allow)), insn(EXIT)]


def _rule(rule: "Rule") -> list[bytes]:
    body = []
    if not rule.allow:
        if rule.access != ALL:
            body += [
                insn(MOVE32_REGISTER, SCRATCH, WANTED),
                insn(AND32, SCRATCH, immediate=rule.access),
                insn(JUMP_EQUAL, SCRATCH, offset=2),
            ]
    elif rule.access != ALL:
        body += [insn(AND32, WANTED, immediate=ALL & ~rule.access), insn(JUMP_NOT_EQUAL, WANTED, offset=2)]
    body += _answer(rule.allow)
    # Each check that fails jumps over the rest of the rule.
    for register, number in ((MINOR, rule.minor), (MAJOR, rule.major), (TYPE, DEVICE_TYPES.get(rule.kind, ANY))):
        if number != ANY:
            body.insert(0, insn(JUMP_NOT_EQUAL, register, offset=len(body), immediate=number))
    return body


def attach(cgroup_fd: int, path: str, rules: "Sequence[Rule]") -> None:
    """Puts a program for the rules on a cgroup, in place of what is attached there.

    Args:
        cgroup_fd: the cgroup's directory; not O_PATH.
        path: its path, for messages.
        rules: later ones win.

    Raises:
        CgroupError: the kernel has no such programs, or does not let us.
    """
    old: list[int] = []
    new = -1
    try:
        try:
            numbers = _kernel.bpf_prog_query(cgroup_fd, BPF_CGROUP_DEVICE)
            if not numbers:
                _kernel.bpf_prog_attach(cgroup_fd, _kept(rules), BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
                return
            for number in numbers:
                old.append(_kernel.bpf_prog_get_fd_by_id(number))
        except OSError:
            # Before Linux 4.15 (query) or without CAP_SYS_ADMIN (fd by id): nothing to replace that we could know of.
            pass
        new = _load(program(rules))
        if len(old) == 1:
            try:
                # At once, so that no moment has both rule sets or none (Linux 5.6).
                _kernel.bpf_prog_attach(cgroup_fd, new, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, old[0])
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        _kernel.bpf_prog_attach(cgroup_fd, new, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
        # Only now: all programs must say yes, so in between nothing is allowed that the new rules deny.
        for fd in old:
            _kernel.bpf_prog_detach(cgroup_fd, fd, BPF_CGROUP_DEVICE)
    except OSError as error:
        raise CgroupError(
            "failed to set the device rules of",
            syscall=getattr(error, "syscall", "bpf"),
            errno=error.errno or 0,
            path=path,
            json_path=DEVICES_PATH,
        ) from None
    finally:
        for fd in (new, *old):
            if fd >= 0:
                os.close(fd)


def _kept(rules: "Sequence[Rule]") -> int:
    """A loaded program, kept for the next container with the same rules: making and verifying it costs 0.4 ms.

    The kernel takes a program for any number of cgroups, but for one only once: it is for cgroups that have none.
    """
    key = tuple((rule.allow, rule.kind, rule.major, rule.minor, rule.access) for rule in rules)
    fd = _programs.get(key)
    if fd is None:
        if len(_programs) == KEPT_MAX:
            os.close(_programs.pop(next(iter(_programs))))
        fd = _programs[key] = _load(program(rules))
    return fd


def _load(code: bytes) -> int:
    try:
        return _kernel.bpf_prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, code)
    except PermissionError:
        # Before Linux 5.11 programs counted as locked memory, and the usual limit of 64 KiB is soon used up.
        from ctr_common.kernel.constants import RLIM_INFINITY, RLIMIT_MEMLOCK

        before = _kernel.prlimit(0, RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        try:
            return _kernel.bpf_prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, code)
        finally:
            # The container process inherits our limits.
            _kernel.prlimit(0, RLIMIT_MEMLOCK, *before)
