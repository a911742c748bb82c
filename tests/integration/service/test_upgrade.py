"""The supervisor goes on as another program, and nobody is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CtrError, StateError
from ctr_supervisor.service.upgrade import VARIABLE
from tests.support.bundles import Bundles
from tests.support.runtime import Runtime
from tests.support.supervised import PROGRAM, Client, Supervisor, readable
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]

Cheap = Callable[..., Path]


def test_the_answer_to_an_upgrade_comes_from_the_new_program(client: Client, supervisor: Supervisor) -> None:
    before = client.ask("status")
    upgraded = client.ask("upgrade")
    assert upgraded["pid"] == before["pid"] == supervisor.pid
    assert (before["upgrades"], upgraded["upgrades"]) == (0, 1)
    assert upgraded["uptime"] >= before["uptime"]
    assert client.ask("upgrade")["upgrades"] == 2


def test_a_signal_does_it_too(client: Client, supervisor: Supervisor) -> None:
    os.kill(supervisor.pid, signal.SIGUSR2)
    until("the new program answers", lambda: client.ask("status")["upgrades"] == 1)


def test_the_command_line_does_it_too(supervisor: Supervisor, client: Client) -> None:
    result = subprocess.run(
        [PROGRAM, "--socket", supervisor.socket, "--upgrade"], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"pid {supervisor.pid}" in result.stdout
    assert client.ask("status")["upgrades"] == 1


def test_containers_subscriptions_and_waits_go_on(
    client: Client, supervisor: Supervisor, cheap_bundle: Cheap, new_container_id: Callable[[], str], direct: Runtime
) -> None:
    own, other = new_container_id(), new_container_id()
    client.ask("subscribe")
    client.ask("run", id=own, bundle=str(cheap_bundle("sleep", "600")))
    direct("run", "--detach", "-b", cheap_bundle("sleep", "600"), other).ok()
    pid = client.ask("state", id=own)["container"]["pid"]
    process = {"args": ["sh", "-c", "read x; exit 5"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    reader, writer = os.pipe()
    executed = client.ask("exec", {"stdin": reader}, id=own, process=process)["pid"]
    os.close(reader)
    waits = {client.send("wait", id=own): 137, client.send("wait", id=own, pid=executed): 5}
    with supervisor.client() as asking:
        asking.ask("upgrade")
        assert asking.ask("state", id=own)["container"]["pid"] == pid
        assert asking.ask("state", id=other)["container"]["status"] == "running"
        os.write(writer, b"\n")
        os.close(writer)
        asking.ask("wait", id=own, pid=executed)
        asking.ask("kill", id=own, signal="KILL")
    answers = {}
    while len(answers) < len(waits):
        with client.receive() as packet:
            if packet.type == "event":
                client.events.append(packet.body)
            else:
                answers[packet.body["seq"]] = packet.body["status"]
    assert answers == waits
    seen = [(event["id"], event["event"]) for event in client.events]
    while (own, "exited") not in seen:
        event = client.event()
        seen.append((event["id"], event["event"]))
    assert sorted(seen) == sorted(
        [
            (own, "created"),
            (own, "started"),
            (other, "created"),
            (other, "started"),
            (own, "exec-started"),
            (own, "exec-exited"),
            (own, "exited"),
        ]
    )


def test_how_a_deleted_container_ended_is_remembered(client: Client, cheap_bundle: Cheap, container_id: str) -> None:
    pid = client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))["pid"]
    client.ask("delete", id=container_id, force=True)
    assert client.ask("wait", id=container_id, pid=pid)["status"] == 137
    client.ask("upgrade")
    assert client.ask("wait", id=container_id, pid=pid)["status"] == 137


def test_what_happens_meanwhile_is_told_and_known(
    client: Client, supervisor: Supervisor, cheap_bundle: Cheap, new_container_id: Callable[[], str], direct: Runtime
) -> None:
    """The program is stopped while containers end and appear, and only then goes on as another one."""
    ends, deleted, late = (new_container_id() for _ in range(3))
    direct(
        "run", "--detach", "-b", cheap_bundle("sh", "-c", "trap 'exit 9' TERM; while true; do sleep 0.1; done"), ends
    )
    direct("run", "--detach", "-b", cheap_bundle("sleep", "600"), deleted).ok()
    client.ask("subscribe")
    os.kill(supervisor.pid, signal.SIGSTOP)
    direct("delete", "--force", deleted).ok()
    direct("create", "-b", cheap_bundle("sleep", "600"), late).ok()
    os.kill(supervisor.pid, signal.SIGUSR2)
    os.kill(supervisor.pid, signal.SIGCONT)
    seen = set()
    for _ in range(3):
        event = client.event()
        seen.add((event["id"], event["event"]))
    assert seen == {(deleted, "exited"), (deleted, "deleted"), (late, "created")}
    until("the new program answers", lambda: client.ask("status")["upgrades"] == 1)


def test_a_request_under_way_is_answered_by_the_new_program(
    supervisor: Supervisor, client: Client, cheap_bundle: Cheap, container_id: str, directory: Path
) -> None:
    bundle = cheap_bundle("sleep", "600")
    gate, reached = directory / "gate", directory / "reached"
    os.mkfifo(gate)
    os.mkfifo(reached)
    edit_hooks(bundle, f"echo > {reached}; cat {gate}")
    creation = client.send("create", id=container_id, bundle=str(bundle))
    # It waits for its turn behind the creation, in the new program too.
    start = client.send("start", id=container_id)
    reached.read_text()
    with supervisor.client() as asking:
        asking.ask("upgrade")
    assert client.ask("ping")["type"] == "result"
    gate.write_text("")
    with client.answer(creation) as created:
        assert readable(created.fd("pidfd"), 0) is False
    client.answer(start).close()
    assert client.ask("state", id=container_id)["container"]["status"] == "running"
    old = supervisor.pool()
    until("the old pool has ended", lambda: len(supervisor.pool()) <= len(old))


def edit_hooks(bundle: Path, script: str) -> None:
    """Has a shell script run at the creation of the bundle's containers."""
    config = json.loads((bundle / "config.json").read_text())
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}
    config["hooks"] = {"createRuntime": [hook]}
    (bundle / "config.json").write_text(json.dumps(config))


