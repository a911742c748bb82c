"""Killed with SIGKILL and started again, the supervisor finds every container; when nothing happens it does nothing."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import started
from tests.support.runtime import Runtime
from tests.support.slowness import SLOWNESS
from tests.support.supervised import Client, Supervisor
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]

Cheap = Callable[..., Path]

MANY = 500
# Requests under way at once while many containers are made.
AT_ONCE = 8


@pytest.fixture
def many(
    client: Client, cheap_bundle: Cheap, new_container_id: Callable[[], str]
) -> Iterator[Callable[[int], list[str]]]:
    """Makes many containers that sleep."""
    made: list[str] = []

    def make(count: int) -> list[str]:
        bundle = str(cheap_bundle("sleep", "6000"))
        names = [new_container_id() for _ in range(count)]
        made.extend(names)
        client_ids = iter(names)
        under_way = 0
        for name in client_ids:
            client.send("run", id=name, bundle=bundle)
            under_way += 1
            if under_way >= AT_ONCE:
                receive_result(client)
                under_way -= 1
        for _ in range(under_way):
            receive_result(client)
        return names

    yield make


def receive_result(client: Client) -> None:
    with client.receive() as packet:
        assert packet.type == "result", packet.body


def end_all(client: Client) -> None:
    """Deletes everything by the supervisor, which is quicker than by as many commands."""
    names = [one["id"] for one in client.ask("list")["containers"]]
    under_way = 0
    for name in names:
        client.send("delete", id=name, force=True)
        under_way += 1
        if under_way >= AT_ONCE:
            receive_result(client)
            under_way -= 1
    for _ in range(under_way):
        receive_result(client)


@pytest.mark.timeout(600)
def test_five_hundred_containers_are_all_there_after_the_death_of_the_supervisor(
    supervisor: Supervisor, client: Client, many: Callable[[int], list[str]], direct: Runtime
) -> None:
    names = many(MANY)
    before = {one["id"]: one for one in client.ask("list")["containers"]}
    assert set(before) == set(names)
    assert {one["status"] for one in before.values()} == {"running"}
    start_times = {one["pid"]: start_time(one["pid"]) for one in before.values()}
    supervisor.kill()
    # Some end while nobody watches, in different ways.
    ended = names[:10]
    pidfds = [os.pidfd_open(before[name]["pid"]) for name in ended]
    for pidfd in pidfds:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)
    for name in ended:
        until("the keeper has written", (supervisor.root / name / "exit-status").exists)
    supervisor.start()
    with supervisor.client() as again:
        try:
            after = {one["id"]: one for one in again.ask("list")["containers"]}
            assert set(after) == set(before)
            for name in names[10:]:
                assert after[name] == before[name]
            for name in ended:
                assert (after[name]["status"], after[name]["exit_status"]) == ("stopped", 137)
                assert again.ask("wait", id=name)["status"] == 137
            living = {one["pid"] for one in after.values() if one["pid"]}
            assert {pid: start_time(pid) for pid in living} == {pid: start_times[pid] for pid in living}
            # They are ours again: their ends are heard of.
            with supervisor.client() as listening:
                listening.ask("subscribe", id=names[20])
                again.ask("kill", id=names[20], signal="KILL")
                assert listening.event("exited")["status"] == 137
            assert direct.state(names[30])["status"] == "running"
        finally:
            end_all(again)


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_supervisor_with_a_hundred_containers_takes_no_cpu(
    supervisor: Supervisor, client: Client, many: Callable[[int], list[str]]
) -> None:
    many(100)
    client.ask("list")
    try:
        # What follows a creation is over: late looks at changes, workers that go.
        until("it has come to rest", lambda: at_rest(supervisor))
        wakeups, cpu = supervisor.wakeups(), supervisor.cpu()
        select.select([], [], [], 3)
        assert (supervisor.wakeups() - wakeups, supervisor.cpu() - cpu) == (0, 0)
    finally:
        end_all(client)


def at_rest(supervisor: Supervisor) -> bool:
    before = supervisor.wakeups()
    select.select([], [], [], 0.5)
    return supervisor.wakeups() == before


def test_what_a_dead_creator_left_half_made_is_removed(
    directory: Path, direct: Runtime, cheap_bundle: Cheap, container_id: str
) -> None:
    bundle = cheap_bundle("sleep", "600")
    import json
    import subprocess

    config = json.loads((bundle / "config.json").read_text())
    reached = directory / "reached"
    os.mkfifo(reached)
    script = f"echo > {reached}; exec sleep 600"
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]}
    (bundle / "config.json").write_text(json.dumps(config))
    argv = [direct.path, *direct.globals, "create", "-b", bundle, container_id]
    null = subprocess.DEVNULL
    with started(*argv, stdin=null, stdout=null, stderr=null, start_new_session=True) as creator:
        reached.read_text()
        os.killpg(creator.pid, signal.SIGKILL)
    os.utime(directory / "root" / container_id, (time.time() - 3600,) * 2)
    supervisor = Supervisor(directory).start()
    try:
        until("it is removed", lambda: not (directory / "root" / container_id).exists())
    finally:
        supervisor.stop()


def test_a_stopped_supervisor_is_found_by_nobody_and_its_containers_go_on(
    supervisor: Supervisor, client: Client, cheap_bundle: Cheap, container_id: str, direct: Runtime
) -> None:
    client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))
    assert supervisor.stop() == 0
    assert not supervisor.socket.exists()
    assert direct.state(container_id)["status"] == "running"


def test_a_shutdown_with_containers_ends_them_in_order(
    supervisor: Supervisor, cheap_bundle: Cheap, new_container_id: Callable[[], str], direct: Runtime
) -> None:
    polite, stubborn = new_container_id(), new_container_id()
    obey = cheap_bundle("sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done")
    with supervisor.client() as client:
        client.ask("run", id=polite, bundle=str(obey))
        client.ask("run", id=stubborn, bundle=str(cheap_bundle("sleep", "600")))
        # pid 1 of a namespace hears no signal that it has no handler for
        until("the trap is set", lambda: caught(client.ask("state", id=polite)["container"]["pid"]))
        answer = client.ask("shutdown", containers=True, grace=0.3 * SLOWNESS)
        assert (answer["stopped"], answer["killed"], answer["stuck"]) == ([polite], [stubborn], [])
    assert supervisor.process is not None
    assert supervisor.process.wait(30) == 0
    assert {direct.status(polite), direct.status(stubborn)} == {"stopped"}


def caught(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_a_pool_that_dies_is_replaced(
    supervisor: Supervisor, client: Client, cheap_bundle: Cheap, container_id: str
) -> None:
    (pool,) = supervisor.pool()
    os.kill(pool, signal.SIGKILL)
    until("there is another one", lambda: client.ask("status")["upgrades"] == 1)
    client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))
    assert client.ask("state", id=container_id)["container"]["status"] == "running"
