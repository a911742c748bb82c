"""The thin client with a real supervisor: whose children containers are, and what deaths on either side leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime, runtime_under_test
from tests.support.supervised import LIMIT, Supervisor
from tests.support.terminal import Terminal
from tests.support.waiting import until

Cheap = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]


@pytest.fixture
def start(supervisor: Supervisor) -> Iterator[Start]:
    """Factory of clients that run."""
    with ExitStack() as stack:

        def make(*arguments: str | Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
            argv = [runtime_under_test(), "--root", supervisor.root, f"--supervisor={supervisor.socket}", *arguments]
            pipe = subprocess.PIPE
            process = subprocess.Popen(argv, text=True, stdin=stdin, stdout=pipe, stderr=pipe)
            stack.callback(end, process)
            return process

        yield make


def end(process: subprocess.Popen[str]) -> None:
    """Kills what is left of it."""
    if process.poll() is None:
        process.kill()
    process.communicate()


def running(direct: Runtime, container_id: str) -> int:
    """Waits until the container runs; its pid."""
    until("it runs", lambda: direct.status(container_id) == "running")
    pid: int = direct.state(container_id)["pid"]
    return pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0])


def result(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def test_the_container_is_a_child_of_the_client(start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str):
    client = start("run", "-b", cheap_bundle("sleep", "60"), container_id)
    pid = running(direct, container_id)
    assert parent_of(pid) == client.pid
    client.send_signal(signal.SIGTERM)
    direct("kill", container_id, "KILL")
    assert result(client)[0] == 137
    assert direct.status(container_id) == ""


def test_a_supervisor_that_is_killed_disturbs_nobody_in_the_foreground(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str
):
    client = start(
        "run", "-b", cheap_bundle("sh", "-c", "read line; echo $line; exit 42"), container_id, stdin=subprocess.PIPE
    )
    running(direct, container_id)
    supervisor.kill()
    assert client.stdin is not None
    client.stdin.write("hello\n")
    client.stdin.flush()
    assert result(client) == (42, "hello\n", "")
    assert direct.status(container_id) == ""
    assert os.listdir(supervisor.root) == []


def test_the_next_supervisor_deletes_what_the_last_one_left(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str
):
    client = start("run", "-b", cheap_bundle("sh", "-c", "read line; exit 42"), container_id, stdin=subprocess.PIPE)
    running(direct, container_id)
    supervisor.kill()
    supervisor.start()
    assert result(client)[0] == 42
    assert direct.status(container_id) == ""


def test_an_exec_outlives_the_supervisor(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str
):
    direct("run", "-d", "-b", cheap_bundle("sleep", "60"), container_id).ok()
    client = start("exec", container_id, "sh", "-c", "echo ready; read line; exit 43", stdin=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    supervisor.kill()
    assert result(client)[0] == 43
    assert direct.status(container_id) == "running"


def test_a_console_outlives_the_supervisor(supervisor: Supervisor, bundle: Bundles, direct: Runtime, container_id: str):
    direct("run", "-d", "-b", bundle(args=["sleep", "60"]), container_id).ok()
    argv = [runtime_under_test(), "--root", supervisor.root, f"--supervisor={supervisor.socket}", "exec", "-t"]
    with Terminal(*argv, container_id, "sh") as terminal:
        terminal.type("echo a$((1))b\n").expect("a1b")
        supervisor.kill()
        terminal.type("echo c$((2))d\n").expect("c2d")
        terminal.resize(33, 99)
        terminal.type("stty size\n").expect("33 99")
        terminal.type("exit 44\n")
        assert terminal.wait() == 44


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_client_that_dies_in_a_slow_hook_leaves_nothing(
    start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str, directory: Path, number: int
):
    bundle = cheap_bundle("sleep", "60")
    hook(bundle, f"touch {directory}/hook; while [ -e {directory}/hook ]; do sleep 0.01; done")
    client = start("create", "-b", bundle, container_id)
    until("the hook runs", (directory / "hook").exists)
    client.send_signal(number)
    client.communicate(timeout=LIMIT)
    (directory / "hook").unlink()
    until(
        "nothing is left", lambda: direct.status(container_id) == "" and not (direct.state_root / container_id).exists()
    )


def test_a_hook_may_be_slow(start: Start, cheap_bundle: Cheap, container_id: str, directory: Path):
    bundle = cheap_bundle("true")
    hook(bundle, f"touch {directory}/hook; while [ -e {directory}/hook ]; do sleep 0.01; done")
    client = start("run", "-b", bundle, container_id)
    until("the hook runs", (directory / "hook").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        # longer than any limit of the client
        client.communicate(timeout=3)
    (directory / "hook").unlink()
    assert result(client) == (0, "", "")


def test_a_supervisor_that_is_killed_in_a_slow_hook_does_not_hang_the_client(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str, directory: Path
):
    bundle = cheap_bundle("true")
    hook(bundle, f"touch {directory}/hook; while [ -e {directory}/hook ]; do sleep 0.01; done")
    client = start("run", "-b", bundle, container_id)
    until("the hook runs", (directory / "hook").exists)
    supervisor.kill()
    (directory / "hook").unlink()
    # the job under way may finish it, or its end is an error: both are answers
    code, _, err = result(client)
    assert (code, err) == (0, "") or (code == 1 and "before the command had ended" in err)
    direct("delete", "--force", container_id)


def test_a_stopped_supervisor_hangs_nobody(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str
):
    assert supervisor.process is not None
    os.kill(supervisor.process.pid, signal.SIGSTOP)
    try:
        assert result(start("run", "-b", cheap_bundle("echo", "direct"), container_id)) == (0, "direct\n", "")
    finally:
        os.kill(supervisor.process.pid, signal.SIGCONT)
    # the command that it never got is not carried out a second time
    assert result(start("state", container_id))[0] == 1


def hook(bundle: Path, script: str) -> None:
    """Gives a bundle a createRuntime hook."""
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    path.write_text(json.dumps(config))


def is_gone(root: Path, container_id: str) -> bool:
    """Whether there is nothing of a container: no state, no cgroup, no process."""
    for tasks in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if f"/{container_id}\n" in tasks.read_text():
                return False
        except (FileNotFoundError, ProcessLookupError):
            continue
    return not (root / container_id).exists() and not list(Path("/sys/fs/cgroup").glob(f"*/{container_id}"))


def is_whole_or_gone(engine: Runtime, root: Path, container_id: str) -> bool:
    """Whether nothing is left of a container, or nothing is missing."""
    return is_gone(root, container_id) or engine.status(container_id) == "created"


def test_a_client_that_is_interrupted_while_a_hook_runs_leaves_nothing(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, container_id: str, tmp_path: Path
):
    made = cheap_bundle("sleep", "600")
    config = json.loads((made / "config.json").read_text())
    ready = tmp_path / "ready"
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f": >{ready}; exec sleep 600"]}]}
    (made / "config.json").write_text(json.dumps(config))
    root = tmp_path / "of-an-engine"
    client = start("--root", root, "create", "-b", made, container_id)
    until("the hook runs", ready.exists)
    client.send_signal(signal.SIGINT)
    client.wait(LIMIT)
    assert client.returncode == -signal.SIGINT
    until("nothing is left", partial(is_gone, root, container_id))


def test_a_client_that_is_interrupted_at_any_moment_leaves_a_whole_container_or_nothing(
    supervisor: Supervisor, start: Start, cheap_bundle: Cheap, direct: Runtime, container_id: str, tmp_path: Path
):
    made = cheap_bundle("sleep", "600")
    root = tmp_path / "of-an-engine"
    engine = Runtime(direct.path, root)
    undone = 0
    for number in range(30):
        name = f"{container_id}-{number}"
        client = start("--root", root, "create", "-b", made, name)
        # Moments, not a wait for anything.
        time.sleep(number / 1500)
        client.send_signal(signal.SIGINT)
        client.wait(LIMIT)
        assert client.returncode in (0, 1, -signal.SIGINT)
        until("it is whole or gone", partial(is_whole_or_gone, engine, root, name))
        if is_gone(root, name):
            assert client.returncode != 0
            undone += 1
        else:
            engine("delete", "--force", name).ok()
    assert undone
