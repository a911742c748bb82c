"""ctr-init by hand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.nsexec import tlv
from tests.nsexec.driver import CLONE_NEWPID, CLONE_NEWUTS, TIMEOUT, Attribute, rlimit, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]


def call(binary: Path, *argv: str, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [str(binary), *argv],
        input=data,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
        env={"ASAN_OPTIONS": "detect_leaks=0:exitcode=99"},
    )
    assert result.returncode != 99, result.stderr.decode()
    return subprocess.CompletedProcess(result.args, result.returncode, result.stdout.decode(), result.stderr.decode())


def saved(settings: list[Attribute], *bootstrap: Attribute) -> bytes:
    return tlv.message("BOOTSTRAP", bootstrap) + tlv.message("SETTINGS", settings)


def test_help_tells_every_verb(binary: Path) -> None:
    result = call(binary, "--help")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("decode FILE", "run FILE", "--version", "CTR_INIT_SOCKET"))


def test_version_tells_the_protocol_too(binary: Path) -> None:
    assert call(binary, "--version").stdout.endswith(f", protocol {tlv.VERSION}\n")


@pytest.mark.parametrize("argv", [[], ["fly"], ["run"], ["decode"], ["run", "a", "b"]])
def test_wrong_usage_exits_2(binary: Path, argv: list[str]) -> None:
    result = call(binary, *argv)
    assert result.returncode == 2
    assert "ctr-init" in result.stderr


@pytest.mark.parametrize("value", ["", "x", "1", "-3", "99999999999999999999", "700"])
def test_a_socket_that_is_none_is_refused(binary: Path, value: str) -> None:
    result = subprocess.run(
        [str(binary)], env={"CTR_INIT_SOCKET": value}, capture_output=True, timeout=TIMEOUT, check=False
    )
    assert result.returncode == 2
    assert b"CTR_INIT_SOCKET" in result.stderr


def test_decode_prints_every_message_and_attribute(binary: Path, directory: Path) -> None:
    hook: Attribute = ("HOOK", [("HOOK_PATH", "/bin/x"), ("HOOK_TIMEOUT", 5)])
    settings = [("ARG", 'say "hi"'), ("GROUPS", [1, 2]), rlimit(7, 1, 2), hook, ("FIFO_FD", 0), ("NO_NEW_PRIVS", 1)]
    file = directory / "saved"
    file.write_bytes(saved(settings, ("CLONE_FLAGS", CLONE_NEWPID), ("NS_PATH", "net:/x")))
    assert call(binary, "decode", str(file)).stdout.splitlines() == [
        "BOOTSTRAP (message 10, sequence 7, 48 bytes)",
        "  CLONE_FLAGS = 0x20000000",
        '  NS_PATH = "net:/x"',
        "SETTINGS (message 14, sequence 7, 140 bytes)",
        '  ARG = "say \\"hi\\""',
        "  GROUPS = 1 2",
        "  RLIMIT = resource 7 soft 1 hard 2",
        "  HOOK",
        '    HOOK_PATH = "/bin/x"',
        "    HOOK_TIMEOUT = 5",
        "  FIFO_FD = fd #0 of the message",
        "  NO_NEW_PRIVS = true",
    ]


def test_decode_reads_standard_input(binary: Path) -> None:
    assert call(binary, "decode", "-", data=tlv.message("GO")).stdout.startswith("GO (message 12")


def test_decode_tells_where_a_file_is_broken(binary: Path) -> None:
    result = call(binary, "decode", "-", data=tlv.message("GO") + b"\xff" * 20)
    assert result.returncode == 1
    assert result.stdout.startswith("GO ")
    assert "message at byte 16: message length out of bounds" in result.stderr


def test_decode_of_every_prefix_of_a_message_is_an_error(binaries: dict[str, Path]) -> None:
    data = saved([("ARG", "x"), ("HOOK", [("HOOK_PATH", "/x")])], ("CLONE_FLAGS", 0))
    boundary = len(tlv.message("BOOTSTRAP", [("CLONE_FLAGS", 0)]))
    for length in range(1, len(data), 7):
        if length != boundary:
            assert call(binaries["asan"], "decode", "-", data=data[:length]).returncode == 1


@pytest.mark.parametrize("verb", ["run", "decode"])
def test_a_missing_file_is_named(binary: Path, verb: str) -> None:
    result = call(binary, verb, "/nonexistent")
    assert (result.returncode, result.stderr) == (1, "ctr-init: read /nonexistent: No such file or directory\n")


def test_run_does_everything_without_an_engine(binary: Path) -> None:
    data = saved([*shell("hostname x && echo $$ $(hostname)")], ("CLONE_FLAGS", CLONE_NEWPID | CLONE_NEWUTS))
    result = call(binary, "run", "-", data=data)
    assert (result.stdout, result.returncode) == ("1 x\n", 0), result.stderr


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_run_exits_with_the_status_of_the_process(binary: Path, script: str, status: int) -> None:
    assert call(binary, "run", "-", data=saved(shell(script))).returncode == status


def test_run_prints_an_error_in_one_line(binary: Path) -> None:
    result = call(binary, "run", "-", data=saved([("ARG", "/nonexistent")]))
    assert result.returncode == 1
    assert result.stderr == 'ctr-init: exec: "/nonexistent": stat /nonexistent: no such file or directory\n'


def test_run_passes_on_an_error_of_stage_0(binary: Path) -> None:
    result = call(binary, "run", "-", data=saved(shell("true"), ("NS_PATH", "net:/nonexistent")))
    assert result.returncode == 1
    assert result.stderr == "ctr-init: open net namespace: open /nonexistent: no such file or directory\n"


@pytest.mark.parametrize(
    ("settings", "bootstrap", "text"),
    [
        ([("FIFO_FD", 0)], [], "FIFO_FD holds a fd"),
        ([("CONSOLE_ALLOCATE", 1)], [], "CONSOLE_ALLOCATE needs an engine"),
        ([("SECCOMP_FLAGS", 8)], [], "SECCOMP_FLAGS asks for a listener"),
        ([], [("CGROUP_FD", 0)], "CGROUP_FD holds a fd"),
        ([], [("KEEPER", 1)], "KEEPER needs STATUS_FD"),
    ],
)
def test_run_refuses_what_only_an_engine_can_give(
    binary: Path, settings: list[Attribute], bootstrap: list[Attribute], text: str
) -> None:
    result = call(binary, "run", "-", data=saved([*shell("true"), *settings], *bootstrap))
    assert result.returncode == 1
    assert text in result.stderr


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "BOOTSTRAP message: missing"),
        (tlv.message("GO"), "BOOTSTRAP message: another message stands in its place"),
        (tlv.message("BOOTSTRAP"), "SETTINGS message: missing"),
        (saved(shell("true")) + b"xxxx", "bytes after the SETTINGS message"),
    ],
)
def test_run_tells_what_is_wrong_with_a_file(binary: Path, data: bytes, text: str) -> None:
    result = call(binary, "run", "-", data=data)
    assert (result.returncode, result.stderr) == (1, f"ctr-init: -: {text}\n")
