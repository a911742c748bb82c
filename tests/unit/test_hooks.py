"""Hooks as real programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ctr_common import hooks
from ctr_common.errors import HookError

STATE = {"ociVersion": "1.3.0", "id": "x", "status": "creating", "pid": 1, "bundle": "/b", "annotations": {"k": "v"}}


def script(directory: Path, text: str) -> str:
    path = directory / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_hook_gets_the_state_with_annotations_on_stdin(tmp_path: Path) -> None:
    hooks.run([{"path": script(tmp_path, f"cat > {tmp_path}/state")}], STATE, "prestart")
    assert json.loads((tmp_path / "state").read_text()) == STATE


def test_a_hook_gets_its_own_arguments_and_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "secret")
    path = script(tmp_path, f'echo "$0 $1 $A ${{OURS-none}}" > {tmp_path}/seen; ls -l /proc/self/fd > {tmp_path}/fds')
    leak = os.open(__file__, os.O_RDONLY)
    hooks.run([{"path": path, "args": ["argv0", "one"], "env": ["A=b", "PATH=/bin:/usr/bin"]}], STATE, "createRuntime")
    os.close(leak)
    assert (tmp_path / "seen").read_text().split() == [path, "one", "b", "none"]
    assert __file__ not in (tmp_path / "fds").read_text()


def test_hooks_run_in_order_and_the_first_failure_ends_them(tmp_path: Path) -> None:
    path = script(tmp_path, f"echo $1 >> {tmp_path}/order; echo told >&2; [ $1 != two ]")
    with pytest.raises(HookError) as caught:
        hooks.run([{"path": path, "args": ["h", word]} for word in ("one", "two", "three")], STATE, "createRuntime")
    assert (tmp_path / "order").read_text().split() == ["one", "two"]
    assert caught.value.json_path == ".hooks.createRuntime[1]"
    assert "exit status 1, stdout and stderr: 'told'" in str(caught.value)


def test_poststop_hooks_all_run_and_their_failures_are_given_back(tmp_path: Path) -> None:
    path = script(tmp_path, f"echo $1 >> {tmp_path}/order; [ $1 != one ]")
    failures = hooks.run_all_ignoring_failures(
        [{"path": path, "args": ["h", word]} for word in ("one", "two")], STATE, "poststop"
    )
    assert (tmp_path / "order").read_text().split() == ["one", "two"]
    assert [failure.json_path for failure in failures] == [".hooks.poststop[0]"]


def test_a_hook_beyond_its_timeout_is_killed(tmp_path: Path) -> None:
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 1000")
    with pytest.raises(HookError, match="timed out after 1 seconds"):
        hooks.run([{"path": path, "timeout": 1, "env": ["PATH=/bin:/usr/bin"]}], STATE, "prestart")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_a_missing_hook_is_named(tmp_path: Path) -> None:
    with pytest.raises(HookError, match=f"{tmp_path}/none: no such file or directory"):
        hooks.run([{"path": f"{tmp_path}/none"}], STATE, "prestart")


def test_a_hook_killed_by_a_signal_says_so(tmp_path: Path) -> None:
    with pytest.raises(HookError, match="signal 9"):
        hooks.run([{"path": script(tmp_path, "kill -9 $$")}], STATE, "prestart")


def test_a_daemon_that_a_hook_leaves_behind_does_not_hold_it_up(tmp_path: Path) -> None:
    path = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pid")
    try:
        hooks.run([{"path": path, "env": ["PATH=/bin:/usr/bin"]}], STATE, "prestart")
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)
