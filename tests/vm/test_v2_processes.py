"""Processes in their cgroups: how they get in, stand still, die, and what is left."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.command import run
from tests.support.runtime import Runtime
from tests.support.waiting import until
from tests.vm.conftest import CGROUPS, Driver, edit

pytestmark = pytest.mark.usefixtures("no_leaks")

Limited = Callable[..., Path]


def traced(directory: Path, calls: str, ctrun: Runtime, *args: str | Path) -> str:
    """The system calls of a verb and all of its processes."""
    __tracebackhide__ = True
    log = directory / "strace"
    run(
        "strace", "-f", "--seccomp-bpf", "-o", log, "-e", f"trace={calls}", "-s", "200", ctrun.path, *args, timeout=60
    ).ok()
    return log.read_text()


@pytest.mark.vm_short
def test_container_is_born_in_its_cgroup(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path):
    log = traced(directory, "clone3,openat,openat2,write", ctrun, "run", "-b", bundle(args=["true"]), container_id)
    births = [line for line in log.splitlines() if "clone3(" in line and "CLONE_INTO_CGROUP" in line]
    assert len(births) == 1
    assert "CLONE_NEWPID" in births[0]
    assert "cgroup.procs" not in log


def test_exec_is_born_in_the_container_s_cgroup(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path):
    ctrun("run", "-d", "-b", bundle(args=["sleep", "1000"]), container_id, stdin="").ok()
    log = traced(directory, "clone3,openat,openat2", ctrun, "exec", container_id, "true")
    assert "CLONE_INTO_CGROUP" in log
    assert "cgroup.procs" not in log
    ctrun("delete", "--force", container_id).ok()


@pytest.mark.vm_short
def test_exec_is_in_the_container_s_cgroup(driver: Driver, running: Limited, container_id: str):
    cgroup = running()
    inside = driver("exec", container_id, "cat", "/proc/self/cgroup").text
    assert inside == f"0::/{cgroup.relative_to(CGROUPS)}"
    driver("delete", "--force", container_id).ok()


@pytest.mark.vm_short
def test_paused_container_stands_still_until_it_is_resumed(driver: Driver, running: Limited, container_id: str):
    cgroup = running(["sh", "-c", "while :; do sleep 0.1; done"])
    driver("pause", container_id).ok()
    assert driver.ctrun.status(container_id) == "paused"
    assert "frozen 1" in (cgroup / "cgroup.events").read_text()
    usage = [line for line in (cgroup / "cpu.stat").read_text().splitlines() if line.startswith("usage_usec")]
    ps = run("ps", "-o", "stat=", "-p", str(driver.ctrun.state(container_id)["pid"]))
    assert usage == [line for line in (cgroup / "cpu.stat").read_text().splitlines() if line.startswith("usage_usec")]
    assert ps.code == 0
    driver("resume", container_id).ok()
    assert "frozen 0" in (cgroup / "cgroup.events").read_text()
    driver("delete", "--force", container_id).ok()


def test_paused_container_is_killed_and_removed(driver: Driver, running: Limited, container_id: str):
    cgroup = running()
    driver("pause", container_id).ok()
    driver("delete", "--force", container_id).ok()
    assert not cgroup.exists()


@pytest.mark.vm_short
def test_delete_kills_everything_in_one_stroke(ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path):
    # without a pid namespace nothing dies along with the first process
    def share(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
        config["linux"]["cgroupsPath"] = f"/{container_id}"

    made = bundle(share, args=["sh", "-c", "while :; do (sleep 1000 &); sleep 0.2; done"])
    ctrun("run", "-d", "-b", made, container_id, stdin="").ok()
    procs = CGROUPS / container_id / "cgroup.procs"
    until("it has forked", lambda: len(procs.read_text().split()) > 5)
    log = traced(directory, "openat,openat2,kill,pidfd_send_signal", ctrun, "delete", "--force", container_id)
    assert re.search(r'"cgroup\.kill"|/cgroup\.kill"', log)
    assert not procs.exists()


def test_signal_to_all_reaches_processes_outside_of_the_pid_namespace(
    ctrun: Runtime, bundle: Bundles, container_id: str
):
    def share(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]
        config["linux"]["cgroupsPath"] = f"/{container_id}"

    ctrun(
        "run", "-d", "-b", bundle(share, args=["sh", "-c", "sleep 1000 & sleep 1000 & wait"]), container_id, stdin=""
    ).ok()
    procs = CGROUPS / container_id / "cgroup.procs"
    until("all are there", lambda: len(procs.read_text().split()) == 3)
    ctrun("kill", "--all", container_id, str(int(signal.SIGKILL))).ok()
    until("all are gone", lambda: not procs.read_text().split())
    ctrun("delete", container_id).ok()


def test_cgroups_that_the_container_made_go_with_it(driver: Driver, limited: Limited, container_id: str):
    script = "mkdir -p /sys/fs/cgroup/a/b && echo $$ >/sys/fs/cgroup/a/b/cgroup.procs && echo ready && exec sleep 1000"
    made = limited(["sh", "-c", script])

    def own(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "cgroup"})
        for mount in config["mounts"]:
            if mount["type"] == "cgroup":
                mount["options"] = ["nosuid", "noexec", "nodev", "rw"]

    edit(made, own)
    driver("run", "-d", "-b", made, container_id, stdin="").ok()
    until("it moved", lambda: driver.cgroup(container_id).name == "b")
    top = driver.cgroup(container_id).parents[1]
    driver("delete", "--force", container_id).ok()
    assert not top.exists()


def test_exec_follows_a_container_that_manages_cgroups_itself(driver: Driver, limited: Limited, container_id: str):
    move = "mkdir a && echo $$ >a/cgroup.procs && echo +pids >cgroup.subtree_control"
    script = f"cd /sys/fs/cgroup && {move} && exec sleep 1000"
    made = limited(["sh", "-c", script])

    def own(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "cgroup"})
        for mount in config["mounts"]:
            if mount["type"] == "cgroup":
                mount["options"] = ["nosuid", "noexec", "nodev", "rw"]

    edit(made, own)
    driver("run", "-d", "-b", made, container_id, stdin="").ok()
    until("it moved", lambda: "pids" in (driver.cgroup(container_id).parent / "cgroup.subtree_control").read_text())
    assert driver("exec", container_id, "cat", "/proc/self/cgroup").text == "0::/a"
    driver("delete", "--force", container_id).ok()


@pytest.mark.vm_short
def test_own_cgroup_is_the_top_of_the_container_s_view(driver: Driver, limited: Limited, container_id: str):
    made = limited(["sh", "-c", "cat /proc/self/cgroup /sys/fs/cgroup/pids.max"], pids={"limit": 11})
    edit(made, lambda config: config["linux"]["namespaces"].append({"type": "cgroup"}))
    assert driver("run", "-b", made, container_id).lines == ["0::/", "11"]


def test_root_of_a_user_namespace_gets_its_cgroup_delegated(driver: Driver, limited: Limited, container_id: str):
    made = limited(["sh", "-c", "mkdir /sys/fs/cgroup/mine && stat -c %u /sys/fs/cgroup/cgroup.procs"])

    def own(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "user"}]
        config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
        config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
        for mount in config["mounts"]:
            if mount["type"] == "cgroup":
                mount["options"] = ["nosuid", "noexec", "nodev", "rw"]

    edit(made, own)
    assert driver("run", "-b", made, container_id).text == "0"
