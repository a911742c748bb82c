"""Seccomp filters in effect: compiled, loaded into a forked child, and asked by real system calls (x86_64)."""

from __future__ import annotations

import array
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import ConfigError, CtrError
from ctr_common.kernel import constants as k
from ctr_common.spec.seccomp_names import FLAGS
from ctr_supervisor.engine import seccomp
from tests.support import filters
from tests.support.forked import in_child, run_child

pytestmark = pytest.mark.skipif(not filters.is_x86_64(), reason="needs x86_64")

# What the child needs to ask and to report, whatever the default action is.
NEEDED = ["write", "exit_group", "mmap", "munmap", "mremap", "brk", "madvise", "futex", "rt_sigprocmask"]
GETPPID, GETUID, LSEEK, MKDIR, SWAPOFF, NEWER = 110, 102, 8, 83, 168, 900
X32 = 0x40000000
I386_GETPPID, I386_SWAPOFF = 64, 115


def profile(default: str = "SCMP_ACT_ERRNO", *rules: dict[str, Any], **more: Any) -> Any:
    return {
        "defaultAction": default,
        "syscalls": [{"names": [*NEEDED, "getppid"], "action": "SCMP_ACT_ALLOW"}, *rules],
        **more,
    }


def rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def condition(index: int, op: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}


def under(section: Any, work: Callable[[], Any]) -> Any:
    """What `work` returns under the filter of a profile."""

    def child() -> Any:
        compiled = seccomp.compile_filter(section)
        assert compiled
        filters.load(compiled.bpf, compiled.flags)
        return work()

    return in_child(child)


def calls(section: Any, *numbers: int) -> list[int]:
    """The errnos of system calls without arguments under a profile."""
    return list(under(section, lambda: [filters.call(number) for number in numbers]))


def ends_by(section: Any, number: int) -> int:
    """The signal that ends a process which makes a system call under a profile."""

    def child() -> None:
        compiled = seccomp.compile_filter(section)
        assert compiled
        filters.load(compiled.bpf, compiled.flags)
        filters.call(number)

    return os.WTERMSIG(run_child(child)[0])


def test_what_the_profile_allows_is_allowed_and_the_rest_gets_eperm() -> None:
    assert calls(profile(), GETPPID, SWAPOFF, GETUID) == [0, errno.EPERM, errno.EPERM]


def test_the_default_errno_is_the_configured_one() -> None:
    assert calls(profile(defaultErrnoRet=errno.EIO), SWAPOFF) == [errno.EIO]


def test_a_rule_has_an_errno_of_its_own_or_eperm() -> None:
    section = profile(
        "SCMP_ACT_ALLOW", rule("SCMP_ACT_ERRNO", "getuid", errnoRet=errno.EXDEV), rule("SCMP_ACT_ERRNO", "swapoff")
    )
    assert calls(section, GETUID, SWAPOFF, GETPPID) == [errno.EXDEV, errno.EPERM, 0]


def test_a_syscall_newer_than_the_profile_gets_enosys_and_not_the_default() -> None:
    assert calls(profile(), NEWER, SWAPOFF) == [errno.ENOSYS, errno.EPERM]


def test_a_killing_default_gives_enosys_for_newer_syscalls_too() -> None:
    assert calls(profile("SCMP_ACT_KILL_PROCESS"), NEWER) == [errno.ENOSYS]


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_killing_and_trapping_actions_end_the_process(action: str) -> None:
    assert ends_by(profile(action), SWAPOFF) == signal.SIGSYS
    assert ends_by(profile("SCMP_ACT_ALLOW", rule(action, "swapoff")), SWAPOFF) == signal.SIGSYS


def test_trace_without_a_tracer_is_enosys() -> None:
    assert calls(profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_TRACE", "getuid")), GETUID) == [errno.ENOSYS]


def test_log_lets_the_syscall_through() -> None:
    assert calls(profile("SCMP_ACT_LOG"), GETUID) == [0]


@pytest.mark.parametrize(
    ("op", "value", "second", "allowed"),
    [
        ("EQ", 7, 0, {7}),
        ("NE", 7, 0, {0, 6, 8, 15, 1 << 40}),
        ("LT", 7, 0, {0, 6}),
        ("LE", 7, 0, {0, 6, 7}),
        ("GE", 8, 0, {8, 15, 1 << 40}),
        ("GT", 8, 0, {15, 1 << 40}),
        ("MASKED_EQ", 0x8, 0x8, {8, 15}),
        ("MASKED_EQ", 0x8, 0, {0, 6, 7, 1 << 40}),
    ],
)
def test_every_operator_compares_64_bits(op: str, value: int, second: int, allowed: set[int]) -> None:
    values = [0, 6, 7, 8, 15, 1 << 40]
    section = profile(
        "SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW", "lseek", args=[condition(1, op, value, second)]), defaultErrnoRet=99
    )
    found = under(section, lambda: [filters.call(LSEEK, -1, value) for value in values])

    assert {value for value, number in zip(values, found, strict=True) if number == errno.EBADF} == allowed
    assert set(found) <= {errno.EBADF, 99}


def test_conditions_on_different_arguments_must_all_hold() -> None:
    arguments = [condition(1, "EQ", 5), condition(2, "EQ", 1)]
    section = profile("SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW", "lseek", args=arguments))
    found = under(section, lambda: [filters.call(LSEEK, -1, *pair) for pair in ((5, 1), (5, 2), (4, 1))])

    assert found == [errno.EBADF, errno.EPERM, errno.EPERM]


