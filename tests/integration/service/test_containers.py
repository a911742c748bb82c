"""The supervisor's own containers, by the requests of docs/PROTOCOL.md."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ctr_common.errors import ContainerNotFound, UsageError, WrongState
from ctr_supervisor.process.status import read_stat
from tests.support.runtime import Runtime
from tests.support.supervised import Client, Supervisor, readable
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]

Cheap = Callable[..., Path]


def test_a_container_lives_from_create_to_delete(
    client: Client, cheap_bundle: Cheap, container_id: str, direct: Runtime
) -> None:
    bundle = cheap_bundle("sh", "-c", "exit 7")
    created = client.ask("create", id=container_id, bundle=str(bundle))
    described = client.ask("state", id=container_id)["container"]
    assert described["status"] == "created"
    assert described["pid"] == created["pid"]
    assert described["owner"] == "root"
    assert {**described, "owner": ""} == direct.state(container_id)
    waiting = client.send("wait", id=container_id)
    client.wire.send("start", None, id=container_id, seq=1000)
    answers = {}
    while len(answers) < 2:
        with client.receive() as packet:
            answers[packet.body["seq"]] = packet.body
    assert answers[waiting]["status"] == 7
    assert answers[1000]["type"] == "result"
    described = client.ask("state", id=container_id)["container"]
    assert (described["status"], described["exit_status"], described["pid"]) == ("stopped", 7, 0)
    assert client.ask("list")["containers"] == [described]
    assert client.ask("wait", id=container_id)["status"] == 7
    client.ask("delete", id=container_id)
    assert isinstance(client.failure("state", id=container_id), ContainerNotFound)
    assert client.ask("list")["containers"] == []


def test_the_life_of_a_container_is_an_event_stream(client: Client, cheap_bundle: Cheap, container_id: str) -> None:
    client.ask("subscribe")
    pid = client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))["pid"]
    assert client.event()["event"] == "created"
    assert client.event()["event"] == "started"
    client.ask("kill", id=container_id, signal="KILL")
    ended = client.event()
    assert (ended["event"], ended["pid"], ended["status"]) == ("exited", pid, 137)
    client.ask("delete", id=container_id)
    assert client.event()["event"] == "deleted"


def test_containers_that_others_make_are_events_too(
    client: Client, cheap_bundle: Cheap, container_id: str, direct: Runtime
) -> None:
    client.ask("subscribe", id=container_id)
    direct("create", "-b", cheap_bundle("sleep", "600"), container_id).ok()
    assert client.event()["event"] == "created"
    direct("start", container_id).ok()
    assert client.event()["event"] == "started"
    direct("pause", container_id).ok()
    assert client.event()["event"] == "paused"
    assert client.ask("state", id=container_id)["container"]["status"] == "paused"
    direct("resume", container_id).ok()
    assert client.event()["event"] == "resumed"
    direct("kill", container_id, "KILL").ok()
    ended = client.event()
    assert ended["event"] == "exited"
    direct("delete", container_id).ok()
    assert client.event()["event"] == "deleted"


def test_the_standard_streams_of_a_container_are_the_ones_that_came_along(
    client: Client, cheap_bundle: Cheap, container_id: str
) -> None:
    reader, writer = os.pipe()
    client.ask("run", {"stdout": writer}, id=container_id, bundle=str(cheap_bundle("echo", "hello")))
    os.close(writer)
    with open(reader) as file:
        assert file.read() == "hello\n"


def test_a_process_more_runs_and_ends(client: Client, cheap_bundle: Cheap, container_id: str) -> None:
    client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))
    client.ask("subscribe")
    process = {"args": ["sh", "-c", "exit 3"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    with client.answer(client.send("exec", id=container_id, process=process)) as packet:
        pid = packet.body["pid"]
        assert readable(packet.fd("pidfd"))
    assert client.ask("wait", id=container_id, pid=pid)["status"] == 3
    started = client.event("exec-started", "exec-exited")
    assert (started["event"], started["pid"]) == ("exec-started", pid)
    ended = client.event("exec-exited")
    assert (ended["pid"], ended["status"]) == (pid, 3)


def test_a_keeper_is_known_by_its_pid(
    client: Client, supervisor: Supervisor, cheap_bundle: Cheap, container_id: str, direct: Runtime
) -> None:
    pid = client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))["pid"]
    state = json.loads((supervisor.root / container_id / "state.json").read_text())
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"\nPPid:\t{state['keeper_pid']}\n" in status
    assert "keeper" not in json.dumps(direct.state(container_id))


def test_the_end_of_a_deleted_container_is_told_to_those_who_ask_late(
    client: Client, cheap_bundle: Cheap, container_id: str
) -> None:
    client.ask("subscribe")
    pid = client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))["pid"]
    client.ask("delete", id=container_id, force=True)
    assert client.ask("wait", id=container_id, pid=pid)["status"] == 137
    assert client.event("exited")["status"] == 137
    assert client.event()["event"] == "deleted"
    assert isinstance(client.failure("wait", id=container_id), ContainerNotFound)
    assert isinstance(client.failure("wait", id=container_id, pid=pid + 1), WrongState)
    following = client.ask("run", id=container_id, bundle=str(cheap_bundle("sh", "-c", "exit 4")))["pid"]
    assert client.ask("wait", id=container_id, pid=following)["status"] == 4
    assert client.ask("wait", id=container_id, pid=pid)["status"] == 137


def test_every_kind_of_failure_comes_back_as_itself(client: Client, container_id: str) -> None:
    assert isinstance(client.failure("start", id=container_id), ContainerNotFound)
    assert isinstance(client.failure("state", id="no/id"), UsageError)
    assert isinstance(client.failure("wait", id=container_id), ContainerNotFound)
    assert "without an id" in str(client.failure("state"))
    assert "no request is called nonsense" in str(client.failure("nonsense"))


@pytest.mark.needs_limits
def test_pausing_updating_and_looking_at_a_container(client: Client, cheap_bundle: Cheap, container_id: str) -> None:
    client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))
    client.ask("subscribe")
    pid = client.ask("state", id=container_id)["container"]["pid"]
    assert client.ask("processes", id=container_id)["pids"] == [pid]
    client.ask("pause", id=container_id)
    assert client.event()["event"] == "paused"
    assert isinstance(client.failure("pause", id=container_id), WrongState)
    client.ask("resume", id=container_id)
    assert client.event()["event"] == "resumed"
    client.ask("update", id=container_id, resources={"pids": {"limit": 77}})
    assert client.event()["event"] == "updated"
    assert client.ask("config", id=container_id)["config"]["linux"]["resources"]["pids"]["limit"] == 77
    stats = client.ask("stats", id=container_id)["stats"]
    assert stats["pids"]["limit"] == 77
    client.ask("kill", id=container_id, signal=9, all=True)
    assert client.event("exited")["status"] == 137


def test_features_are_those_of_the_command_line(client: Client, direct: Runtime) -> None:
    import json

    assert client.ask("features")["features"] == json.loads(direct("features").text)


def test_the_status_counts(client: Client, supervisor: Supervisor, cheap_bundle: Cheap, container_id: str) -> None:
    client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))
    status = client.ask("status")
    assert (status["pid"], status["containers"], status["running"], status["clients"]) == (supervisor.pid, 1, 1, 1)
    client.ask("kill", id=container_id, signal=int(signal.SIGKILL))
    client.ask("wait", id=container_id)
    assert client.ask("status")["running"] == 0


@pytest.mark.parametrize("upgraded", [False, True])
def test_containers_have_the_limits_that_the_supervisor_was_started_with(
    client: Client, supervisor: Supervisor, cheap_bundle: Cheap, container_id: str, upgraded: bool
) -> None:
    if upgraded:
        client.ask("upgrade")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    assert own == (usual[1], usual[1])
    reader, writer = os.pipe()
    bundle = cheap_bundle("sh", "-c", "ulimit -Sn; ulimit -Hn")
    client.ask("run", {"stdout": writer}, id=container_id, bundle=str(bundle))
    os.close(writer)
    with open(reader) as file:
        assert tuple(map(int, file.read().split())) == usual


def test_a_signal_of_the_supervisor_is_not_held_back_from_containers(
    client: Client, cheap_bundle: Cheap, container_id: str
) -> None:
    client.ask("upgrade")
    pid = client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))["pid"]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["SigBlk"], 16) == int(status["SigIgn"], 16) == 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_end_of_an_exec_that_is_seen_with_the_answer_is_not_lost(
    supervisor: Supervisor, client: Client, cheap_bundle: Callable[..., Path], container_id: str
) -> None:
    """The signal of another child's end has come first, and tells of this one's too."""
    client.ask("run", id=container_id, bundle=str(cheap_bundle("sleep", "600")))
    process = {"cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    other = client.ask("exec", id=container_id, process={"args": ["sleep", "600"], **process})["pid"]
    until("the other one is the supervisor's child", lambda: other in children(supervisor.pid))
    (pool,) = [pid for pid in children(supervisor.pid) if comm(pid) == "ctr-pool"]
    before = set(children(supervisor.pid))
    until("a worker is there", lambda: children(pool))
    held = [pool, *children(pool)]
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    executed = client.send("exec", id=container_id, process={"args": ["sh", "-c", "exit 5"], **process})
    client.ask("ping")
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(other, signal.SIGKILL)
    until("its end is there to be seen", lambda: is_zombie(other))
    for pid in reversed(held):
        os.kill(pid, signal.SIGCONT)
    until("the end of the new one is", lambda: any(map(is_zombie, set(children(supervisor.pid)) - before)))
    os.kill(supervisor.pid, signal.SIGCONT)
    with client.answer(executed) as packet:
        pid = packet.body["pid"]
    assert client.ask("wait", id=container_id, pid=pid)["status"] == 5
    client.ask("delete", id=container_id, force=True)


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def is_zombie(pid: int) -> bool:
    found = read_stat(pid)
    return found is not None and found[0] == b"Z"
