"""`explain`: the steps of a start, without a start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]


def explained(ctrun: Runtime, bundle: Path, *flags: str) -> list[dict[str, str]]:
    """The step list of a bundle."""
    found: list[dict[str, str]] = json.loads(ctrun("explain", "--format", "json", *flags, bundle).ok().out)
    return found


@pytest.mark.covers("verb explain", "explain --format")
def test_the_steps_go_from_the_check_to_execve(ctrun: Runtime, bundle: Bundles) -> None:
    steps = explained(ctrun, bundle(args=["echo", "hello"]))
    assert steps[0]["step"] == "check config.json"
    assert steps[-1] == {
        "process": "container process",
        "step": "execve",
        "detail": "echo hello",
        "json_path": ".process.args",
    }
    assert {step["process"] for step in steps} == {"engine", "ctr-init, stage 0", "setup worker", "container process"}


def test_the_text_has_a_heading_for_each_process_and_the_place_behind_each_step(
    ctrun: Runtime, bundle: Bundles
) -> None:
    lines = ctrun("explain", bundle()).ok().out.splitlines()
    assert lines[0] == "engine"
    assert any(line.endswith("mount: proc on /proc  [.mounts[0]]") for line in lines)


def test_hooks_stand_where_they_run(ctrun: Runtime, bundle: Bundles) -> None:
    def add_hooks(config: dict[str, Any]) -> None:
        names = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
        config["hooks"] = {name: [{"path": f"/{name}"}] for name in names}

    steps = explained(ctrun, bundle(add_hooks))
    order = [
        f"{step['process']} {step['step']}" for step in steps if "hook" in step["step"] or step["step"] == "execve"
    ]
    assert order == [
        "setup worker prestart and createRuntime hooks",
        "engine run prestart hook",
        "engine run createRuntime hook",
        "setup worker createContainer hooks",
        "container process run startContainer hook",
        "container process execve",
        "engine run poststart hook",
    ]


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_filter_stands_where_it_is_loaded(ctrun: Runtime, bundle: Bundles, no_new_privileges: bool) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"]["noNewPrivileges"] = no_new_privileges
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}

    names = [step["step"] for step in explained(ctrun, bundle(change))]
    assert (names.index("load seccomp filter") > names.index("set user id")) is no_new_privileges


def test_limits_and_capabilities_are_told_by_name(ctrun: Runtime, bundle: Bundles) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}]
        config["process"]["capabilities"]["effective"] = ["CAP_KILL", "CAP_CHOWN"]

    details = {step["step"]: step["detail"] for step in explained(ctrun, bundle(change))}
    assert details["set limits"] == "RLIMIT_CORE 1:2"
    assert details["set effective capabilities"] == "CAP_CHOWN, CAP_KILL"


@pytest.mark.covers("explain --no-pivot")
def test_the_root_is_changed_as_the_flag_says(ctrun: Runtime, bundle: Bundles) -> None:
    path = bundle()
    details = {
        flags: [step["detail"] for step in explained(ctrun, path, *flags) if step["step"] == "change root"]
        for flags in ((), ("--no-pivot",))
    }
    assert "pivot_root" in details[()][0]
    assert "pivot_root" not in details["--no-pivot",][0]


@pytest.mark.covers("explain --no-new-keyring")
def test_the_keyring_is_told_of_unless_it_is_kept(ctrun: Runtime, bundle: Bundles) -> None:
    path = bundle()
    told = {
        flags: any("keyring" in step["step"] for step in explained(ctrun, path, *flags))
        for flags in ((), ("--no-new-keyring",))
    }
    assert told == {(): True, ("--no-new-keyring",): False}


def test_nothing_of_it_is_done(ctrun: Runtime, bundle: Bundles, directory: Path) -> None:
    path = bundle()
    root = directory / "state"
    ctrun("--root", root, "explain", path).ok()
    assert ctrun("--root", root, "list", "-q").ok().out == ""
    assert sorted(entry.name for entry in path.iterdir()) == ["config.json", "rootfs"]


def test_a_configuration_that_is_not_valid_is_an_error(ctrun: Runtime, bundle: Bundles) -> None:
    def spoil(config: dict[str, Any]) -> None:
        config["process"]["cwd"] = "relative"

    result = ctrun("explain", bundle(spoil))
    assert result.code == 1
    assert "cwd" in result.err
