"""The cgroup v1 manager on the real hierarchies."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import hierarchies, manager
from tests.support.cgroups import Sandbox, as_nobody, await_end, config, gone, sandbox
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cgroup_v1]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with sandbox() as made:
        yield made
    assert not [path for path in made.paths() if os.path.exists(path)]


def read(cgroups, controller: str, name: str) -> str:
    return Path(cgroups.paths[controller], name).read_text().strip()


def test_process_is_in_the_container_s_cgroup_of_every_hierarchy(box):
    cgroups = box.created()
    child = box.process()
    cgroups.apply(child.pid)
    assert set(manager.parse_proc_cgroup(child.pid).values()) == {f"{box.top}/c"}
    assert cgroups.pids() == [child.pid]
    assert set(cgroups.paths) == set(hierarchies.hierarchies().mounts)


def test_hostile_path_stays_below_the_hierarchies(box):
    cgroups = manager.for_container(config(f"/../..{box.top}/../../..{box.top}/x"), "x", rootless_cgroups=False)
    cgroups.create()
    for controller, path in cgroups.paths.items():
        assert path == f"{hierarchies.hierarchies().mounts[controller]}{box.top}/x"
        assert os.path.isdir(path)


def test_relative_path_is_below_the_caller_s_own_cgroup():
    own = manager.parse_proc_cgroup()
    name = f"ctrtest-{os.getpid()}-relative"
    cgroups = manager.for_container({"linux": {}}, name, rootless_cgroups=False)
    try:
        cgroups.create()
        for controller, path in cgroups.paths.items():
            if controller:
                above = own[controller].rstrip("/")
                assert path == f"{hierarchies.hierarchies().mounts[controller]}{above}/{name}"
    finally:
        cgroups.destroy()


def test_cgroup_that_is_there_and_empty_is_used(box):
    box.created()
    box.manager().create()


def test_cgroup_with_processes_is_refused_and_left_alone(box):
    first = box.created()
    child = box.process()
    first.apply(child.pid)
    second = box.manager()
    with pytest.raises(CgroupError, match=r"container's cgroup is not empty: 1 process\(es\) found"):
        second.create()
    second.destroy()
    assert all(os.path.isdir(path) for path in first.paths.values())


def test_frozen_cgroup_is_refused(box):
    first = box.created()
    first.freeze()
    with pytest.raises(CgroupError, match="container's cgroup unexpectedly frozen"):
        box.manager().create()
    first.thaw()


def test_new_cpusets_have_the_cpus_of_the_one_above(box):
    cgroups = box.created("a/b/c")
    assert read(cgroups, "cpuset", "cpuset.cpus") == read(cgroups, "cpuset", "../../../../cpuset.cpus")
    assert read(cgroups, "cpuset", "cpuset.mems") == "0"


def test_chosen_cpus_are_there_before_the_first_process(box):
    cgroups = box.manager(cpu={"cpus": "0"})
    cgroups.create()
    assert read(cgroups, "cpuset", "cpuset.cpus") == "0"
    assert read(cgroups, "cpuset", "../cpuset.cpus") != ""


def test_cpus_that_the_host_has_not_are_an_error_with_their_place(box):
    with pytest.raises(CgroupError) as caught:
        box.manager(cpu={"cpus": "4000"}).create()
    assert caught.value.json_path == ".linux.resources.cpu.cpus"
    assert caught.value.path.endswith("/cpuset.cpus")


def test_limits_are_in_force(box):
    cgroups = box.created(
        memory={"limit": 8388608, "swap": 16777216, "reservation": 4194304, "swappiness": 10},
        cpu={"shares": 512, "quota": 20000, "period": 50000},
        pids={"limit": 7},
    )
    found = {
        name: read(cgroups, controller, name)
        for controller, name in (
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.memsw.limit_in_bytes"),
            ("memory", "memory.soft_limit_in_bytes"),
            ("memory", "memory.swappiness"),
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.cfs_quota_us"),
            ("cpu", "cpu.cfs_period_us"),
            ("pids", "pids.max"),
        )
    }
    assert list(found.values()) == ["8388608", "16777216", "4194304", "10", "512", "20000", "50000", "7"]


@pytest.mark.parametrize(
    "limits", [(4194304, 8388608), (33554432, 67108864), (-1, -1), (8388608, -1), (8388608, 8388608)]
)
def test_memory_limits_can_be_raised_and_lowered(box, limits):
    limit, swap = limits
    cgroups = box.created(memory={"limit": 16777216, "swap": 33554432})
    cgroups.set({"memory": {"limit": limit, "swap": swap}})
    unlimited = 9223372036854771712
    assert int(read(cgroups, "memory", "memory.limit_in_bytes")) == (unlimited if limit < 0 else limit)
    assert int(read(cgroups, "memory", "memory.memsw.limit_in_bytes")) == (unlimited if swap < 0 else swap)


def test_shorter_period_with_a_new_quota_below_a_limited_parent(box):
    above = box.created("p", cpu={"quota": 50000, "period": 100000})
    cgroups = box.created("p/c", cpu={"quota": 50000, "period": 100000})
    cgroups.set({"cpu": {"quota": 5000, "period": 10000}})
    assert read(cgroups, "cpu", "cpu.cfs_quota_us") == "5000"
    assert read(above, "cpu", "cpu.cfs_quota_us") == "50000"


@pytest.mark.parametrize(
    ("resources", "place", "text"),
    [
        ({"cpu": {"quota": 20}}, "cpu.quota", 'failed to write "20": write'),
        ({"cpu": {"shares": 1}}, "cpu.shares", "the minimum allowed cpu-shares is 2"),
        ({"memory": {"limit": 10**7, "swap": 5 * 10**6}}, "memory.swap", 'failed to write "5000000": write'),
        ({"unified": {"memory.max": "1"}}, "unified", "invalid configuration: cannot use unified on cgroup v1"),
        ({"rdma": {"x": {"hcaObjects": 1}}}, "", "cannot set rdma limit: container could not join or create cgroup"),
        (
            {"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]},
            "",
            "cannot set hugetlb limit: container could not join or create cgroup",
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 999, "minor": 0, "rate": 1}]}},
            "blockIO.throttleReadBpsDevice[0]",
            'failed to write "999:0 1": write',
        ),
    ],
)
def test_limit_that_can_not_be_set_is_an_error_that_says_which(box, resources, place, text):
    cgroups = box.manager()
    cgroups.create()
    with pytest.raises(CgroupError) as caught:
        cgroups.set(resources)
    assert caught.value.message == text
    assert caught.value.json_path == (f".linux.resources.{place}" if place else "")


def test_process_is_denied_devices_that_no_rule_allows(box):
    cgroups = box.created(devices=[{"allow": False}])
    probe = box.probe()
    cgroups.apply(probe.pid)
    assert [probe.open("rw", path) for path in ("/dev/null", "/dev/zero", "/dev/kmsg")] == [0, 0, errno.EPERM]


def test_changed_device_rules_hold_for_running_processes(box):
    kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
    cgroups = box.created(devices=[{"allow": False}])
    probe = box.probe()
    cgroups.apply(probe.pid)
    cgroups.set({"devices": [{"allow": False}, kmsg]})
    assert (probe.open("r", "/dev/kmsg"), probe.open("w", "/dev/kmsg")) == (0, errno.EPERM)
    cgroups.set({"devices": [{"allow": True}]})
    assert probe.open("w", "/dev/kmsg") == 0
    cgroups.set({})
    assert probe.open("r", "/dev/kmsg") == errno.EPERM
    cgroups.set({"devices": [{"allow": True}]}, skip_devices=True)
    assert probe.open("r", "/dev/kmsg") == errno.EPERM


def test_device_rules_are_runc_s_defaults(box):
    cgroups = box.created()
    assert sorted(read(cgroups, "devices", "devices.list").splitlines()) == [
        "b *:* m",
        "c *:* m",
        "c 10:200 rwm",
        "c 136:* rwm",
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
    ]


def test_frozen_processes_stand_still(box):
    cgroups = box.created()
    probe = box.probe()
    cgroups.apply(probe.pid)
    assert probe.open("r", "/dev/null") == 0
    cgroups.freeze()
    assert cgroups.frozen()
    probe.ask("r", "/dev/null")
    assert not probe.answers(0.05)
    cgroups.thaw()
    assert not cgroups.frozen()
    assert probe.answers(20)


def test_cgroup_below_a_frozen_one_is_not_itself_frozen(box):
    above, below = box.created("a"), box.created("a/b")
    above.freeze()
    assert (above.frozen(), below.frozen()) == (True, False)
    above.thaw()


def test_freezing_catches_up_with_processes_that_fork_all_the_time(box):
    cgroups = box.created(pids={"limit": 40})
    child = box.process("sh", "-c", "read go; while :; do (:) & (:) & (:) & wait; done")
    cgroups.apply(child.pid)
    box.go(child)
    for _ in range(5):
        cgroups.freeze()
        assert cgroups.frozen()
        cgroups.thaw()


def test_signal_reaches_all_processes_of_all_cgroups_below(box):
    cgroups, below = box.created("c"), box.created("c/d/e")
    children = [box.process() for _ in range(3)]
    cgroups.apply(children[0].pid)
    below.apply(children[1].pid)
    below.apply(children[2].pid)
    assert sorted(cgroups.pids()) == sorted(child.pid for child in children)
    cgroups.kill(signal.SIGTERM)
    assert [child.wait(20) for child in children] == [-signal.SIGTERM] * 3


def test_paused_container_stays_paused_when_signalled_but_not_when_killed(box):
    cgroups = box.created()
    child = box.process()
    cgroups.apply(child.pid)
    cgroups.freeze()
    cgroups.kill(signal.SIGTERM)
    assert cgroups.frozen()
    assert not gone(child.pid)
    cgroups.kill(signal.SIGKILL)
    await_end([child])


def test_kill_leaves_none_of_those_that_fork_all_the_time(box):
    cgroups = box.created(pids={"limit": 40})
    child = box.process("sh", "-c", "read go; while :; do sleep 1000 & (sleep 1000 &) ; done 2>/dev/null")
    cgroups.apply(child.pid)
    box.go(child)
    until("it has forked", lambda: len(cgroups.pids()) > 10)
    cgroups.kill(signal.SIGKILL)
    until("all are gone", lambda: not cgroups.pids())


def test_signalling_from_inside_neither_freezes_nor_signals_oneself(box):
    cgroups = box.created()
    child = box.process()
    caller = os.fork()
    if caller == 0:
        try:
            cgroups.apply(os.getpid())
            cgroups.apply(child.pid)
            cgroups.kill(signal.SIGKILL)
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(caller, 0)[1]) == 7
    await_end([child])


def test_removed_cgroups_take_those_below_along_and_may_be_removed_again(box):
    cgroups = box.created()
    os.makedirs(f"{cgroups.paths['pids']}/d/e")
    cgroups.destroy()
    assert not cgroups.exists()
    assert not any(os.path.exists(path) for path in cgroups.paths.values())
    cgroups.destroy()
    assert (cgroups.pids(), cgroups.frozen(), cgroups.oom_kill_count()) == ([], False, 0)
    cgroups.thaw()
    cgroups.kill(signal.SIGTERM)


def test_cgroup_in_use_is_an_error_after_a_while(box, monkeypatch):
    monkeypatch.setattr("ctr_supervisor.cgroups.files.REMOVE_TRIES", 3)
    cgroups = box.created()
    child = box.process()
    cgroups.apply(child.pid)
    with pytest.raises(CgroupError) as caught:
        cgroups.destroy()
    assert caught.value.errno == errno.EBUSY
    assert caught.value.path in cgroups.paths.values()


def test_recorded_paths_are_all_that_is_needed(box):
    child = box.process()
    made = box.created()
    made.apply(child.pid)
    found = manager.from_paths(dict(made.paths), rootless_cgroups=False)
    assert found.exists()
    assert found.pids() == [child.pid]
    found.kill(signal.SIGKILL)
    found.destroy()
    assert not made.exists()


def test_path_outside_cgroup_file_systems_is_never_touched(tmp_path):
    (tmp_path / "cgroup.procs").write_text("1\n")
    (tmp_path / "sub").mkdir()
    found = manager.from_paths({"devices": str(tmp_path), "pids": str(tmp_path)}, rootless_cgroups=False)
    for act in (found.pids, found.destroy, lambda: found.apply(1), lambda: found.set({"pids": {"limit": 1}})):
        with pytest.raises(CgroupError, match="not a cgroup"):
            act()
    assert (tmp_path / "cgroup.procs").read_text() == "1\n"
    assert (tmp_path / "sub").is_dir()


def test_joining_process_may_go_into_a_sub_cgroup_of_one_controller(box):
    cgroups = box.created()
    os.mkdir(f"{cgroups.paths['cpu']}/sub")
    child = box.process()
    cgroups.add_pid(child.pid, "cpu:/sub")
    found = manager.parse_proc_cgroup(child.pid)
    assert (found["cpu"], found["memory"]) == (f"{box.top}/c/sub", f"{box.top}/c")
    cgroups.add_pid(child.pid)
    assert manager.parse_proc_cgroup(child.pid)["cpu"] == f"{box.top}/c"


def test_sub_cgroup_that_is_missing_is_an_error(box):
    cgroups = box.created()
    child = box.process()
    with pytest.raises(CgroupError) as caught:
        cgroups.add_pid(child.pid, "/sub")
    assert str(caught.value).startswith(f"error adding pid {child.pid} to cgroups: failed to write {child.pid}: write")
    assert caught.value.errno == errno.ENOENT


def test_kill_for_lack_of_memory_is_counted(box):
    cgroups = box.created(memory={"limit": 16 << 20, "swap": 16 << 20})
    child = box.process("python3", "-c", "input(); bytearray(64 << 20)")
    cgroups.apply(child.pid)
    child.communicate("\n", 60)
    assert child.returncode == -signal.SIGKILL
    assert cgroups.oom_kill_count() == 1


def test_failed_creation_leaves_no_cgroups_above_either(box):
    cgroups = box.manager("a/b/c", memory={"limit": 10**7, "swap": 5 * 10**6})
    cgroups.create()
    with pytest.raises(CgroupError):
        cgroups.set({"memory": {"limit": 10**7, "swap": 5 * 10**6}})
    cgroups.destroy()
    assert not any(os.path.exists(path) for path in box.paths())


def test_path_that_no_cgroup_can_have_leaves_nothing(box):
    cgroups = box.manager("a/b\nc")
    with pytest.raises(CgroupError) as caught:
        cgroups.create()
    assert (caught.value.errno, caught.value.json_path) == (errno.EINVAL, ".linux.cgroupsPath")
    assert not any(os.path.exists(path) for path in box.paths())


def test_rootless_does_without_cgroups_that_may_not_be_made():
    def run() -> None:
        cgroups = manager.for_container({"linux": {}}, "ctrtest-none", rootless_cgroups=True)
        cgroups.create()
        assert cgroups.paths == {}
        cgroups.apply(os.getpid())
        cgroups.add_pid(os.getpid())
        cgroups.set({"devices": [{"allow": False}]})
        with pytest.raises(CgroupError, match="cannot set pids limit: container could not join or create cgroup"):
            cgroups.set({"pids": {"limit": 5}})
        with pytest.raises(CgroupError, match="the container has no freezer cgroup"):
            cgroups.freeze()
        assert (cgroups.exists(), cgroups.pids(), cgroups.frozen()) == (False, [], False)
        cgroups.kill(signal.SIGKILL)
        cgroups.destroy()

    as_nobody(run)


def test_rootless_does_not_do_without_a_path_that_was_asked_for():
    def run() -> None:
        cgroups = manager.for_container(config("/ctrtest-none"), "x", rootless_cgroups=True)
        with pytest.raises(CgroupError) as caught:
            cgroups.create()
        assert caught.value.errno == errno.EACCES

    as_nobody(run)


LIMITS: list[dict[str, Any]] = [
    {},
    {"devices": [{"allow": False, "access": "rwm"}]},
    {"devices": [{"allow": True, "access": "rwm"}]},
    {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
            {"allow": True, "type": "b", "major": 7, "access": "rw"},
        ]
    },
    {"memory": {"limit": 1 << 26, "swap": 1 << 27, "reservation": 1 << 25, "swappiness": 7, "disableOOMKiller": True}},
    {"memory": {"limit": 1 << 26}},
    {"memory": {"limit": -1}},
    {"memory": {"limit": 1 << 26, "swap": -1, "kernel": 5, "useHierarchy": True, "checkBeforeUpdate": True}},
    {"cpu": {"shares": 300, "quota": 30000, "period": 70000, "cpus": "0", "mems": "0"}},
    {"cpu": {"quota": -1}},
    {"pids": {"limit": 33}},
    {"pids": {"limit": -1}},
    {"pids": {"limit": 0}},
    {
        "blockIO": {
            "weight": 300,
            "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1 << 20}],
            "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 100}],
        }
    },
]
# What changes by itself, or is different in each cgroup.
COUNTERS = (
    "usage",
    "stat",
    "numa",
    "procs",
    "tasks",
    "events",
    "current",
    "slabinfo",
    "pressure",
    "serv",
    "failcnt",
    "peak",
    "threads",
)


def settings(paths: dict[str, str]) -> dict[str, str]:
    """What can be read in a container's cgroups, less what is counted there."""
    found = {}
    for controller, path in paths.items():
        for name in os.listdir(path):
            file = Path(path, name)
            if file.is_file() and file.stat().st_mode & 0o400 and not any(word in name for word in COUNTERS):
                try:
                    text = file.read_text()
                except OSError:
                    continue
                found[f"{controller}/{name}"] = "".join(sorted(text.splitlines(keepends=True)))
    return found


@pytest.mark.needs_runc
@pytest.mark.parametrize("resources", LIMITS, ids=str)
def test_settings_are_runc_s(box, resources, bundle, runc, new_container_id):
    def mutate(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = f"{box.top}/runc"
        config["linux"]["resources"] = resources

    container = new_container_id()
    runc("create", "-b", str(bundle(mutate)), container).ok()
    try:
        theirs = box.manager("runc")
        ours = box.manager("ours", **resources)
        ours.create()
        ours.set(resources)
        ours.apply(box.process().pid)
        assert settings(ours.paths) == settings(theirs.paths)
    finally:
        runc("delete", "-f", container)
