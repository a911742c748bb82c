"""`ctrun --systemd-cgroup` of an ordinary user: scopes of the user's own service manager."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import make_rootfs
from tests.support.command import Result
from tests.support.runtime import runtime_under_test
from tests.vm.test_v2_rootless import configure
from tests.vm.users import SessionUser

MIB = 1 << 20
NAME = "ctrtest-scope"
UNIT = f"runc-{NAME}.scope"


@pytest.fixture
def user_bundle(session_user: SessionUser) -> Iterator[Path]:
    """A bundle that belongs to the user."""
    bundle = session_user.home / "scope"
    bundle.mkdir()
    make_rootfs(bundle / "rootfs")
    session_user.own(bundle)
    yield bundle
    ctrun(session_user, "delete", "--force", NAME)
    shutil.rmtree(bundle)


def ctrun(user: SessionUser, *args: str | Path) -> Result:
    """A verb, run from outside of the user's own cgroups: where the user may move no process by hand."""
    __tracebackhide__ = True
    return user.run(runtime_under_test(), "--systemd-cgroup", *args, timeout=60)


def cgroup(user: SessionUser) -> Path:
    slice_ = f"/sys/fs/cgroup/user.slice/user-{user.uid}.slice"
    return Path(slice_, f"user@{user.uid}.service/user.slice", UNIT)


@pytest.mark.vm_short
def test_scope_with_its_limits_is_below_the_user_s_manager(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["sleep", "1000"], pids={"limit": 20}, memory={"limit": 64 * MIB})
    ctrun(session_user, "run", "-d", "-b", user_bundle, NAME).ok()
    made = cgroup(session_user)
    assert [(made / name).read_text().strip() for name in ("pids.max", "memory.max")] == ["20", str(64 * MIB)]
    assert len((made / "cgroup.procs").read_text().split()) == 1
    ctrun(session_user, "delete", "--force", NAME).ok()
    assert not made.exists()
    assert session_user.run("systemctl", "--user", "show", "-P", "LoadState", UNIT).text == "not-found"


def test_exec_is_moved_into_the_scope_by_the_service_manager(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["sleep", "1000"])
    ctrun(session_user, "run", "-d", "-b", user_bundle, NAME).ok()
    # in the container's cgroup namespace, so that anything else would begin with /..
    assert ctrun(session_user, "exec", NAME, "cat", "/proc/self/cgroup").text == "0::/"


def test_update_reaches_the_user_s_manager(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["sleep", "1000"], pids={"limit": 20})
    ctrun(session_user, "run", "-d", "-b", user_bundle, NAME).ok()
    ctrun(session_user, "update", "--pids-limit", "30", NAME).ok()
    assert session_user.run("systemctl", "--user", "show", "-P", "TasksMax", UNIT).text == "30"
    assert (cgroup(session_user) / "pids.max").read_text().strip() == "30"


def test_root_of_a_user_namespace_asks_the_manager_of_the_user_behind_it(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["sleep", "1000"], pids={"limit": 20})
    config = json.loads((user_bundle / "config.json").read_text())
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key][0]["hostID"] = 0
    (user_bundle / "config.json").write_text(json.dumps(config))
    flags = ["--root", session_user.home / "states", "--systemd-cgroup"]
    inside = ["unshare", "--user", "--map-root-user", "--map-auto", runtime_under_test(), *flags]
    session_user.run(*inside, "run", "-d", "-b", user_bundle, NAME, timeout=60).ok()
    assert (cgroup(session_user) / "pids.max").read_text().strip() == "20"
    session_user.run(*inside, "delete", "--force", NAME, timeout=60).ok()
    assert not cgroup(session_user).exists()


def test_user_without_a_bus_is_told_so(session_user: SessionUser, user_bundle: Path):
    configure(user_bundle, session_user, ["true"])
    command = [runtime_under_test(), "--systemd-cgroup", "run", "-b", user_bundle, NAME]
    result = session_user.run("env", "DBUS_SESSION_BUS_ADDRESS=unix:path=/none", *command)
    assert result.code == 1
    assert "failed to connect to the user service manager: /none: No such file or directory" in result.err
    assert len(result.err.splitlines()) == 1
