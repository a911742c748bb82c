"""`ctrun call` and `ctrun --supervisor`, as a shell script uses them, with a real supervisor."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.runtime import ROOT
from tests.support.supervised import Supervisor
from tests.support.waiting import until

CTRUN = ROOT / "bin/ctrun"

pytestmark = [pytest.mark.needs_root]


@pytest.mark.covers("verb call", "call --socket")
def test_a_script_makes_and_ends_a_container(
    supervisor: Supervisor, cheap_bundle: Callable[..., Path], container_id: str
) -> None:
    def call(*words: str) -> dict[str, object]:
        answer: dict[str, object] = json.loads(run(CTRUN, "call", "--socket", supervisor.socket, *words).text)
        return answer

    assert isinstance(call("run", f"id={container_id}", f"bundle={cheap_bundle('sleep', '1000')}")["pid"], int)
    assert call("kill", f"id={container_id}", "signal=KILL") == {}
    assert call("wait", f"id={container_id}") == {"status": 137}
    assert call("delete", f"id={container_id}") == {}
    assert call("list") == {"containers": []}


@pytest.mark.covers("call --stdio")
def test_the_scripts_stdio_becomes_the_process_s(
    supervisor: Supervisor, cheap_bundle: Callable[..., Path], container_id: str
) -> None:
    words = ["run", f"id={container_id}", f"bundle={cheap_bundle('cat')}"]
    result = run(CTRUN, "call", "--socket", supervisor.socket, "--stdio", *words, stdin="over\n").ok()
    run(CTRUN, "call", "--socket", supervisor.socket, "wait", f"id={container_id}").ok()
    # What collects the command's output is open until the process that inherited it has ended.
    assert "over" in result.out.splitlines()
    run(CTRUN, "call", "--socket", supervisor.socket, "delete", f"id={container_id}").ok()


@pytest.mark.covers("call --format")
def test_a_failure_is_a_map_where_a_script_wants_one(supervisor: Supervisor) -> None:
    result = run(CTRUN, "call", "--socket", supervisor.socket, "--format", "json", "state", "id=nobody")
    assert result.code == 1
    assert json.loads(result.out)["kind"] == "ContainerNotFound"


@pytest.mark.covers("global --supervisor")
def test_a_command_is_served_where_the_flag_says(
    supervisor: Supervisor, cheap_bundle: Callable[..., Path], container_id: str
) -> None:
    flags = [f"--supervisor={supervisor.socket}", "--root", str(supervisor.root)]
    path = cheap_bundle("sh", "-c", "echo hello; exit 5")
    result = run(CTRUN, *flags, "run", "-b", path, container_id)
    assert (result.code, result.out) == (5, "hello\n")
    status = json.loads(run(CTRUN, "call", "--socket", supervisor.socket, "status").text)
    assert status["commands"] >= 1


def test_a_call_that_waits_holds_no_worker_and_ends_with_its_caller(supervisor: Supervisor) -> None:
    """Although the command lines of this caller are taken."""
    environment = {**os.environ, "CTRUN_SUPERVISOR": str(supervisor.socket)}
    with supervisor.client() as client:
        json.loads(run(CTRUN, "call", "status", env=environment).text)
        assert client.ask("status")["commands"] == 1
        waiting = subprocess.Popen([CTRUN, "call", "subscribe"], env=environment, stdout=subprocess.PIPE)
        until("it listens", lambda: client.ask("status")["subscribers"] == 1)
        status = client.ask("status")
        assert (status["jobs"], status["commands"]) == (0, 1)
        waiting.terminate()
        assert waiting.wait(20) == -15
        assert waiting.stdout is not None
        assert waiting.stdout.read() == b""
        waiting.stdout.close()
        until("nobody listens", lambda: client.ask("status")["subscribers"] == 0)
