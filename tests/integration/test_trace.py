"""`--trace`: the time of each step, of all processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of a trace, by the name of the process."""
    events = json.loads(path.read_text())
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            found.setdefault(names[event["pid"]], []).append(event)
    return found


def steps(events: list[dict[str, Any]]) -> list[str]:
    """Names of the steps, in the order in which they began."""
    return [event["name"] for event in sorted(events, key=lambda event: event["ts"])]


@pytest.mark.covers("global --trace")
def test_a_run_shows_the_steps_of_all_its_processes(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    path = directory / "trace.json"
    ctrun("--trace", path, "run", "-b", bundle(args=["true"]), container_id).ok()
    trace = read(path)
    assert {"load config", "make cgroups, set limits", "setup worker"} <= set(steps(trace["engine"]))
    assert "clone3" in steps(trace["ctr-init, stage 0"])
    inside = steps(trace["container process"])
    assert (
        inside.index("wait for go") < inside.index("enter the mount namespace's root") < inside.index("wait for start")
    )
    assert steps(trace["setup worker"]).count("mount") > 3


def test_the_worker_works_while_the_engine_waits_for_it(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    path = directory / "trace.json"
    ctrun("--trace", path, "run", "-b", bundle(args=["true"]), container_id).ok()
    trace = read(path)
    waiting = next(event for event in trace["engine"] if event["name"] == "setup worker")
    for event in trace["setup worker"]:
        assert waiting["ts"] <= event["ts"]
        assert event["ts"] <= waiting["ts"] + waiting["dur"]


def test_a_step_that_fails_is_in_the_trace(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path) -> None:
    def mount_nothing(config: dict[str, Any]) -> None:
        config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x"})

    path = directory / "trace.json"
    result = ctrun("--trace", path, "run", "-b", bundle(mount_nothing), container_id)
    assert result.code == 1
    assert read(path)["setup worker"][-1]["args"]["detail"] == "nosuchfs on /x"


def test_an_exec_is_traced_too(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path) -> None:
    ctrun("run", "-d", "-b", bundle(args=["sleep", "1000"]), container_id).ok()
    ctrun("--trace", directory / "trace.json", "exec", container_id, "true").ok()
    trace = read(directory / "trace.json")
    assert "until execve" in steps(trace["engine"])
    assert "setup worker" not in trace
    ctrun("delete", "--force", container_id).ok()


def test_in_a_directory_each_command_gets_a_file_of_its_own(ctrun: Runtime, directory: Path) -> None:
    for _ in range(2):
        ctrun("--trace", directory, "list").ok()
    traces = list(directory.glob("ctrun-*.json"))
    assert len(traces) == 2
    assert all("list" in steps(read(path)["engine"]) for path in traces)


def test_a_file_that_cannot_be_written_is_an_error(ctrun: Runtime, directory: Path) -> None:
    result = ctrun("--trace", directory / "missing/trace", "list")
    assert result.code == 1
    assert "missing/trace" in result.err
