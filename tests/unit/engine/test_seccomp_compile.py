"""From profiles to BPF: the errors, and the ENOSYS stub on architectures that are not here."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ctr_common.errors import ConfigError, NotSupported
from ctr_common.kernel import _seccomp
from ctr_common.spec.seccomp_names import ACTIONS, ARCHITECTURES, OPERATORS
from ctr_supervisor.engine import seccomp_compile
from ctr_supervisor.engine.seccomp_compile import RET_ENOSYS, assemble_stub, compile_profile
from tests.support.filters import answer, is_x86_64

ALLOW = ACTIONS["SCMP_ACT_ALLOW"]
PASS_ON = (0x06, 0, 0, ALLOW)
X32 = 0x40000000


def errno_of(section: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        compile_profile(section, ".p")
    return raised.value


def call(**more: Any) -> dict[str, Any]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **more}


def argument(**more: Any) -> dict[str, Any]:
    return {"index": 0, "value": 1, "op": "SCMP_CMP_EQ", **more}


@pytest.mark.parametrize(
    ("section", "json_path", "message"),
    [
        ({"defaultAction": "X"}, ".p.defaultAction", "string X is not a valid action for seccomp"),
        (
            {"defaultAction": "SCMP_ACT_NOTIFY"},
            ".p.defaultAction",
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86_64", "X"]},
            ".p.architectures[1]",
            "string X is not a valid arch for seccomp",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(), call(action="X")]},
            ".p.syscalls[1].action",
            "string X is not a valid action for seccomp",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(action="SCMP_ACT_ERRNO", errnoRet=1 << 16)]},
            ".p.syscalls[0].action",
            "errnoRet 65536 is not between 0 and 65535",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(names=["read", ""])]},
            ".p.syscalls[0].names[1]",
            "empty string is not a valid syscall",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call(names=["write"], action="SCMP_ACT_NOTIFY")]},
            ".p.syscalls[0].names[0]",
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(args=[argument(), argument(op="X")])]},
            ".p.syscalls[0].args[1].op",
            "string X is not a valid operator for seccomp",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(args=[argument(index=6)])]},
            ".p.syscalls[0].args[0].index",
            "error creating seccomp syscall condition for syscall read: syscalls only have up to 6 arguments (6 given)",
        ),
        (
            {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(args=[argument(value=1 << 64)])]},
            ".p.syscalls[0].args[0]",
            "value and valueTwo must be between 0 and 2^64-1",
        ),
    ],
)
def test_an_impossible_profile_is_refused_in_runcs_words_with_its_place(
    section: Any, json_path: str, message: str
) -> None:
    error = errno_of(section)

    assert (error.json_path, error.message) == (json_path, message)


def test_unknown_syscalls_are_left_out() -> None:
    section: Any = {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(names=["no_such_call"]), call()]}
    without: Any = {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call()]}

    assert compile_profile(section, "") == compile_profile(without, "")


def test_rules_that_repeat_the_default_are_left_out_but_count_as_known() -> None:
    section: Any = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [call(), call(names=["openat2"], action="SCMP_ACT_ERRNO", errnoRet=1)],
    }
    bpf, _ = compile_profile(section, "")
    native = _seccomp.native_architecture()
    newest = _seccomp.resolve("openat2", native)
    assert newest

    assert answer(bpf, native, newest) == ACTIONS["SCMP_ACT_ERRNO"] | 1
    assert answer(bpf, native, newest + 1) == RET_ENOSYS


def test_a_rule_may_stand_twice() -> None:
    section: Any = {"defaultAction": "SCMP_ACT_KILL", "syscalls": [call(), call(), call(args=[argument()])]}

    assert compile_profile(section, "")


@pytest.mark.parametrize(
    "more",
    [
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {"defaultAction": "SCMP_ACT_LOG"},
        {"defaultAction": "SCMP_ACT_TRACE"},
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38},
    ],
)
def test_there_is_no_stub_where_newer_syscalls_pass_or_get_enosys_anyway(more: Any) -> None:
    section: Any = {"syscalls": [call()], **more}

    assert seccomp_compile.enosys_stub(_seccomp, section, [], ["read"]) == b""


def test_there_is_no_stub_for_a_profile_without_syscalls() -> None:
    assert seccomp_compile.enosys_stub(_seccomp, {"defaultAction": "SCMP_ACT_KILL"}, [], []) == b""


def stub(**newest: int) -> bytes:
    return assemble_stub({ARCHITECTURES[f"SCMP_ARCH_{name}"]: number for name, number in newest.items()}) + (
        bytes.fromhex("06000000") + ALLOW.to_bytes(4, "little")
    )


def enosys_from(program: bytes, architecture: str, numbers: list[int]) -> list[bool]:
    return [answer(program, ARCHITECTURES[f"SCMP_ARCH_{architecture}"], number) == RET_ENOSYS for number in numbers]


def test_every_architecture_of_the_stub_has_its_own_newest_syscall() -> None:
    program = stub(X86_64=10, X86=20, AARCH64=30, RISCV64=40, MIPS64=5040)

    for name, newest in (("X86_64", 10), ("X86", 20), ("AARCH64", 30), ("RISCV64", 40), ("MIPS64", 5040)):
        assert enosys_from(program, name, [0, newest, newest + 1, 100000]) == [False, False, True, True]
    assert enosys_from(program, "PPC64LE", [0, 100000]) == [False, False]


def test_x32_numbers_are_the_filters_to_refuse_unless_the_profile_has_x32() -> None:
    assert enosys_from(stub(X86_64=10), "X86_64", [X32, X32 | 11, -1]) == [False, False, False]
    both = stub(X86_64=10, X32=X32 | 547, X86=20)
    assert enosys_from(both, "X86_64", [10, 11, X32 | 11, X32 | 547, X32 | 548, -1]) == [
        False,
        True,
        False,
        False,
        True,
        True,
    ]
    assert enosys_from(both, "X86", [20, 21]) == [False, True]
    assert enosys_from(stub(X32=X32 | 5), "X86_64", [100, X32 | 5, X32 | 6]) == [False, False, True]


def test_number_0_of_s390_stands_for_those_that_are_too_large() -> None:
    assert enosys_from(stub(S390X=10, S390=20), "S390X", [0, 1, 10, 11]) == [True, False, False, True]
    assert enosys_from(stub(S390X=10, S390=20), "S390", [0, 1, 20, 21]) == [True, False, False, True]


@pytest.mark.skipif(not is_x86_64(), reason="needs x86_64")
def test_the_binary_tree_answers_like_the_linear_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["read", "openat", "clone", "futex", "statx", "mmap2", "socketcall", "openat2", "getpid", "kill", "fork"]
    section: Any = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            call(names=names),
            call(names=["personality"], args=[argument(value=8)]),
            call(names=["socket"], args=[argument(op="SCMP_CMP_NE", value=40)]),
        ],
    }
    tree, _ = compile_profile(section, "")
    monkeypatch.setattr(seccomp_compile, "LINEAR_SEARCH_RULES", 1000)
    linear, _ = compile_profile(section, "")

    assert tree != linear
    for audit in (ARCHITECTURES["SCMP_ARCH_X86_64"], ARCHITECTURES["SCMP_ARCH_X86"], ARCHITECTURES["SCMP_ARCH_ARM"]):
        for number in (*range(600), *range(X32, X32 + 600), 0xFFFFFFFF, 0xFFFFFFFE):
            for arguments in ((8,), (40,)):
                assert answer(tree, audit, number, arguments) == answer(linear, audit, number, arguments)


def test_an_architecture_of_the_other_byte_order_is_named() -> None:
    foreign = "SCMP_ARCH_S390X" if is_x86_64() or os.uname().machine == "aarch64" else "SCMP_ARCH_X86_64"
    section: Any = {"defaultAction": "SCMP_ACT_KILL", "architectures": [foreign], "syscalls": [call()]}
    with pytest.raises(NotSupported, match="error adding architecture") as raised:
        compile_profile(section, ".p")

    assert raised.value.json_path == ".p.architectures[0]"


def test_a_filter_that_the_kernel_would_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp_compile.MAX_INSTRUCTIONS == 4096
    monkeypatch.setattr(seccomp_compile, "MAX_INSTRUCTIONS", 8)
    rules = [call(args=[argument(value=value)]) for value in range(8)]

    assert "the kernel takes 8" in errno_of({"defaultAction": "SCMP_ACT_KILL", "syscalls": rules}).message


class OldLibrary:
    """A libseccomp and kernel that lack what came last."""

    def __init__(self, level: int, missing: int) -> None:
        self.level = level
        self.missing = missing

    def api_level(self) -> int:
        return self.level

    def action_available(self, action: int) -> bool:
        return action != self.missing


def test_notify_without_support_is_said_in_runcs_words() -> None:
    with pytest.raises(NotSupported, match="seccomp notify unsupported: API level: got 4, want at least 6") as raised:
        seccomp_compile.require_actions(OldLibrary(4, -1), {ACTIONS["SCMP_ACT_NOTIFY"]: ".here"})  # type: ignore[arg-type]

    assert raised.value.json_path == ".here"


def test_an_action_that_the_kernel_lacks_is_named_by_its_place() -> None:
    log = ACTIONS["SCMP_ACT_LOG"]
    with pytest.raises(NotSupported, match="this kernel lacks") as raised:
        seccomp_compile.require_actions(OldLibrary(7, log), {log: ".here"})  # type: ignore[arg-type]

    assert raised.value.json_path == ".here"


def test_the_names_are_those_of_libseccomp() -> None:
    for name in ("SCMP_ACT_KILL", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY"):
        assert _seccomp.action_available(ACTIONS[name]), name
    assert _seccomp.native_architecture() in ARCHITECTURES.values()
    assert sorted(OPERATORS.values()) == list(range(1, 8))
    assert _seccomp.version() >= (2, 4, 0)


def test_resolve_tells_syscalls_of_an_architecture_and_none_of_others() -> None:
    assert _seccomp.resolve("read", ARCHITECTURES["SCMP_ARCH_X86_64"]) == 0
    assert _seccomp.resolve("read", ARCHITECTURES["SCMP_ARCH_X32"]) == X32
    assert _seccomp.resolve("socketcall", ARCHITECTURES["SCMP_ARCH_X86_64"]) is None
    assert _seccomp.resolve("no_such_call", ARCHITECTURES["SCMP_ARCH_X86_64"]) is None
