"""What the client hands over, writes and ends with; and what it does when the supervisor goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ctr_common.errors import ConfigError, StateError
from ctr_common.kernel import _kernel
from tests.client.fake import LIMIT, Client, Supervisor, receive

pytestmark = [pytest.mark.needs_cc]

GARBAGE = {
    "no msgpack": b"\xc1\xc1",
    "no map": b"\x93\x01\x02\x03",
    "no type": b"\x81\xa1a\x01",
    "an unknown type": b"\x81\xa4type\xa6nosuch",
    "a truncated map": b"\x85\xa4type\xa4exit",
    "an empty list": b"\x90",
    "exit without a status": b"\x81\xa4type\xa4exit",
    "exit with a text": b"\x82\xa4type\xa4exit\xa6status\xa1x",
    "a status that is too large": b"\x82\xa4type\xa4exit\xa6status\xcd\x01\x00",
    "output without data": b"\x82\xa4type\xa6output\xa2fd\x01",
    "output to another fd": b"\x83\xa4type\xa6output\xa2fd\x00\xa4data\xc4\x01x",
    "attend without a pid": b"\x83\xa4type\xa6attend\xa2id\xa1x\xa4root\xa1r",
    "reap of nothing": b"\x81\xa4type\xa4reap",
    "more than a datagram may have": b"x" * 65537,
}


def test_the_command_line_and_its_surroundings_are_handed_over(
    start: Callable[..., Client], supervisor: Supervisor, directory: Path
):
    odd = os.fsencode("wei\xdf") + b"\xff\xfe"
    client = start("run", odd, "x" * 300, env={"A": "1", "B": "two\nlines"}, cwd=directory, umask=0o027)
    wire = supervisor.greet()
    with receive(wire, "command") as command:
        assert [os.fsencode(argument) for argument in command.texts("argv")[1:]] == [b"run", odd, b"x" * 300]
        assert {"A=1", "B=two\nlines", f"CTRUN_SUPERVISOR={supervisor.path}"} <= set(command.texts("env"))
        assert command.get("umask", int) == 0o027
        assert command.fd_names == ["stdin", "stdout", "stderr", "cwd"]
        assert os.readlink(f"/proc/self/fd/{command.fd('cwd')}") == str(directory)
        os.write(command.fd("stdout"), b"to stdout\n")
        os.write(command.fd("stderr"), b"to stderr\n")
    wire.send("exit", None, status=5)
    assert client.end() == (5, "to stdout\n", "to stderr\n")


def test_a_command_line_of_any_size_is_handed_over(start: Callable[..., Client], supervisor: Supervisor):
    env = {f"V{number}": "x" * 100_000 for number in range(10)}
    client = start("exec", *["a" * 1000] * 100, env=env)
    wire, command = supervisor.serve()
    assert command.texts("argv")[1:] == ["exec", *["a" * 1000] * 100]
    assert {f"{name}={value}" for name, value in env.items()} <= set(command.texts("env"))
    wire.send("exit", None, status=0)
    assert client.end()[0] == 0


def test_what_is_not_open_becomes_dev_null_as_without_a_supervisor(builds: dict[str, Path], supervisor: Supervisor):
    script = 'exec "$0" list <&- >&- 2>&-'
    client = Client(Path("/bin/sh"), ["-c", script, builds["static"] / "ctrun"], supervisor.path)
    with client:
        wire = supervisor.greet()
        with receive(wire, "command") as command:
            for name in ("stdin", "stdout", "stderr"):
                assert os.readlink(f"/proc/self/fd/{command.fd(name)}") == "/dev/null"
        wire.send("output", None, fd=1, data=b"nowhere")
        wire.send("exit", None, status=0)
        assert client.end()[0] == 0


@pytest.mark.parametrize("size", [0, 5, 60_000, 10_000_000])
def test_output_of_any_size_is_written(start: Callable[..., Client], supervisor: Supervisor, size: int):
    client = start("list")
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=1, data=b"o" * size)
    wire.send("output", None, fd=2, data=b"e" * min(size, 1000))
    wire.send("exit", None, status=0)
    assert client.end() == (0, "o" * size, "e" * min(size, 1000))


def test_output_that_blocks_for_a_while_is_not_lost(start: Callable[..., Client], supervisor: Supervisor):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    client = start("list", stdout=writing)
    os.close(writing)
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=1, data=b"o" * 1_000_000)
    wire.send("exit", None, status=0)
    with os.fdopen(reading, "rb") as file:
        assert len(file.read()) == 1_000_000
    assert client.end()[0] == 0


def test_a_reader_who_is_gone_ends_it_as_it_ends_the_direct_way(start: Callable[..., Client], supervisor: Supervisor):
    reading, writing = os.pipe()
    os.close(reading)
    client = start("list", stdout=writing)
    os.close(writing)
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=1, data=b"text")
    assert client.end()[0] == 141


def test_a_full_disk_is_an_error(start: Callable[..., Client], supervisor: Supervisor):
    with open("/dev/full", "wb") as full:
        client = start("list", stdout=full)
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=1, data=b"text")
    code, _, err = client.end()
    assert code == 1
    assert "write /dev/stdout: no space left on device" in err


def test_what_is_refused_goes_the_direct_way(start: Callable[..., Client], supervisor: Supervisor):
    client = start("--debug", "list")
    wire, _ = supervisor.serve()
    wire.send("refuse", None, reason="another namespace")
    code, out, err = client.end()
    assert (code, out) == (7, "direct:--debug list\n")
    assert "another namespace, going the direct way" in err


def test_the_direct_way_gets_no_fd_of_the_dialogue(start: Callable[..., Client], supervisor: Supervisor):
    client = start("--fds")
    wire, _ = supervisor.serve()
    wire.send("refuse", None, reason="")
    _, out, _ = client.end()
    assert "socket:" not in out
    assert "memfd" not in out


def test_a_supervisor_of_another_version_is_left_alone(start: Callable[..., Client], supervisor: Supervisor):
    client = start("--debug", "list")
    wire = supervisor.accept()
    wire.send("hello", None, version=2, capabilities=[])
    code, out, err = client.end()
    assert (code, out) == (7, "direct:--debug list\n")
    assert "it speaks another version" in err


@pytest.mark.parametrize("when", ["hello", "command"])
def test_a_supervisor_that_does_not_want_it_is_left_alone(
    start: Callable[..., Client], supervisor: Supervisor, when: str
):
    client = start("list")
    wire = supervisor.accept() if when == "hello" else supervisor.serve()[0]
    wire.send_error(ConfigError("go away"))
    wire.close()
    assert client.end() == (7, "direct:list\n", "")


def test_a_supervisor_that_is_gone_before_the_hello_leaves_the_direct_way(
    start: Callable[..., Client], supervisor: Supervisor
):
    client = start("list")
    supervisor.accept().close()
    assert client.end() == (7, "direct:list\n", "")


@pytest.mark.parametrize("after", ["command", "output"])
def test_a_supervisor_that_is_gone_after_the_command_is_an_error(
    start: Callable[..., Client], supervisor: Supervisor, directory: Path, after: str
):
    log = directory / "log"
    client = start("--log", log, "--log-format=json", "list")
    wire, _ = supervisor.serve()
    if after == "output":
        wire.send("output", None, fd=1, data=b"some")
    wire.close()
    code, out, err = client.end()
    text = f"supervisor at {supervisor.path}: it closed the connection before the command had ended"
    assert (code, out, err) == (1, "some" if after == "output" else "", text + "\n")
    line = json.loads(log.read_text())
    assert (line["level"], line["msg"]) == ("error", text)


def test_an_error_is_a_log_line_like_those_of_the_direct_way(
    start: Callable[..., Client], supervisor: Supervisor, binary: Path
):
    client = start("list")
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=2, data=b"")
    wire.send_error(ConfigError('the job "x" crashed'))
    code, _, err = client.end()
    assert code == 1
    assert err.startswith('time="2')
    assert f'level=error msg="supervisor at {supervisor.path}: the job \\"x\\" crashed"' in err


def test_an_error_is_told_with_all_that_is_known_of_it(start: Callable[..., Client], supervisor: Supervisor):
    client = start("list")
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=2, data=b"")
    wire.send_error(StateError(step="reading it", syscall="open", errno=errno.ENOENT, path="/x/state.json"))
    code, _, err = client.end()
    assert code == 1
    assert "reading it: open /x/state.json: no such file or directory" in err


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_an_error(start: Callable[..., Client], supervisor: Supervisor, what: str):
    client = start("list")
    wire, _ = supervisor.serve()
    wire.send("output", None, fd=1, data=b"")
    _kernel.sendmsg(wire.fd, GARBAGE[what])
    code, _, err = client.end()
    assert code == 1
    assert "it sent something that is no message" in err


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"], ["a", "b", "c"], "ab", [1, 2]])
def test_fds_that_are_not_what_is_announced_are_an_error(
    start: Callable[..., Client], supervisor: Supervisor, names: object
):
    client = start("list")
    wire, _ = supervisor.serve()
    _kernel.sendmsg(wire.fd, packed(type="exit", status=0, fds=names), (0, 0))
    assert client.end()[0] == 1


@pytest.mark.parametrize("memfd", ["none", "not sealed", "a pipe", "empty", "garbage"])
def test_an_indirect_message_has_to_be_a_sealed_one(start: Callable[..., Client], supervisor: Supervisor, memfd: str):
    client = start("list")
    wire, _ = supervisor.serve()
    reading, writing = os.pipe()
    data = packed(type="exit", status=0)
    fds = {
        "none": [],
        "not sealed": [os.memfd_create("x")],
        "a pipe": [reading],
        "empty": [_kernel.memfd_sealed("x", b"")],
        "garbage": [_kernel.memfd_sealed("x", b"\xc1" * 100)],
    }[memfd]
    if memfd == "not sealed":
        os.write(fds[0], data)
    _kernel.sendmsg(wire.fd, packed(type="indirect"), fds)
    assert client.end()[0] == 1
    for fd in {reading, writing, *fds}:
        os.close(fd)


def test_unknown_fields_and_fds_do_no_harm(start: Callable[..., Client], supervisor: Supervisor):
    client = start("list")
    wire, _ = supervisor.serve()
    wire.send("exit", {"more": 0}, status=6, new=[{"of": "later"}, 1.5, None])
    assert client.end()[0] == 6


def test_it_can_be_killed_while_it_waits(start: Callable[..., Client], supervisor: Supervisor):
    client = start("list")
    wire, _ = supervisor.serve()
    client.process.terminate()
    assert client.end()[0] == -15
    assert wire.receive(LIMIT) is None


def packed(**body: object) -> bytes:
    """A message, without the checks of Wire."""
    import msgpack

    data: bytes = msgpack.packb(body, use_bin_type=True)
    return data


def test_a_child_that_is_ignored_by_the_caller_can_be_waited_for(binary: Path, supervisor: Supervisor, directory: Path):
    script = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = [sys.executable, "-c", script, binary, "list"]
    with subprocess.Popen(argv, env={"CTRUN_SUPERVISOR": str(supervisor.path)}, stdin=subprocess.DEVNULL) as process:
        wire, _ = supervisor.serve()
        line = [text for text in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigIgn" in text]
        assert not int(line[0].split()[1], 16) & 1 << 16
        wire.send("exit", None, status=0)
        assert process.wait(LIMIT) == 0
