"""Terminals and pipes over a checkpoint: what the restored process is connected to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.criu.conftest import LIMIT, Restorable, run_detached
from tests.support.bundles import Config
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_criu, pytest.mark.usefixtures("no_leaks")]
covers = pytest.mark.covers


def with_terminal(config: Config) -> None:
    """A configuration with a terminal."""
    config["process"]["terminal"] = True
    config["process"]["env"].append("PS1=# ")


@contextmanager
def console(path: Path) -> Iterator[list[int]]:
    """A console socket; the master that came is in the list afterwards."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(LIMIT)
        got: list[int] = []
        yield got
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        got.append(int.from_bytes(ancillary[0][2], "little"))
    path.unlink()


def read_until(master: int, text: str) -> str:
    """What a terminal shows, up to a text."""
    seen = ""
    while text not in seen:
        seen += os.read(master, 4096).decode()
    return seen


@covers("restore --console-socket")
def test_a_shell_with_a_terminal_goes_on_at_another_one(box: Restorable, directory: Path) -> None:
    box.bundle = box.bundles(with_terminal, args=["sh"])
    path = directory / "console"
    with console(path) as masters:
        run_detached(box.ctrun, "run", "-d", "--console-socket", path, "-b", box.bundle, box.container_id).ok()
    os.write(masters[0], b"word=kept; echo r''eady\n")
    read_until(masters[0], "ready")
    box.checkpoint().ok()
    os.close(masters[0])
    with console(path) as masters:
        box.restore("--console-socket", path).ok()
    os.write(masters[0], b"echo it is $word\n")
    assert "it is kept" in read_until(masters[0], "it is kept")
    assert os.readlink(f"/proc/{box.pid}/fd/0").startswith("/dev/pts/")
    os.close(masters[0])
    box.end()


@covers("checkpoint --shell-job", "restore --shell-job", "restore --no-subreaper")
@pytest.mark.parametrize("flags", [[], ["--no-subreaper"]])
def test_in_the_foreground_a_restored_shell_has_the_users_terminal_and_gives_its_exit_status(
    box: Restorable, flags: list[str]
) -> None:
    box.bundle = box.bundles(with_terminal, args=["sh"])
    base = [box.ctrun.path, *box.ctrun.globals]
    with Terminal(*base, "run", "-b", box.bundle, box.container_id) as before:
        before.expect("# ")
        before.type("word=kept\n")
        before.expect("# ", after=before.expect("word=kept"))
        box.checkpoint("--shell-job").ok()
        assert before.wait(LIMIT) == 137
    where = ["--image-path", box.images, "-b", box.bundle, "--shell-job", *flags]
    with Terminal(*base, *box.criu, "restore", *where, box.container_id) as after:
        until("it runs", lambda: box.status == "running")
        after.type("echo it is $word\n")
        after.expect("it is kept")
        after.type("exit 7\n")
        assert after.wait(LIMIT) == 7
    assert box.status == ""


def test_pipes_as_stdio_are_replaced_by_those_of_the_restore(box: Restorable) -> None:
    box.bundle = box.bundles(args=["sh", "-c", "while read line; do echo got $line; done; exit 5"])
    argv = [box.ctrun.path, *box.ctrun.globals]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    options: dict[str, Any] = {**pipes, "stderr": subprocess.DEVNULL, "text": True, "bufsize": 1}

    def exchange(process: Any, word: str) -> None:
        process.stdin.write(word + "\n")
        assert process.stdout.readline() == f"got {word}\n"

    with subprocess.Popen([*argv, "run", "-b", box.bundle, box.container_id], **options) as before:
        exchange(before, "one")
        described = json.loads((box.ctrun.state_root / box.container_id / "state.json").read_text())
        assert described["external_descriptors"][0].startswith("pipe:[")
        box.checkpoint().ok()
        assert before.wait(LIMIT) == 137
    assert json.loads((box.images / "descriptors.json").read_text()) == described["external_descriptors"]
    restore = [*argv, *box.criu, "restore", "--image-path", box.images, "-b", box.bundle, box.container_id]
    with subprocess.Popen(restore, **options) as after:
        exchange(after, "two")
        assert after.stdin is not None
        after.stdin.close()
        assert after.wait(LIMIT) == 5
    assert box.status == ""


def test_signals_reach_a_restored_container_in_the_foreground(box: Restorable) -> None:
    box.run("trap 'exit 9' TERM; : > /dev/shm/ready; while :; do sleep 0.1; done")
    until("it is ready", lambda: box.ctrun("exec", box.container_id, "test", "-e", "/dev/shm/ready").code == 0)
    box.checkpoint().ok()
    argv = [box.ctrun.path, *box.ctrun.globals, *box.criu, "restore", "--image-path", box.images, "-b", box.bundle]
    with subprocess.Popen([*argv, box.container_id], stdin=subprocess.DEVNULL) as process:
        until("it runs", lambda: box.status == "running")
        assert Path(f"/proc/{box.pid}/stat").read_text().rpartition(")")[2].split()[1] == str(process.pid)
        process.terminate()
        assert process.wait(LIMIT) == 9
    assert box.status == ""


def test_a_detached_container_becomes_the_child_of_the_callers_subreaper(box: Restorable, ctrun: Runtime) -> None:
    box.count().counts()
    box.checkpoint().ok()
    script = (
        "import ctypes, subprocess, sys, time\n"
        "ctypes.CDLL(None).prctl(36, 1)\n"
        "subprocess.run(sys.argv[1:], check=True, stdin=subprocess.DEVNULL)\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [ctrun.path, *box.criu, "restore", "-d", "--image-path", box.images, "-b", box.bundle, box.container_id]
    command = ["/usr/bin/python3", "-c", script, *argv]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as subreaper:
        assert subreaper.stdout is not None
        # The stdio of the counter was the null device, so it has nothing of ours.
        assert subreaper.stdout.readline() == b"done\n"
        parent = Path(f"/proc/{box.pid}/stat").read_text().rpartition(")")[2].split()[1]
        assert parent == str(subreaper.pid)
        box.end()
        subreaper.communicate(timeout=10)
