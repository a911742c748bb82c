"""Containers of an ordinary user in the cgroups that systemd delegates to the user's session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import copy_rootfs, default_config
from tests.support.command import Result
from tests.support.runtime import runtime_under_test
from tests.vm.users import SessionUser

MIB = 1 << 20


@pytest.fixture(scope="module")
def user_bundle(session_user: SessionUser, busybox_rootfs: Path) -> Iterator[Path]:
    """A bundle that belongs to the user; each test writes its own config.json."""
    bundle = session_user.home / "bundle"
    bundle.mkdir()
    copy_rootfs(busybox_rootfs, bundle / "rootfs")
    session_user.own(bundle)
    yield bundle
    shutil.rmtree(bundle)


def configure(bundle: Path, user: SessionUser, args: list[str], **resources: Any) -> None:
    config = default_config()
    config["process"]["args"] = args
    linux = config["linux"]
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user", "cgroup")]
    linux["uidMappings"] = [{"containerID": 0, "hostID": user.uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": user.gid, "size": 1}]
    linux["resources"] = resources
    for mount in config["mounts"]:
        mount["options"] = [option for option in mount.get("options", []) if not option.startswith("gid=")]
        if mount["destination"] == "/sys":
            mount |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
    (bundle / "config.json").write_text(json.dumps(config))


def cgroups_of(user: SessionUser, name: str) -> list[Path]:
    top = Path("/sys/fs/cgroup/user.slice", f"user-{user.uid}.slice")
    return [path for path in top.rglob("*") if path.is_dir() and name in path.name]


def ctrun_as(user: SessionUser, *args: str | Path) -> Result:
    __tracebackhide__ = True
    return user.run_in_scope(runtime_under_test(), *args, timeout=60)


@pytest.mark.vm_short
def test_limit_of_processes_holds(session_user: SessionUser, user_bundle: Path):
    script = "cat /sys/fs/cgroup/pids.max; for i in 1 2 3 4 5; do sleep 1000 & done; echo not here"
    configure(user_bundle, session_user, ["sh", "-c", script], pids={"limit": 4})
    result = ctrun_as(session_user, "run", "-b", user_bundle, "ctrtest-pids")
    assert result.out == "4\n", repr(result)
    assert "can't fork" in result.err
    assert cgroups_of(session_user, "ctrtest-pids") == []


def test_memory_limit_kills(session_user: SessionUser, user_bundle: Path):
    limit = {"limit": 16 * MIB, "swap": 16 * MIB}
    configure(user_bundle, session_user, ["sh", "-c", "tail /dev/zero; echo $?"], memory=limit)
    result = ctrun_as(session_user, "run", "-b", user_bundle, "ctrtest-memory")
    assert result.text.splitlines()[-1] == "137"


def test_container_goes_through_its_states(session_user: SessionUser, user_bundle: Path):
    # all in one service: what is left when it ends goes with it
    configure(user_bundle, session_user, ["sleep", "1000"])
    ctrun, name = runtime_under_test(), "ctrtest-states"
    script = f"""
        set -e
        {ctrun} create -b {user_bundle} {name} </dev/null >/dev/null 2>&1
        {ctrun} start {name}
        {ctrun} exec {name} cat /proc/self/cgroup
        {ctrun} pause {name}
        {ctrun} state {name} | grep status
        {ctrun} resume {name}
        {ctrun} delete --force {name}
        {ctrun} list -q
    """
    result = session_user.run_in_scope("sh", "-c", script, timeout=120)
    assert [line.strip(' ,"') for line in result.lines] == ["0::/", 'status": "paused'], repr(result)
    assert cgroups_of(session_user, name) == []


def test_limit_without_delegation_is_refused_in_one_line(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["true"], pids={"limit": 4})
    # outside of the user's own cgroups nothing may be made
    result = session_user.run(runtime_under_test(), "run", "-b", user_bundle, "ctrtest-refused")
    assert result.code == 1
    assert "rootless needs no limits + no cgrouppath when no permission is granted for cgroups" in result.err
    assert len(result.err.splitlines()) == 1


def test_container_without_limits_needs_no_delegation(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["id", "-u"])
    assert session_user.run(runtime_under_test(), "run", "-b", user_bundle, "ctrtest-none").text == "0"