def test_of_conditions_on_one_argument_any_is_enough() -> None:
    arguments = [condition(1, "EQ", 5), condition(1, "EQ", 6), condition(2, "EQ", 9)]
    section = profile("SCMP_ACT_ERRNO", rule("SCMP_ACT_ALLOW", "lseek", args=arguments))
    found = under(section, lambda: [filters.call(LSEEK, -1, *pair) for pair in ((5, 1), (6, 1), (7, 9), (7, 1))])

    assert found == [errno.EBADF, errno.EBADF, errno.EBADF, errno.EPERM]


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        (["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], True),
        (["SCMP_ARCH_X86"], True),
    ],
)
def test_a_foreign_architecture_of_the_profile_has_the_same_rules(architectures: list[str], expected: bool) -> None:
    def work() -> list[Any]:
        foreign = filters.Int80()
        compiled = seccomp.compile_filter(profile(architectures=architectures))
        assert compiled
        filters.load(compiled.bpf, compiled.flags)
        return [foreign.call(I386_GETPPID) == os.getppid(), foreign.call(I386_SWAPOFF), foreign.call(NEWER)]

    assert in_child(work) == [expected, -errno.EPERM, -errno.ENOSYS]


def test_a_foreign_architecture_outside_of_the_profile_ends_the_process() -> None:
    def work() -> None:
        foreign = filters.Int80()
        compiled = seccomp.compile_filter(profile(architectures=["SCMP_ARCH_X86_64"]))
        assert compiled
        filters.load(compiled.bpf, compiled.flags)
        foreign.call(I386_GETPPID)

    assert os.WTERMSIG(run_child(work)[0]) == signal.SIGSYS


def test_x32_syscalls_end_the_process_unless_the_profile_has_x32() -> None:
    assert ends_by(profile(architectures=["SCMP_ARCH_X86_64"]), X32 | GETPPID) == signal.SIGSYS
    section = profile(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"])
    assert calls(section, X32 | NEWER, X32 | SWAPOFF) == [errno.ENOSYS, errno.EPERM]


def test_a_profile_that_says_nothing_is_no_filter() -> None:
    assert seccomp.compile_filter({"defaultAction": "", "syscalls": []}) is None


def test_flags_are_spec_allow_when_absent_and_none_when_empty() -> None:
    assert seccomp.filter_flags(profile(), False) == k.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    assert seccomp.filter_flags(profile(flags=[]), False) == 0


def test_flags_are_those_of_the_profile_and_the_kernel_takes_them() -> None:
    names = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    section = profile(flags=names)

    assert seccomp.filter_flags(section, False) == k.SECCOMP_FILTER_FLAG_LOG | k.SECCOMP_FILTER_FLAG_TSYNC
    assert calls(section, GETPPID) == [0]


def test_a_listener_adds_the_flags_that_the_kernel_wants_with_it() -> None:
    section = profile(
        "SCMP_ACT_ALLOW", rule("SCMP_ACT_NOTIFY", "mkdir"), listenerPath="/run/agent.sock", flags=list(FLAGS)
    )
    compiled = seccomp.compile_filter(section)
    assert compiled
    assert compiled.listener
    assert compiled.flags & k.SECCOMP_FILTER_FLAG_NEW_LISTENER
    assert in_child(lambda: filters.load(compiled.bpf, compiled.flags)) > 2


def test_a_notifying_profile_needs_a_listener() -> None:
    with pytest.raises(ConfigError, match="listenerPath is not set") as raised:
        seccomp.compile_filter(profile("SCMP_ACT_ALLOW", rule("SCMP_ACT_NOTIFY", "mkdir")))

    assert raised.value.json_path == ".linux.seccomp.listenerPath"


def test_an_unknown_flag_is_named() -> None:
    with pytest.raises(ConfigError, match='"SECCOMP_FILTER_FLAG_X"') as raised:
        seccomp.compile_filter(profile(flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_X"]))

    assert raised.value.json_path == ".linux.seccomp.flags[1]"


STATE = {"ociVersion": "1.2.0", "id": "c1", "status": "creating", "pid": 42, "bundle": "/b"}


def receive_listener(server: socket.socket, result: list[Any]) -> None:
    connection, _ = server.accept()
    with connection:
        data, control, _, _ = connection.recvmsg(1024, socket.CMSG_SPACE(16))
        fds = array.array("i")
        fds.frombytes(control[0][2][: fds.itemsize])
        while more := connection.recv(65536):
            data += more
        result += [json.loads(data), os.readlink(f"/proc/self/fd/{fds[0]}")]
        os.close(fds[0])


@pytest.mark.parametrize(("metadata", "annotation"), [("", ""), ("m\u00fc", "x" * 300_000)])
def test_the_agent_gets_the_container_process_state_and_the_fd(directory: Path, metadata: str, annotation: str) -> None:
    state = {**STATE, "annotations": {"a": annotation}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, open(directory / "fd", "w") as file:
        server.bind(str(directory / "agent"))
        server.listen()
        result: list[Any] = []
        agent = threading.Thread(target=receive_listener, args=(server, result))
        agent.start()
        seccomp.send_listener(str(directory / "agent"), file.fileno(), state, metadata, pid=43)
        agent.join(20)

    expected = {"ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 43, "state": state}
    assert result == [{**expected, **({"metadata": metadata} if metadata else {})}, str(directory / "fd")]


def test_a_missing_agent_is_an_error_that_names_its_socket() -> None:
    with pytest.raises(CtrError, match="failed to connect with seccomp agent") as raised:
        seccomp.send_listener("/nowhere/agent", 0, STATE)

    assert raised.value.path == "/nowhere/agent"
    assert raised.value.errno == errno.ENOENT