def test_under_load_no_request_fails(
    supervisor: Supervisor, cheap_bundle: Cheap, new_container_id: Callable[[], str]
) -> None:
    bundle = str(cheap_bundle("true"))
    failures: list[str] = []
    done = threading.Event()
    rounds = [0] * 3

    def load(number: int, name: str) -> None:
        with supervisor.client() as one:
            while not done.is_set() and not failures:
                try:
                    one.ask("run", id=name, bundle=bundle)
                    status = one.ask("wait", id=name)["status"]
                    one.ask("delete", id=name)
                    if status != 0:
                        failures.append(f"status {status}")
                except (CtrError, AssertionError) as error:
                    failures.append(repr(error))
                rounds[number] += 1

    threads = [threading.Thread(target=load, args=(number, new_container_id())) for number in range(3)]
    for thread in threads:
        thread.start()
    with supervisor.client() as asking:
        for upgrades in range(1, 5):
            assert asking.ask("upgrade")["upgrades"] == upgrades
    done.set()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert min(rounds) > 0
    with supervisor.client() as asking:
        assert asking.ask("list")["containers"] == []


def test_upgrades_leave_no_fds_and_processes_behind(client: Client, supervisor: Supervisor) -> None:
    client.ask("upgrade")
    before = supervisor.fds()
    for _ in range(5):
        client.ask("upgrade")
    until("the old pools have ended", lambda: len(supervisor.pool()) == 1)
    client.ask("ping")
    until("their sockets are closed", lambda: supervisor.fds() <= before)


