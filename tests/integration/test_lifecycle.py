"""Whole containers through the command line: from create to delete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ctr_common.kernel import _kernel
from ctr_supervisor.engine import kill
from ctr_supervisor.engine.runtime import Runtime as EngineRuntime
from tests.support.bundles import Bundles
from tests.support.command import started
from tests.support.leaks import reap
from tests.support.needs import lacking
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]

FOREVER = ["sleep", "1000"]


def test_run_gives_output_and_exit_status(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    result = ctrun("run", "-b", bundle(args=["sh", "-c", "echo $$ $(hostname); exit 7"]), container_id)
    assert (result.code, result.out, result.err) == (7, "1 testhost\n", "")
    assert ctrun.status(container_id) == ""


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11)])
def test_death_by_a_signal_is_128_and_its_number(
    ctrun: Runtime, bundle: Bundles, container_id: str, name: str, number: int
) -> None:
    # Pid 1 of a pid namespace can't kill itself; without one it can.
    def share_pids(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]

    result = ctrun("run", "-b", bundle(share_pids, args=["sh", "-c", f"kill -{name} $$"]), container_id)
    assert result.code == 128 + number


@pytest.mark.covers("verb create", "verb start", "verb state", "verb pause", "verb resume", "verb kill", "verb delete")
def test_a_container_goes_through_its_states(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    ctrun("create", "-b", bundle(args=FOREVER), "--pid-file", directory / "pid", container_id).ok()
    assert ctrun.status(container_id) == "created"
    pid = ctrun.state(container_id)["pid"]
    assert (directory / "pid").read_text() == str(pid)
    assert Path(f"/proc/{pid}/comm").read_text().startswith("ctr-init")
    ctrun("start", container_id).ok()
    assert ctrun.status(container_id) == "running"
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    ctrun("pause", container_id).ok()
    assert ctrun.status(container_id) == "paused"
    ctrun("resume", container_id).ok()
    assert ctrun.status(container_id) == "running"
    ctrun("kill", container_id, "KILL").ok()
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    assert ctrun.state(container_id)["pid"] == 0
    ctrun("delete", container_id).ok()
    assert ctrun("state", container_id).code == 1


@pytest.mark.covers(".process.args")
def test_argv_of_the_container_is_untouched(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    # The second command keeps the shell from replacing itself by the first.
    script = "tr '\\0' '|' </proc/1/cmdline; true"
    run = ctrun("run", "-b", bundle(args=["sh", "-c", script]), container_id)
    assert run.text == f"sh|-c|{script}|"


def test_detached_run_returns_at_once(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    assert ctrun.status(container_id) == "running"
    ctrun("delete", "--force", container_id).ok()


def test_keep_leaves_the_stopped_container(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "--keep", "-b", bundle(args=["true"]), container_id).ok()
    assert ctrun.status(container_id) == "stopped"
    ctrun("delete", container_id).ok()


def test_signals_to_a_foreground_run_reach_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    argv = [ctrun.path, "run", "-b", bundle(args=["sh", "-c", script]), container_id]
    with started(*argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "got\n"
        assert process.wait(20) == 5


def test_a_terminal_is_relayed_with_its_size(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    def terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True

    path = bundle(terminal, args=["sh", "-c", "tty; stty size; read line; echo got:$line; exit 3"])
    with Terminal(ctrun.path, "run", "-b", path, container_id, rows=33, columns=101) as screen:
        screen.expect("/dev/pts/0")
        screen.expect("33 101")
        screen.type("hello\n")
        screen.expect("got:hello")
        assert screen.wait() == 3


@pytest.mark.parametrize("redirection", ["</dev/null", "</dev/null 2>/dev/null", "2>/dev/null >size"])
def test_the_size_is_that_of_the_first_stream_that_is_a_terminal(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, redirection: str
) -> None:
    def terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True

    path = bundle(terminal, args=["stty", "size"])
    command = f'cd "$1" && "$2" run -b "$3" "$4" {redirection}; cat size 2>/dev/null; echo end-$?'
    with Terminal("sh", "-c", command, "sh", directory, ctrun.path, path, container_id, rows=33, columns=101) as screen:
        screen.expect("end-")
        assert "33 101" in screen.seen


def test_a_terminal_that_hangs_up_does_not_hide_how_the_container_ended(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    def terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True

    path = bundle(terminal, args=["sh", "-c", "trap 'exit 9' HUP; echo ready; while :; do sleep 0.05; done"])
    command = 'trap "" HUP; "$1" run -b "$2" "$3"; echo $? >"$4/new"; mv "$4/new" "$4/status"'
    with Terminal("sh", "-c", command, "sh", ctrun.path, path, container_id, directory) as screen:
        screen.expect("ready")
        os.close(screen.master)
        screen.master = os.open(os.devnull, os.O_RDWR)
        ctrun("kill", container_id, "HUP").ok()
        until("it has ended", (directory / "status").exists)
    assert (directory / "status").read_text() == "9\n"


@pytest.mark.covers(".process.consoleSize.height", ".process.consoleSize.width")
def test_console_size_of_the_configuration_is_set(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    def terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True
        config["process"]["consoleSize"] = {"height": 12, "width": 34}

    import array
    import socket

    path = bundle(terminal, args=["sh", "-c", "stty size"])
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "console"))
        server.listen(1)
        ctrun("create", "-b", path, "--console-socket", directory / "console", container_id).ok()
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
            master = array.array("i", ancillary[0][2])[0]
    ctrun("start", container_id).ok()
    seen = b""
    while b"12 34" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    ctrun("delete", container_id).ok()


def test_the_pidfd_of_the_process_is_sent(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path) -> None:
    import array
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "pidfd"))
        server.listen(1)
        ctrun("run", "-d", "-b", bundle(args=FOREVER), "--pidfd-socket", directory / "pidfd", container_id).ok()
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
            pidfd = array.array("i", ancillary[0][2])[0]
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    assert f"Pid:\t{ctrun.state(container_id)['pid']}\n" in info
    os.close(pidfd)
    ctrun("delete", "--force", container_id).ok()


@pytest.mark.covers("run --preserve-fds")
def test_preserved_fds_reach_the_container_and_no_others(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    (directory / "kept").write_text("kept")
    (directory / "not").write_text("not")
    kept, hidden = os.open(directory / "kept", os.O_RDONLY), os.open(directory / "not", os.O_RDONLY)
    script = f'exec 3<&{kept} 9<&{hidden}; exec "$@"'
    path = bundle(args=["sh", "-c", "cat <&3; ls /proc/self/fd | tr '\\n' ' '"])
    run = subprocess.run(
        ["bash", "-c", script, "x", ctrun.path, "run", "--preserve-fds", "1", "-b", path, container_id],
        check=False,
        pass_fds=(kept, hidden),
        capture_output=True,
        text=True,
        timeout=30,
    )
    os.close(kept)
    os.close(hidden)
    # fd 4 is ls's own directory
    assert (run.stdout, run.returncode) == ("kept0 1 2 3 4 ", 0), run.stderr


def test_fds_that_the_caller_did_not_pass_can_not_be_preserved(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    result = ctrun("run", "--preserve-fds", "3", "-b", bundle(), container_id)
    assert result.code == 1
    assert "file descriptor 3" in result.err


def test_exec_runs_beside_the_init(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    result = ctrun(
        "exec",
        "-e",
        "A=b",
        "--cwd",
        "/tmp",
        "-u",
        "7:8",
        container_id,
        "sh",
        "-c",
        "echo $A $PWD $(id -u):$(id -g); exit 9",
    )
    assert (result.code, result.out) == (9, "b /tmp 7:8\n")
    assert int(ctrun("exec", container_id, "sh", "-c", "echo $PPID").text) == 0
    ctrun("delete", "--force", container_id).ok()


def test_exec_takes_a_process_file(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path) -> None:
    process = {"args": ["sh", "-c", "umask; echo $X"], "cwd": "/", "env": ["X=y", "PATH=/bin"], "user": {"umask": 0o27}}
    (directory / "process.json").write_text(json.dumps(process))
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    assert ctrun("exec", "-p", directory / "process.json", container_id).text == "0027\ny"
    ctrun("delete", "--force", container_id).ok()


def test_exec_with_a_terminal(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    with Terminal(ctrun.path, "exec", "-t", container_id, "sh", "-c", "tty; exit 4") as screen:
        screen.expect("/dev/pts/")
        assert screen.wait() == 4
    ctrun("delete", "--force", container_id).ok()


def test_a_missing_command_of_exec_is_told_as_engines_know_it(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    result = ctrun("exec", container_id, "nosuch")
    assert result.code == 255
    assert 'exec: \\"nosuch\\": executable file not found in $PATH' in result.err
    ctrun("delete", "--force", container_id).ok()


def test_exec_into_a_paused_container_needs_to_be_asked_for(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    ctrun("pause", container_id).ok()
    result = ctrun("exec", container_id, "true")
    assert (result.code, "cannot exec in a paused container" in result.err) == (255, True)
    ctrun("delete", "--force", container_id).ok()


def test_start_of_a_dead_container_does_not_block(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("create", "-b", bundle(args=FOREVER), container_id).ok()
    os.kill(ctrun.state(container_id)["pid"], signal.SIGKILL)
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    result = ctrun("start", container_id, timeout=10)
    assert (result.code, "cannot start a container that has stopped" in result.err) == (1, True)
    ctrun("delete", container_id).ok()


@pytest.mark.parametrize("attempt", range(5))
def test_start_against_delete_ends_whoever_wins(
    ctrun: Runtime, bundle: Bundles, container_id: str, attempt: int
) -> None:
    ctrun("create", "-b", bundle(args=FOREVER), container_id).ok()
    gate = threading.Barrier(2)

    def verb(*args: str) -> int:
        gate.wait()
        return ctrun(*args, timeout=20).code

    with ThreadPoolExecutor(2) as pool:
        starting = pool.submit(verb, "start", container_id)
        deleting = pool.submit(verb, "delete", "--force", container_id)
    assert deleting.result() == 0
    assert starting.result() in (0, 1)
    assert ctrun.status(container_id) == ""


def test_a_created_container_can_be_deleted_without_force(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("create", "-b", bundle(args=FOREVER), container_id).ok()
    ctrun("delete", container_id).ok()
    assert ctrun.status(container_id) == ""


def test_a_running_container_is_not_deleted_without_force(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    result = ctrun("delete", container_id)
    assert result.code == 1
    assert f"cannot delete container {container_id} that is not stopped: running" in result.err
    ctrun("delete", "--force", container_id).ok()


def test_delete_works_after_a_creator_was_killed(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    hook = directory / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {directory}/there\nexec sleep 1000\n")
    hook.chmod(0o755)

    def slow_hook(config: dict[str, Any]) -> None:
        config["hooks"] = {"createRuntime": [{"path": str(hook), "env": ["PATH=/bin:/usr/bin"]}]}

    with started(ctrun.path, "create", "-b", bundle(slow_hook), container_id, start_new_session=True) as creator:
        until("the hook runs", (directory / "there").exists)
        assert ctrun.status(container_id) == "creating"
        os.killpg(creator.pid, signal.SIGKILL)
        creator.wait(10)

    # A supervisor's job outlives its client, and undoes what it made.
    ends = ("stopped",) if not lacking("needs_direct") else ("stopped", "")

    # The worker was the creator's child, and a zombie in the pid namespace would keep its init from ending.
    def stopped() -> bool:
        reap(set())
        return ctrun.status(container_id) in ends

    until("its process has ended", stopped)
    ctrun("delete", "--force", container_id).ok()
    ctrun("delete", "--force", container_id).ok()
    assert ctrun.status(container_id) == ""


@pytest.mark.covers("verb kill", "kill --all")
def test_kill_all_ends_every_process_of_a_shared_pid_namespace(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    def share_pids(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]

    path = bundle(share_pids, args=["sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000"])
    ctrun("run", "-d", "-b", path, container_id).ok()
    pids: list[int] = []

    def three_processes() -> bool:
        pids[:] = json.loads(ctrun("ps", "-f", "json", container_id).text)
        return len(pids) == 3

    until("three processes", three_processes)
    ctrun("kill", "--all", container_id, "KILL").ok()
    until("all gone", lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))
    ctrun("delete", container_id).ok()


def test_a_container_that_is_deleted_while_it_is_killed_was_killed(
    ctrun: Runtime, bundle: Bundles, container_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a `run` in the foreground, which deletes it as soon as its process has ended."""
    ctrun("run", "-d", "-b", bundle(args=["sleep", "1000"]), container_id).ok()
    send = _kernel.pidfd_send_signal

    def send_and_delete(pidfd: int, number: int) -> None:
        send(pidfd, number)
        ctrun("delete", "--force", container_id).ok()

    monkeypatch.setattr(_kernel, "pidfd_send_signal", send_and_delete)
    kill.kill(EngineRuntime(str(ctrun.state_root)), container_id, signal.SIGKILL)
    assert ctrun.status(container_id) == ""


