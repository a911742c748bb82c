"""`.linux.seccomp`: filters in force in containers, asked by system calls, and read back from the kernel."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import run
from tests.support.filters import answer, is_x86_64
from tests.support.inside import Inside, changed
from tests.support.runtime import Runtime

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(not is_x86_64(), reason="needs x86_64"),
]

covers = pytest.mark.covers
SECCOMP = ".linux.seccomp"

# SECCOMP_RET_*, seccomp(2)
RETURNS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000 | errno.EPERM,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000 | errno.EPERM,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
# AUDIT_ARCH_*, linux/audit.h
ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0xC000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_LOONGARCH64": 0xC0000102,
    "SCMP_ARCH_M68K": 0x00000004,
    "SCMP_ARCH_MIPS": 0x00000008,
    "SCMP_ARCH_MIPS64": 0x80000008,
    "SCMP_ARCH_MIPS64N32": 0xA0000008,
    "SCMP_ARCH_MIPSEL": 0x40000008,
    "SCMP_ARCH_MIPSEL64": 0xC0000008,
    "SCMP_ARCH_MIPSEL64N32": 0xE0000008,
    "SCMP_ARCH_PPC": 0x00000014,
    "SCMP_ARCH_PPC64": 0x80000015,
    "SCMP_ARCH_PPC64LE": 0xC0000015,
    "SCMP_ARCH_S390": 0x00000016,
    "SCMP_ARCH_S390X": 0x80000016,
    "SCMP_ARCH_SH": 0x4000002A,
    "SCMP_ARCH_SHEB": 0x0000002A,
    "SCMP_ARCH_PARISC": 0x0000000F,
    "SCMP_ARCH_PARISC64": 0x8000000F,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
}
LITTLE_ENDIAN = 0x40000000
X86_64 = ARCHITECTURES["SCMP_ARCH_X86_64"]
X32_BIT = 0x40000000
GETPGID, GETSID, GETPRIORITY = 121, 124, 140
ASKED = ("getpgid", "getsid", "getpriority")
_NEEDED = """
access arch_prctl bind brk chdir clock_nanosleep clone clone3 close connect dup dup2 dup3 execve execveat exit
exit_group fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpid getppid getuid ioctl lseek
madvise mmap mprotect mremap munmap nanosleep newfstatat open openat pipe pipe2 poll prctl pread64 prlimit64 read
readlink readlinkat restart_syscall rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_yield
set_robust_list set_tid_address setpgid setsid stat statx tgkill gettid uname vfork wait4 write writev sigaltstack
rseq getrandom
"""
ALL_ALLOWED = _NEEDED.split()


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def filtered(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    """The change for a profile."""
    return {"linux": {"seccomp": {"defaultAction": default, "syscalls": list(rules), **more}}}


def default_action(action: str, **more: Any) -> dict[str, Any]:
    """A profile whose default action concerns just what the probe asks for."""
    return filtered(rule("SCMP_ACT_ALLOW", *ALL_ALLOWED), default=action, **more)


@pytest.fixture
def in_force(inside: Inside, probe: Path) -> Callable[[dict[str, Any]], bytes]:
    """The filter of a container, as the kernel has it, for a change of the configuration."""

    def read(change: dict[str, Any]) -> bytes:
        with inside.running(change=change) as container:
            return bytes.fromhex(run(probe, "filters", str(container.pid)).text)

    return read


# -- actions

ACTIONS = [name for name in RETURNS if name != "SCMP_ACT_NOTIFY"]
ENDED = {"SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"}


def expected_end(action: str) -> tuple[int, str]:
    if action in ENDED:
        return 128 + signal.SIGSYS, ""
    return 0, {"SCMP_ACT_ERRNO": "-1", "SCMP_ACT_TRACE": "-38"}.get(action, "1")


@covers(f"{SECCOMP}.syscalls[].action", f"{SECCOMP}.syscalls[].action={{action}}", f"{SECCOMP}.syscalls[].names")
@pytest.mark.parametrize("action", ACTIONS)
def test_a_system_call_gets_the_action_of_its_rule(
    inside: Inside, in_force: Callable[[dict[str, Any]], bytes], action: str
):
    default = "SCMP_ACT_ERRNO" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    rules = [rule(action, "getpgid", "getsid"), rule("SCMP_ACT_ALLOW", *ALL_ALLOWED)]
    change = filtered(*rules[: 1 if default == "SCMP_ACT_ALLOW" else 2], default=default)
    result = inside.result("probe", "call", "getpgid", "0", change=change, runc=True)
    assert (result.code, result.out.strip()) == expected_end(action)
    bpf = in_force(change)
    assert [answer(bpf, X86_64, number) for number in (GETPGID, GETSID)] == [RETURNS[action]] * 2
    assert answer(bpf, X86_64, GETPRIORITY) != RETURNS[action]


@covers(f"{SECCOMP}.defaultAction", f"{SECCOMP}.defaultAction={{action}}")
@pytest.mark.parametrize("action", ACTIONS)
def test_the_other_system_calls_get_the_default_action(
    inside: Inside, in_force: Callable[[dict[str, Any]], bytes], action: str
):
    change = default_action(action)
    # runc's own threads need more than the profile has, and do not survive that
    result = inside.result("probe", "call", "getpgid", "0", change=change, runc=action not in ENDED)
    assert (result.code, result.out.strip()) == expected_end(action)
    bpf = in_force(change)
    assert answer(bpf, X86_64, GETPGID) == RETURNS[action]
    assert answer(bpf, X86_64, 0) == RETURNS["SCMP_ACT_ALLOW"]


@covers(f"{SECCOMP}.defaultAction=SCMP_ACT_NOTIFY")
def test_notification_is_refused_as_the_default(inside: Inside):
    assert ".linux.seccomp.defaultAction" in inside.refused(default_action("SCMP_ACT_NOTIFY", listenerPath="/no/such"))


@covers(f"{SECCOMP}.syscalls[].action=SCMP_ACT_TRAP")
def test_a_trap_can_be_caught(inside: Inside):
    assert inside("probe", "trap", "getpgid", "0", change=filtered(rule("SCMP_ACT_TRAP", "getpgid"))) == "trapped"


@covers(f"{SECCOMP}.syscalls[].action={{action}}")
@pytest.mark.parametrize(
    ("action", "survives"), [("SCMP_ACT_KILL", True), ("SCMP_ACT_KILL_THREAD", True), ("SCMP_ACT_KILL_PROCESS", False)]
)
def test_a_thread_is_killed_alone_or_with_its_process(inside: Inside, action: str, survives: bool):
    result = inside.result("probe", "thread", "getpgid", change=filtered(rule(action, "getpgid")))
    assert (result.code, result.out) == ((0, "survived\n") if survives else (128 + signal.SIGSYS, ""))


@covers(f"{SECCOMP}.syscalls[].errnoRet")
def test_a_rule_has_an_errno_of_its_own(inside: Inside):
    change = filtered(rule("SCMP_ACT_ERRNO", "getpgid", errnoRet=77), rule("SCMP_ACT_ERRNO", "getsid", errnoRet=0))
    assert inside("probe", "call", "getpgid", change=change, runc=True) == "-77"
    # with 0 the system call does nothing and succeeds
    assert inside("probe", "call", "getsid", "4711", change=change, runc=True) == "0"


@covers(f"{SECCOMP}.defaultErrnoRet")
def test_the_default_action_has_an_errno_of_its_own(inside: Inside):
    change = default_action("SCMP_ACT_ERRNO", defaultErrnoRet=78)
    assert inside("probe", "call", "getpgid", change=change, runc=True) == "-78"


@covers(f"{SECCOMP}.syscalls[].names")
def test_a_name_that_this_kernel_s_library_does_not_know_is_left_out(inside: Inside):
    change = filtered(rule("SCMP_ACT_ERRNO", "no_such_call", "getpgid", errnoRet=5))
    assert inside("probe", "call", "getpgid", change=change, runc=True) == "-5"


# -- arguments

BIG = 1 << 32
# operator, value, second value, arguments that match, arguments that do not
COMPARISONS = [
    ("SCMP_CMP_NE", BIG + 1, 0, [1, BIG, 2], [BIG + 1]),
    ("SCMP_CMP_LT", BIG, 0, [0, BIG - 1], [BIG, BIG + 1]),
    ("SCMP_CMP_LE", BIG, 0, [0, BIG], [BIG + 1]),
    ("SCMP_CMP_EQ", BIG + 1, 0, [BIG + 1], [1, BIG]),
    ("SCMP_CMP_GE", BIG, 0, [BIG, BIG + 1], [0, BIG - 1]),
    ("SCMP_CMP_GT", BIG, 0, [BIG + 1], [0, BIG]),
    ("SCMP_CMP_MASKED_EQ", BIG | 6, BIG | 4, [BIG | 4, BIG | 5], [4, BIG | 6]),
]
ARGUMENT = f"{SECCOMP}.syscalls[].args[]"


@covers(f"{ARGUMENT}.op", f"{ARGUMENT}.op={{op}}", f"{ARGUMENT}.value", f"{ARGUMENT}.valueTwo", f"{ARGUMENT}.index")
@pytest.mark.parametrize(("op", "value", "second", "matching", "others"), COMPARISONS, ids=[c[0] for c in COMPARISONS])
def test_a_rule_is_for_some_arguments_alone(
    inside: Inside, op: str, value: int, second: int, matching: list[int], others: list[int]
):
    condition = {"index": 1, "value": value, "valueTwo": second, "op": op}
    change = filtered(rule("SCMP_ACT_ERRNO", "getpgid", errnoRet=77, args=[condition]))
    calls = [f"probe call getpgid 0 {argument}" for argument in (*matching, *others)]
    seen = inside.shell("; ".join(calls), change).split()
    # the first process of the container leads its group
    assert ["-77" if word == "-77" else "done" for word in seen] == ["-77"] * len(matching) + ["done"] * len(others)


@covers(f"{ARGUMENT}.index")
def test_conditions_on_several_arguments_must_all_hold(inside: Inside):
    conditions = [{"index": index, "value": 9, "op": "SCMP_CMP_EQ"} for index in (0, 5)]
    change = filtered(rule("SCMP_ACT_ERRNO", "getpgid", errnoRet=77, args=conditions))
    script = "probe call getpgid 9 0 0 0 0 9; probe call getpgid 9 0 0 0 0 8; probe call getpgid 0 0 0 0 0 9"
    seen = inside.shell(script, change, runc=False).split()
    assert [word == "-77" for word in seen] == [True, False, False]


# -- flags

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}


def flags_in_trace(text: str) -> set[str]:
    found = re.search(r"seccomp\(SECCOMP_SET_MODE_FILTER, ([A-Z_|x0-9 /*]+), ", text)
    assert found, text
    return set(re.findall(r"SECCOMP_FILTER_FLAG_\w+|0x\w+", found.group(1)))


@covers(f"{SECCOMP}.flags", f"{SECCOMP}.flags={{flag}}")
@pytest.mark.parametrize("flag", [name for name in FLAGS if "WAIT" not in name])
@pytest.mark.needs_command("strace")
def test_the_filter_is_loaded_with_its_flags(
    inside: Inside, ctrun: Runtime, directory: Path, container_id: str, flag: str
):
    path = inside.bundle(changed(filtered(rule("SCMP_ACT_ERRNO", "getpgid"), flags=[flag])), args=["true"])
    trace = directory / "trace"
    tracer = Runtime(Path("strace"))
    tracer("-f", "-qq", "-o", trace, "-e", "trace=seccomp", ctrun.path, "run", "-b", path, container_id).ok()
    assert flags_in_trace(trace.read_text()) == {flag}


# -- architectures


@covers(f"{SECCOMP}.architectures", f"{SECCOMP}.architectures={{name}}")
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_system_calls_of_an_architecture_are_filtered_when_it_is_named(
    inside: Inside, in_force: Callable[[dict[str, Any]], bytes], name: str
):
    arch = ARCHITECTURES[name]
    rules = rule("SCMP_ACT_ERRNO", "getpgid", errnoRet=77)
    if not arch & LITTLE_ENDIAN:
        error = inside.refused(filtered(rules, architectures=["SCMP_ARCH_X86_64", name]))
        assert ".linux.seccomp.architectures[1]" in error
        return
    change = filtered(rules, architectures=["SCMP_ARCH_X86_64", name])
    result = inside.result("true", change=change)
    if result.code and name in ("SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_SH"):  # newer than some releases of libseccomp
        assert ".linux.seccomp.architectures[1]" in result.err
        return
    number = X32_BIT if name == "SCMP_ARCH_X32" else 0
    without = in_force(filtered(rules, architectures=["SCMP_ARCH_X86_64"]))
    named = in_force(change)
    assert answer(named, arch, number | 3) == RETURNS["SCMP_ACT_ALLOW"]
    if name != "SCMP_ARCH_X86_64":
        assert answer(without, arch, number | 3) in (0, RETURNS["SCMP_ACT_KILL_PROCESS"])
        # the numbers of MIPS begin at 4000, 5000 or 6000
        numbers = (number | first + n for first in (0, 4000, 5000, 6000) for n in range(600))
        assert 0x00050000 | 77 in {answer(named, arch, asked) for asked in numbers}


# -- the agent


class Agent:
    """A seccomp agent: takes one container process state with its fds, and answers notifications.

    Args:
        path: of its socket.
    """

    RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND, for 80 and 24 bytes

    def __init__(self, path: Path) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(1)
        self.messages: list[dict[str, Any]] = []
        self.calls: list[tuple[int, int]] = []
        self.stopped, self.stop = os.pipe()
        self.thread = threading.Thread(target=self.work)

    def work(self) -> None:
        listeners: list[int] = []
        while True:
            ready, _, _ = select.select([self.server.fileno(), self.stopped, *listeners], [], [], 30)
            if not ready or self.stopped in ready:
                break
            for source in ready:
                if source == self.server.fileno():
                    listeners.append(self.take())
                elif not self.answer(source):
                    listeners.remove(source)
                    os.close(source)
        for listener in listeners:
            os.close(listener)

    def take(self) -> int:
        connection, _ = self.server.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64))
            while more := connection.recv(65536):
                data += more
        self.messages.append(json.loads(data))
        return array.array("i", ancillary[0][2])[0]

    def answer(self, listener: int) -> bool:
        request = bytearray(80)
        try:
            fcntl.ioctl(listener, self.RECEIVE, request)
        except OSError:  # the last process under the filter has ended
            return False
        identity, pid, _, number = struct.unpack_from("=QIIi", request)
        self.calls.append((pid, number))
        fcntl.ioctl(listener, self.SEND, struct.pack("=QqiI", identity, 4242, 0, 0))
        return True


@pytest.fixture
def agent(directory: Path) -> Iterator[Agent]:
    with running_agent(directory / "agent") as made:
        yield made


@contextmanager
def running_agent(path: Path) -> Iterator[Agent]:
    made = Agent(path)
    made.thread.start()
    try:
        yield made
    finally:
        os.close(made.stop)
        made.thread.join(30)
        os.close(made.stopped)
        made.server.close()


@covers(f"{SECCOMP}.listenerPath", f"{SECCOMP}.listenerMetadata", f"{SECCOMP}.syscalls[].action=SCMP_ACT_NOTIFY")
def test_an_agent_answers_for_the_kernel(inside: Inside, agent: Agent, directory: Path):
    change = filtered(
        rule("SCMP_ACT_NOTIFY", "getpgid"), listenerPath=str(directory / "agent"), listenerMetadata="of the profile"
    )
    with inside.running("sh", "-c", "probe call getpgid 0; exec sleep 1000", change=change) as container:
        assert container.exec("probe", "call", "getpgid", "0").text == "4242"
        (first, second) = agent.messages
    assert first["metadata"] == second["metadata"] == "of the profile"
    assert first["fds"] == ["seccompFd"]
    assert first["pid"] == container.pid != second["pid"]
    assert (first["state"]["id"], first["state"]["bundle"]) == (container.name, str(container.bundle))
    assert {number for _, number in agent.calls} == {GETPGID}


@covers(f"{SECCOMP}.flags=SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
@pytest.mark.needs_command("strace")
def test_waiting_for_an_agent_may_be_made_killable(
    inside: Inside, ctrun: Runtime, directory: Path, container_id: str, agent: Agent
):
    flag = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    change = filtered(rule("SCMP_ACT_NOTIFY", "getpgid"), listenerPath=str(directory / "agent"), flags=[flag])
    path = inside.bundle(changed(change), args=["true"])
    trace = directory / "trace"
    tracer = Runtime(Path("strace"))
    options = ("-f", "-qq", "-X", "raw", "-o", trace, "-e", "trace=seccomp")
    tracer(*options, ctrun.path, "run", "-b", path, container_id).ok()
    found = re.search(r"seccomp\(0x1, (0x\w+), ", trace.read_text())
    assert found
    assert int(found.group(1), 16) & FLAGS[flag]


@covers(f"{SECCOMP}.listenerPath")
def test_without_an_agent_a_notifying_profile_is_refused(inside: Inside):
    assert ".linux.seccomp.listenerPath" in inside.refused(filtered(rule("SCMP_ACT_NOTIFY", "getpgid")))
    absent = filtered(rule("SCMP_ACT_NOTIFY", "getpgid"), listenerPath="/no/such/agent")
    assert "/no/such/agent" in inside.refused(absent)