def test_a_command_in_the_foreground_goes_on_with_its_streams_and_status(
    supervisor: Supervisor, client: Client, cheap_bundle: Cheap, container_id: str, direct: Runtime
) -> None:
    bundle = cheap_bundle("sh", "-c", "echo before; read line; echo after $line; exit 6")
    command = subprocess.Popen(
        [direct.path, f"--supervisor={supervisor.socket}", *direct.globals, "run", "-b", bundle, container_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "before\n"
        assert client.ask("upgrade")["upgrades"] == 1
        assert client.ask("state", id=container_id)["container"]["status"] == "running"
        out, err = command.communicate("word\n", timeout=30)
    assert (command.returncode, out, err) == (6, "after word\n", "")
    until("it is deleted", lambda: client.ask("list")["containers"] == [])


def test_commands_of_clients_go_on_under_upgrades(
    supervisor: Supervisor, cheap_bundle: Cheap, new_container_id: Callable[[], str], direct: Runtime
) -> None:
    bundle = cheap_bundle("sh", "-c", "echo hello; exit 4")
    argv = [direct.path, f"--supervisor={supervisor.socket}", *direct.globals, "run", "-b", bundle]
    wrong: list[str] = []
    done = threading.Event()

    def load(name: str) -> None:
        while not done.is_set() and not wrong:
            result = subprocess.run(
                [*argv, name], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if (result.returncode, result.stdout, result.stderr) != (4, "hello\n", ""):
                wrong.append(repr(result))

    threads = [threading.Thread(target=load, args=(new_container_id(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    with supervisor.client() as asking:
        for upgrades in range(1, 4):
            assert asking.ask("upgrade")["upgrades"] == upgrades
        done.set()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        until("nothing is left", lambda: asking.ask("list")["containers"] == [])
        assert asking.ask("status")["commands"] > 0


@pytest.fixture
def launcher(directory: Path) -> Path:
    """A copy of the launcher that can be spoiled."""
    path = directory / "bin/ctr-supervisor"
    path.parent.mkdir()
    path.write_text(PROGRAM.read_text())
    path.chmod(0o755)
    return path


def test_requests_beyond_what_the_pool_does_at_once_wait_and_are_handed_over(
    directory: Path,
    launcher: Path,
    monkeypatch: pytest.MonkeyPatch,
    cheap_bundle: Cheap,
    new_container_id: Callable[[], str],
    direct: Runtime,
) -> None:
    """Three at once instead of 2048; of eight creations five wait in the queue when the program changes."""
    small = "from ctr_supervisor.service import pool; pool.JOBS_MAX = 3\n"
    found = launcher.read_text()
    place = found.index("from ctr_supervisor")
    launcher.write_text(found[:place] + small + found[place:])
    monkeypatch.setattr("tests.support.supervised.PROGRAM", launcher)
    gate, reached = directory / "gate", directory / "reached"
    bundle = cheap_bundle("true")
    script = f"echo x >>{reached}; while ! [ -e {gate} ]; do sleep 0.05; done"
    edit_hooks(bundle, script)
    supervisor = Supervisor(directory).start()
    try:
        clients = [supervisor.client() for _ in range(8)]
        names = [new_container_id() for _ in clients]
        with supervisor.client() as asking:
            asked = [
                client.send("run", id=name, bundle=str(bundle)) for client, name in zip(clients, names, strict=True)
            ]
            until("three are at work", lambda: reached.exists() and len(reached.read_text()) == 6)
            status = asking.ask("upgrade")
            assert (status["upgrades"], status["jobs"]) == (1, 8)
            # The queue's first are the new pool's.
            until("three more are at work", lambda: len(reached.read_text()) == 12)
            assert asking.ask("upgrade")["upgrades"] == 2
            gate.touch()
            for client, seq, name in zip(clients, asked, names, strict=True):
                client.answer(seq).close()
                assert client.ask("wait", id=name)["status"] == 0
                client.close()
            until("no job is left", lambda: asking.ask("status")["jobs"] == 0)
        assert len(reached.read_text()) == 16
    finally:
        supervisor.stop()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("#!/bin/sh\necho not today; exit 1\n", "not today"),
        ("#!/nonexistent\n", "no such file or directory"),
        ("#!/bin/sh\nkill -SEGV $$\n", "would not work"),
    ],
)
def test_a_program_that_would_not_work_leaves_the_old_one_running(
    directory: Path, launcher: Path, monkeypatch: pytest.MonkeyPatch, program: str, text: str
) -> None:
    monkeypatch.setattr("tests.support.supervised.PROGRAM", launcher)
    supervisor = Supervisor(directory).start()
    try:
        with supervisor.client() as client:
            launcher.with_suffix(".new").write_text(program)
            launcher.with_suffix(".new").chmod(0o755)
            launcher.with_suffix(".new").rename(launcher)
            assert text in str(client.failure("upgrade"))
            assert client.ask("status")["upgrades"] == 0
    finally:
        supervisor.stop()


def test_a_state_of_another_version_is_refused_by_the_new_program() -> None:
    result = subprocess.run([PROGRAM, "--check-upgrade", "99"], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "99" in result.stdout


def test_nonsense_in_place_of_a_state_is_no_state(directory: Path) -> None:
    result = subprocess.run(
        [PROGRAM, "--root", directory / "root", "--socket", directory / "s"],
        env={**os.environ, VARIABLE: "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "can't be read" in result.stderr
    assert StateError.__name__ not in result.stderr


def test_a_console_goes_on_with_every_byte(
    supervisor: Supervisor, client: Client, bundle: Bundles, container_id: str
) -> None:
    """The client holds the master of the terminal; what the container writes meanwhile waits there."""

    def with_terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True

    script = "stty -onlcr; echo ready; read line; i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; exit 2"
    made = bundle(with_terminal, args=["sh", "-c", script])
    with client.answer(client.send("run", id=container_id, bundle=str(made))) as packet:
        console = packet.take_fd("console")
    shown = b""
    while b"ready\n" not in shown:
        shown += os.read(console, 65536)
    wait = client.send("wait", id=container_id)
    with supervisor.client() as asking:
        asked = asking.send("upgrade")
        os.write(console, b"go\n")
        asking.answer(asked).close()
    try:
        while chunk := os.read(console, 65536):
            shown += chunk
    except OSError:
        # EIO: every process that had the terminal is gone
        pass
    os.close(console)
    assert [line for line in shown.split(b"\n") if line.startswith(b"line")] == [b"line %d" % i for i in range(300)]
    with client.answer(wait) as ended:
        assert ended.body["status"] == 2