@pytest.mark.covers("verb ps", "ps --format")
def test_ps_lists_the_processes_of_the_container_only(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    assert json.loads(ctrun("ps", "--format", "json", container_id).text) == [ctrun.state(container_id)["pid"]]
    header, line = ctrun("ps", container_id, "-o", "pid,comm").lines
    assert (header.split(), line.split()[1]) == (["PID", "COMMAND"], "sleep")
    ctrun("delete", "--force", container_id).ok()


@pytest.mark.covers("verb list", "list --format", "list --quiet")
def test_list_shows_the_container_in_each_format(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    path = bundle(args=FOREVER)
    ctrun("run", "-d", "-b", path, container_id).ok()
    assert container_id in ctrun("list", "-q").lines
    (entry,) = [e for e in json.loads(ctrun("list", "-f", "json").text) if e["id"] == container_id]
    assert (entry["status"], entry["bundle"], entry["owner"]) == ("running", str(path), "root")
    (line,) = [line for line in ctrun("list").lines if line.startswith(container_id)]
    assert line.split()[2] == "running"
    ctrun("delete", "--force", container_id).ok()


def test_a_hundred_containers_start_in_parallel(ctrun: Runtime, bundle: Bundles, new_container_id: Any) -> None:
    path = bundle(args=["sh", "-c", "echo alive $(hostname)"])
    ids = [new_container_id() for _ in range(100)]
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda name: ctrun("run", "-b", path, name, timeout=100), ids))
    assert [(result.code, result.out) for result in results] == [(0, "alive testhost\n")] * 100


