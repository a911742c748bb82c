"""Each kind of hook of config.json: its path, arguments, environment, standard input and time limit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Config
from tests.support.inside import Inside, changed
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

covers = pytest.mark.covers

KINDS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
# what has to be there: status, and whose mounts
EXPECTED = {
    "prestart": ("creating", "host"),
    "createRuntime": ("creating", "host"),
    "createContainer": ("creating", "container"),
    "startContainer": ("created", "container"),
    "poststart": ("running", "host"),
    "poststop": ("stopped", "host"),
}
RECORD = """\
exec >"$3"
for word; do printf '%s|' "$word"; done; echo
tr '\\0' '|' </proc/self/environ; echo
readlink /proc/self/ns/mnt
tr -d '\\n'; echo
"""


def with_hook(kind: str, **hook: Any) -> Any:
    def change(config: Config) -> None:
        config["hooks"] = {kind: [{"path": "/bin/sh", **hook}]}
        config["annotations"] = {"org.example": "noted"}
        config["root"]["readonly"] = False
        config["process"]["args"] = ["sleep", "1000"]

    return change


@covers(*(f".hooks.{{kind}}[].{key}" for key in ("path", "args", "env")))
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_gets_what_the_configuration_says_and_the_state(inside: Inside, directory: Path, kind: str):
    record = Path("/tmp/record") if kind == "startContainer" else directory / "record"
    words = ["sh", "-c", RECORD, "zero", "one", "two words", str(record)]
    environment = ["PATH=/bin:/usr/bin", "FIRST=1", "SECOND=zwei drei"]
    change = with_hook(kind, args=words, env=environment)
    with inside.running(change=change) as container:
        rootfs = container.bundle / "rootfs"
        container_mounts = container.namespace("mnt")
        name, pid = container.name, container.pid
    file = rootfs / "tmp/record" if kind == "startContainer" else record
    arguments, seen_environment, mounts, state_text = file.read_text().splitlines()
    assert arguments == f"one|two words|{record}|"
    assert sorted(seen_environment.rstrip("|").split("|")) == sorted(environment)
    status, whose = EXPECTED[kind]
    assert mounts == {"host": os.readlink("/proc/self/ns/mnt"), "container": container_mounts}[whose]
    state = json.loads(state_text)
    assert (state["id"], state["status"], state["annotations"]) == (name, status, {"org.example": "noted"})
    if whose == "host" and status != "stopped":
        assert state["pid"] == pid


@covers(".hooks.{kind}[].args")
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_argument_of_a_hook_is_its_name(inside: Inside, directory: Path, kind: str):
    record = Path("/tmp/record") if kind == "startContainer" else directory / "record"
    script = f"tr '\\0' '\\n' </proc/self/cmdline >{record}; true"
    with inside.running(change=with_hook(kind, args=["ash", "-c", script], env=["PATH=/bin:/usr/bin"])) as container:
        rootfs = container.bundle / "rootfs"
    file = rootfs / "tmp/record" if kind == "startContainer" else record
    assert file.read_text().splitlines()[:2] == ["ash", "-c"]


@covers(".hooks.{kind}[].timeout")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_takes_too_long_is_ended(inside: Inside, kind: str):
    hook = with_hook(kind, args=["sh", "-c", "exec sleep 1000"], env=["PATH=/bin:/usr/bin"], timeout=1)
    path = inside.bundle(changed(hook))
    name = inside.new_container_id()
    created = inside.ctrun("create", "-b", path, name)
    if kind in ("prestart", "createRuntime", "createContainer"):
        assert (created.code, "timed out" in created.err or "timeout" in created.err) == (1, True), repr(created)
        return
    created.ok()
    started = inside.ctrun("start", name)
    if kind == "poststop":
        started.ok()
        deleted = inside.ctrun("delete", "--force", name)
        assert "poststop" in deleted.err
    else:
        assert started.code == 1, repr(started)
        assert kind in started.err
        until("stopped", lambda: inside.ctrun.status(name) == "stopped")
        inside.ctrun("delete", name).ok()
    assert inside.ctrun.status(name) == ""


@covers(".hooks.{kind}[].path")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_needs_an_absolute_path(inside: Inside, kind: str):
    assert f".hooks.{kind}[0].path" in inside.refused(with_hook(kind, path="bin/sh"))


@covers(*(f".hooks.{kind}[].path" for kind in KINDS))
def test_hooks_of_one_kind_run_in_their_order_and_each_kind_in_its_turn(inside: Inside, directory: Path):
    record = directory / "record"

    def change(config: Config) -> None:
        with_hook("prestart")(config)
        outside = [kind for kind in KINDS if kind != "startContainer"]
        config["hooks"] = {
            kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} {number} >>{record}"]} for number in (1, 2)]
            for kind in reversed(outside)
        }

    with inside.running(change=change):
        pass
    order = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    assert record.read_text().splitlines() == [f"{kind} {number}" for kind in order for number in (1, 2)]
