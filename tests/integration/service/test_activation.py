"""The supervisor under a service manager: its sockets, and what it tells."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.supervised import Supervisor
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun]


@pytest.fixture
def notified(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(directory / "notify"))
        made.settimeout(30)
        yield made


def lines(notified: socket.socket) -> list[str]:
    return notified.recv(65536).decode().splitlines()


def wait_for(notified: socket.socket, line: str) -> None:
    while line not in lines(notified):
        pass


def activated(supervisor: Supervisor, listening: socket.socket, env: dict[str, str]) -> None:
    """Starts it as a service manager with a socket does."""
    program = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3, inheritable=True)\n"
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    fd = listening.fileno()
    with open(supervisor.log, "ab") as log:
        import subprocess

        supervisor.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, str(fd), *supervisor.argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **env},
            pass_fds=[fd],
        )


def test_a_socket_of_the_service_manager_is_served_and_stays(directory: Path, notified: socket.socket) -> None:
    supervisor = Supervisor(directory)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(supervisor.socket))
        listening.listen()
        # A client that comes before the service is served, too.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as early:
            early.connect(str(supervisor.socket))
            activated(supervisor, listening, {"NOTIFY_SOCKET": str(directory / "notify")})
            try:
                wait_for(notified, "READY=1")
                with supervisor.client() as client:
                    assert client.ask("status")["pid"] == supervisor.pid
                    assert client.ask("upgrade")["upgrades"] == 1
            finally:
                assert supervisor.stop() == 0
    assert supervisor.socket.exists()


def test_the_manager_hears_of_readiness_upgrades_life_and_the_end(directory: Path, notified: socket.socket) -> None:
    supervisor = Supervisor(directory)
    supervisor.start(env={"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "100000"})
    ready = lines(notified)
    assert ready[0] == "READY=1"
    assert f"MAINPID={supervisor.pid}" in ready
    wait_for(notified, "WATCHDOG=1")
    os.kill(supervisor.pid, signal.SIGUSR2)
    wait_for(notified, "RELOADING=1")
    wait_for(notified, "READY=1")
    wait_for(notified, "WATCHDOG=1")
    os.kill(supervisor.pid, signal.SIGTERM)
    wait_for(notified, "STOPPING=1")
    assert supervisor.stop() == 0


def test_the_watchdog_of_one_process_is_served_while_a_worker_is_slow_and_by_the_next_program(
    directory: Path, notified: socket.socket, cheap_bundle: Callable[..., Path], container_id: str
) -> None:
    gate, reached = directory / "gate", directory / "reached"
    os.mkfifo(gate)
    os.mkfifo(reached)
    bundle = cheap_bundle("true")
    config = json.loads((bundle / "config.json").read_text())
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo > {reached}; cat {gate}"]}
    (bundle / "config.json").write_text(json.dumps({**config, "hooks": {"createRuntime": [hook]}}))
    supervisor = Supervisor(directory)
    supervisor.start(
        env={"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "100000"},
        wrapper=["sh", "-c", 'export WATCHDOG_PID=$$; exec "$@"', "sh"],
    )
    try:
        with supervisor.client() as client:
            creation = client.send("create", id=container_id, bundle=str(bundle))
            reached.read_text()
            for _ in range(3):
                wait_for(notified, "WATCHDOG=1")
            os.kill(supervisor.pid, signal.SIGUSR2)
            while (said := lines(notified))[0] != "RELOADING=1":
                assert said == ["WATCHDOG=1"]
            assert said[-1] == "WATCHDOG=1"
            assert f"MAINPID={supervisor.pid}" in lines(notified)
            for _ in range(3):
                assert lines(notified) == ["WATCHDOG=1"]
            gate.write_text("")
            client.answer(creation).close()
            client.ask("delete", id=container_id, force=True)
    finally:
        assert supervisor.stop() == 0


def test_a_manager_that_does_not_read_holds_up_nobody(directory: Path, notified: socket.socket) -> None:
    count = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        try:
            while True:
                filling.sendto(b"X", str(directory / "notify"))
                count += 1
        except BlockingIOError:
            pass
    supervisor = Supervisor(directory)
    supervisor.start(env={"NOTIFY_SOCKET": str(directory / "notify"), "WATCHDOG_USEC": "20000"})
    with supervisor.client() as client:
        client.ask("ping")
        assert client.ask("upgrade")["upgrades"] == 1
    for _ in range(count):
        assert lines(notified) == ["X"]
    wait_for(notified, "READY=1")
    wait_for(notified, "WATCHDOG=1")
    assert supervisor.stop() == 0


def test_a_group_may_enter_the_directory_and_connect(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    supervisor = Supervisor(closed, "--group", "65534").start()
    try:
        found = os.stat(supervisor.socket)
        assert (found.st_mode & 0o777, found.st_gid) == (0o660, 65534)
        found = os.stat(closed)
        assert (found.st_mode & 0o777, found.st_gid) == (0o710, 65534)
    finally:
        supervisor.stop()
    until("the socket is gone", lambda: not supervisor.socket.exists())