def hook_config(script: Path, stages: list[str]) -> Any:
    def change(config: dict[str, Any]) -> None:
        config["annotations"] = {"org.example.key": "value"}
        config["hooks"] = {
            stage: [{"path": str(script), "args": ["hook", stage], "env": ["PATH=/bin:/usr/bin:/sbin"], "timeout": 10}]
            for stage in stages
        }

    return change


def test_hooks_run_in_the_order_and_namespaces_of_the_specification(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    hook = directory / "hook"
    log = directory / "log"
    hook.write_text(
        f"#!/bin/sh\nstate=$(cat | tr -d '\\n ')\n"
        f'printf "%s %s %s\\n" "$1" "$(readlink /proc/self/ns/mnt)" "$state" >> {log}\n'
    )
    hook.chmod(0o755)
    stages = ["poststop", "poststart", "createContainer", "createRuntime", "prestart"]
    path = bundle(hook_config(hook, stages), args=FOREVER)
    ctrun("create", "-b", path, container_id).ok()
    pid = ctrun.state(container_id)["pid"]
    container_mnt = os.readlink(f"/proc/{pid}/ns/mnt")
    ctrun("start", container_id).ok()
    ctrun("delete", "--force", container_id).ok()
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    seen = {line[0]: (line[1], json.loads(line[2])) for line in lines}
    host_mnt = os.readlink("/proc/self/ns/mnt")
    for stage, (mnt, state) in seen.items():
        assert mnt == (container_mnt if stage == "createContainer" else host_mnt), stage
        assert (state["id"], state["bundle"], state["annotations"]) == (
            container_id,
            str(path),
            {"org.example.key": "value"},
        )
    assert [seen[stage][1]["status"] for stage in ("createRuntime", "poststart", "poststop")] == [
        "creating",
        "running",
        "stopped",
    ]
    assert seen["createRuntime"][1]["pid"] == pid


@pytest.mark.covers(".hooks.startContainer[].path", ".hooks.startContainer[].args")
def test_start_container_hooks_run_inside_before_the_process(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    def inside(config: dict[str, Any]) -> None:
        config["hooks"] = {
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state; hostname > /tmp/name"]}]
        }

    result = ctrun("run", "-b", bundle(inside, args=["cat", "/tmp/name", "/tmp/state"], writable=True), container_id)
    name, state = result.text.split("\n", 1)
    assert name == "testhost"
    assert json.loads(state)["status"] == "created"


def test_a_failing_start_container_hook_fails_the_start(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    def failing(config: dict[str, Any]) -> None:
        config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}

    ctrun("create", "-b", bundle(failing, args=["echo", "ran"]), container_id).ok()
    result = ctrun("start", container_id)
    assert (result.code, result.out) == (1, "")
    assert "startContainer" in result.err
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    ctrun("delete", container_id).ok()


@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_leaves_nothing(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, stage: str
) -> None:
    hook = directory / "hook"
    hook.write_text("#!/bin/sh\necho why >&2\nexit 3\n")
    hook.chmod(0o755)
    result = ctrun("run", "-b", bundle(hook_config(hook, [stage])), container_id)
    assert result.code == 1
    assert f"running {stage} hook #0" in result.err
    assert "why" in result.err
    assert ctrun.status(container_id) == ""


def test_a_failing_poststart_hook_stops_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    hook = directory / "hook"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    ctrun("create", "-b", bundle(hook_config(hook, ["poststart"]), args=FOREVER), container_id).ok()
    assert ctrun("start", container_id).code == 1
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    ctrun("delete", container_id).ok()
