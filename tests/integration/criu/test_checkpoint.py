"""Checkpoint and restore of containers that need no flag of CRIU's."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.criu.conftest import Restorable
from tests.support.bundles import Config
from tests.support.needs import cgroup_mounts
from tests.support.runtime import ROOT, Runtime
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_criu, pytest.mark.usefixtures("no_leaks")]
covers = pytest.mark.covers


@covers("verb checkpoint", "verb restore", "restore --detach", "restore --bundle", "global --criu")
@covers("checkpoint --image-path", "checkpoint --work-path", "restore --image-path", "restore --work-path")
def test_a_counter_goes_on_where_it_was(box: Restorable) -> None:
    box.count().counts()
    box.checkpoint().ok()
    assert box.status == ""
    assert (box.images / "inventory.img").exists()
    assert (box.work / "dump.log").exists()
    box.restore().ok()
    assert (box.work / "restore.log").exists()
    assert box.status == "running"
    assert box.counts() > 1
    box.end()


@covers("checkpoint --leave-running")
def test_a_container_may_be_left_running(box: Restorable) -> None:
    box.count().counts()
    pid = box.pid
    box.checkpoint("--leave-running").ok()
    assert (box.status, box.pid) == ("running", pid)
    before = box.counts()
    box.end()
    box.restore().ok()
    assert 1 < box.counts() <= before + 1000
    box.end()


def test_a_container_can_be_checkpointed_again_and_again(box: Restorable) -> None:
    box.count()
    last = 0
    for number in range(3):
        assert box.counts() >= last
        last = box.counted()
        box.images = box.directory / f"images{number}"
        box.checkpoint().ok()
        box.restore().ok()
    assert box.counts() >= last
    box.end()


def test_the_same_images_restore_twice(box: Restorable) -> None:
    box.count().counts()
    box.checkpoint().ok()
    for _ in range(2):
        box.restore().ok()
        assert box.counts() > 1
        box.end()


def test_a_process_tree_with_pipes_survives(box: Restorable) -> None:
    box.run(
        "mkfifo /dev/shm/in; (while read line; do echo got $line; done </dev/shm/in | cat >/dev/shm/out) &"
        " exec 3<>/dev/shm/in; wait"
    )
    box.inside("sh", "-c", "echo one > /dev/shm/in")
    until("the first line", lambda: "got one" in box.inside("cat", "/dev/shm/out"))
    processes = len(json.loads(box.ctrun("ps", "-f", "json", box.container_id).text))
    box.checkpoint().ok()
    box.restore().ok()
    assert len(json.loads(box.ctrun("ps", "-f", "json", box.container_id).text)) == processes
    box.inside("sh", "-c", "echo two > /dev/shm/in")
    until("the second line", lambda: "got two" in box.inside("cat", "/dev/shm/out"))
    box.end()


@covers("restore --pid-file")
def test_the_restored_process_is_told_like_that_of_a_creation(box: Restorable) -> None:
    box.count()
    box.checkpoint().ok()
    box.restore("--pid-file", box.directory / "pid").ok()
    assert (box.directory / "pid").read_text() == str(box.pid)
    state = json.loads((box.ctrun.state_root / box.container_id / "state.json").read_text())
    assert state["init_process_pid"] == box.pid
    assert state["namespace_paths"]["NEWNET"] == f"/proc/{box.pid}/ns/net"
    assert not (box.ctrun.state_root / box.container_id / "criu-root").exists()
    box.end()


@pytest.mark.needs_limits
def test_the_restored_container_is_in_its_cgroups_with_the_limits_of_the_bundle(box: Restorable) -> None:
    box.count()
    box.checkpoint().ok()
    config = json.loads((box.bundle / "config.json").read_text())
    config["linux"]["resources"]["pids"] = {"limit": 77}
    (box.bundle / "config.json").write_text(json.dumps(config))
    box.restore().ok()
    state = json.loads((box.ctrun.state_root / box.container_id / "state.json").read_text())
    paths = state["cgroup_paths"]
    directory = Path(paths.get("pids") or paths[""])
    assert str(box.pid) in (directory / "cgroup.procs").read_text().split()
    assert (directory / "pids.max").read_text() == "77\n"
    box.ctrun("pause", box.container_id).ok()
    assert box.status == "paused"
    box.ctrun("resume", box.container_id).ok()
    assert box.counts() > 0
    box.end()


@pytest.mark.needs_cgroup_v1
def test_a_cgroup_of_somebody_else_does_not_come_back_with_the_container(box: Restorable) -> None:
    # It has a cgroup of its own in v2 alone, and is in the top cgroups of v1, below which are everybody's.
    view = box.directory / "ctrun"
    script = 'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    runtime = shlex.quote(str(ROOT / "bin/ctrun-direct"))
    view.write_text(f"#!/bin/sh\nexec unshare -m --propagation private sh -c '{script}' sh {runtime} \"$@\"\n")
    view.chmod(0o755)
    box.ctrun = Runtime(view)
    box.count()
    lines = (line.split(":") for line in Path(f"/proc/{box.pid}/cgroup").read_text().splitlines())
    controllers = next(names for _, names, path in lines if path == "/" and names)
    hierarchy = next(mount for mount in cgroup_mounts("cgroup") if controllers.endswith(mount.name))
    other = hierarchy / f"{box.container_id}-other"
    other.mkdir()
    box.checkpoint().ok()
    other.rmdir()
    box.restore().ok()
    assert not other.exists()
    assert box.counts() > 1
    box.end()


def test_a_paused_container_can_be_checkpointed(box: Restorable) -> None:
    box.count().counts()
    box.ctrun("pause", box.container_id).ok()
    box.checkpoint("--leave-running").ok()
    assert box.status == "paused"
    box.ctrun("resume", box.container_id).ok()
    box.counts()
    box.end()


@pytest.mark.needs_user_namespaces
def test_a_container_in_a_user_namespace_is_restored_there(box: Restorable) -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    def in_user_namespace(config: Config) -> None:
        config["linux"]["namespaces"] += [{"type": "user"}, {"type": "cgroup"}]
        config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = ids

    box.directory.chmod(0o755)
    box.count(in_user_namespace)
    box.counts()
    box.checkpoint().ok()
    # Whoever else is on the host must not see the memory of a container.
    assert (stat.S_IMODE(box.images.stat().st_mode), box.images.stat().st_gid) == (0o710, 100000)
    box.restore().ok()
    assert box.inside("cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]
    assert box.counts() > 1
    box.end()


def test_a_created_container_can_not_be_checkpointed(box: Restorable) -> None:
    box.bundle = box.bundles(args=["true"])
    box.ctrun("create", "-b", box.bundle, box.container_id).ok()
    result = box.checkpoint()
    assert result.code == 1
    assert "Container cannot be checkpointed in created state" in result.err
    assert not box.images.exists()
    box.end()


@covers("checkpoint --format", "restore --format")
def test_the_figures_are_there_for_scripts(box: Restorable) -> None:
    box.count()
    result = json.loads(box.checkpoint("--format", "json").text)
    assert result["stats"]["pages_written"] > 0
    assert result["stats"]["frozen_time"] > 0
    assert result["bytes"] == sum(entry.stat().st_size for entry in os.scandir(box.images))
    assert result["criu_version"] > 30000


def test_another_container_of_the_same_bundle_can_be_made_of_the_images(
    box: Restorable, new_container_id: Callable[[], str]
) -> None:
    box.count().counts()
    box.checkpoint().ok()
    box.container_id = new_container_id()
    box.restore().ok()
    assert box.counts() > 1
    box.end()
