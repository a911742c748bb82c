"""The cgroup v2 manager on a real cgroup v2 mount; each test runs in a mount namespace of its own."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ctr_common.errors import CgroupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import BPF_CGROUP_DEVICE
from ctr_supervisor.cgroups import devices_ebpf, files, hierarchies, manager
from tests.support.cgroups import NOBODY, Sandbox, as_nobody, await_end, config, fork_into, in_v2_view
from tests.support.waiting import until

pytestmark = pytest.mark.needs_root


def v2(test: Callable[[Sandbox], None]) -> Callable[[], None]:
    """A test that is given a sandbox in the v2 view."""

    def run() -> None:
        in_v2_view(test)

    run.__name__ = test.__name__
    return run


def path(cgroups) -> Path:
    return Path(cgroups.paths[""])


@v2
def test_process_is_moved_into_the_container_s_cgroup(box):
    assert hierarchies.hierarchies().mode == "unified"
    cgroups = box.created()
    child = box.process()
    cgroups.apply(child.pid)
    assert manager.parse_proc_cgroup(child.pid)[""] == f"{box.top}/c"
    assert cgroups.pids() == [child.pid]
    cgroups.apply(child.pid)


@v2
def test_process_can_be_born_in_the_container_s_cgroup(box):
    cgroups = box.created()
    fd = cgroups.clone_fd()
    child = fork_into(fd)
    os.close(fd)
    assert cgroups.pids() == [child]
    cgroups.apply(child)
    cgroups.kill(signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@v2
def test_relative_path_is_beside_the_caller_s_own_cgroup(box):
    cgroups = box.created("own")
    cgroups.apply(os.getpid())
    try:
        found = manager.for_container({"linux": {}}, "id1", rootless_cgroups=False)
        assert found.paths == {"": f"/sys/fs/cgroup{box.top}/id1"}
    finally:
        files.enter("/sys/fs/cgroup", os.getpid())


@v2
def test_cgroup_with_processes_is_refused_and_left_alone(box):
    first = box.created()
    child = box.process()
    first.apply(child.pid)
    second = box.manager()
    with pytest.raises(CgroupError, match=r"container's cgroup is not empty: 1 process\(es\) found"):
        second.create()
    second.destroy()
    assert first.exists()


@v2
def test_frozen_cgroup_is_refused(box):
    box.created().freeze()
    with pytest.raises(CgroupError, match="container's cgroup unexpectedly frozen"):
        box.manager().create()


@v2
def test_controllers_are_handed_down_to_the_container(box):
    cgroups = box.created("a/b")
    available = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    assert (path(cgroups) / "cgroup.controllers").read_text().split() == available
    assert (path(cgroups) / "cgroup.subtree_control").read_text() == ""


@v2
def test_huge_page_limit_is_in_force(box):
    cgroups = box.created(hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}])
    assert (path(cgroups) / "hugetlb.2MB.max").read_text() == f"{4 << 20}\n"
    assert (path(cgroups) / "hugetlb.2MB.rsvd.max").read_text() == f"{4 << 20}\n"


@v2
def test_unified_resources_are_written_to_their_files(box):
    cgroups = box.created(unified={"hugetlb.2MB.max": "2097152", "cgroup.max.depth": "3"})
    assert (path(cgroups) / "hugetlb.2MB.max").read_text() == "2097152\n"
    assert (path(cgroups) / "cgroup.max.depth").read_text() == "3\n"


@v2
def test_limit_of_a_controller_that_is_not_handed_on_says_so(box):
    cgroups = box.created("a/b")
    (path(cgroups).parent / "cgroup.subtree_control").write_text("-hugetlb")
    with pytest.raises(CgroupError) as caught:
        cgroups.set({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]})
    assert caught.value.message == "cannot set hugetlb limit: controller hugetlb not available in"
    assert caught.value.json_path == ".linux.resources.hugepageLimits[0]"


@v2
def test_page_size_that_is_no_file_name_is_refused(box):
    cgroups = box.created()
    with pytest.raises(CgroupError, match="is not the name of a cgroup file"):
        cgroups.set({"hugepageLimits": [{"pageSize": "/../x", "limit": 1}]})


@v2
def test_cgroup_below_a_threaded_one_has_no_memory_limit(box):
    above = box.created("t")
    control = path(above).parent / "cgroup.subtree_control"
    control.write_text(" ".join(f"-{name}" for name in control.read_text().split()))
    (path(above) / "cgroup.type").write_text("threaded")
    with pytest.raises(CgroupError, match="cannot enter cgroupv2 .* with domain controllers -- it is in"):
        box.manager("t/x", memory={"limit": 1 << 20}).create()
    assert not (path(above) / "x").exists()
    below = box.manager("t/x")
    below.create()
    assert (path(below) / "cgroup.type").read_text() == "threaded\n"
    child = box.process()
    path(above).parent.joinpath("cgroup.procs").write_text(str(child.pid))
    below.apply(child.pid)
    assert below.pids() == [child.pid]


@v2
def test_process_is_denied_devices_that_no_rule_allows(box):
    cgroups = box.created(devices=[{"allow": False}])
    probe = box.probe()
    cgroups.apply(probe.pid)
    assert [probe.open("rw", path) for path in ("/dev/null", "/dev/zero", "/dev/kmsg")] == [0, 0, errno.EPERM]


@v2
def test_changed_device_rules_replace_the_program_on_the_cgroup(box):
    kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
    cgroups = box.created(devices=[{"allow": False}])
    probe = box.probe()
    cgroups.apply(probe.pid)
    fd = cgroups.clone_fd()
    first = _kernel.bpf_prog_query(fd, BPF_CGROUP_DEVICE)
    cgroups.set({"devices": [{"allow": False}, kmsg]})
    second = _kernel.bpf_prog_query(fd, BPF_CGROUP_DEVICE)
    assert (len(first), len(second)) == (1, 1)
    assert first != second
    assert (probe.open("r", "/dev/kmsg"), probe.open("w", "/dev/kmsg")) == (0, errno.EPERM)
    cgroups.set({"devices": [{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "w"}]})
    assert (probe.open("r", "/dev/kmsg"), probe.open("w", "/dev/kmsg")) == (0, errno.EPERM)
    cgroups.set({}, skip_devices=True)
    assert probe.open("r", "/dev/kmsg") == 0


@v2
def test_cgroups_with_the_same_device_rules_share_a_program(box):
    rules = [{"allow": False}]
    one, other = (box.created(name, devices=rules) for name in ("one", "other"))
    first, second = (_kernel.bpf_prog_query(cgroups.clone_fd(), BPF_CGROUP_DEVICE) for cgroups in (one, other))
    assert first == second
    # and what is set anew on one of them leaves the other alone
    one.set({"devices": [{"allow": True}]})
    assert _kernel.bpf_prog_query(other.clone_fd(), BPF_CGROUP_DEVICE) == second


@v2
def test_several_programs_on_the_cgroup_become_one(box):
    cgroups = box.manager()
    cgroups.create()
    fd = cgroups.clone_fd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices_ebpf._kernel, "bpf_prog_query", lambda *_: [])
        cgroups.set({})
        cgroups.set({"devices": [{"allow": True}]})
    assert len(_kernel.bpf_prog_query(fd, BPF_CGROUP_DEVICE)) == 2
    cgroups.set({})
    assert len(_kernel.bpf_prog_query(fd, BPF_CGROUP_DEVICE)) == 1


@v2
def test_frozen_processes_stand_still(box):
    cgroups = box.created()
    probe = box.probe()
    cgroups.apply(probe.pid)
    assert probe.open("r", "/dev/null") == 0
    cgroups.freeze()
    assert cgroups.frozen()
    assert "frozen 1" in (path(cgroups) / "cgroup.events").read_text()
    probe.ask("r", "/dev/null")
    assert not probe.answers(0.05)
    cgroups.thaw()
    assert not cgroups.frozen()
    assert probe.answers(20)


@v2
def test_cgroup_below_a_frozen_one_is_not_itself_frozen(box):
    above, below = box.created("a"), box.created("a/b")
    above.freeze()
    assert (above.frozen(), below.frozen()) == (True, False)


@v2
def test_freezing_that_does_not_happen_in_time_is_taken_back(box):
    cgroups = box.created()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctr_supervisor.cgroups.freezer._await_frozen", lambda _: False)
        with pytest.raises(CgroupError, match="timeout of 10 seconds reached waiting for the cgroup to freeze"):
            cgroups.freeze()
    assert not cgroups.frozen()


@v2
def test_signal_reaches_all_processes_of_all_cgroups_below(box):
    cgroups, below = box.created("c"), box.created("c/d/e")
    children = [box.process() for _ in range(3)]
    files.enter(f"{path(cgroups)}/d/e", children[0].pid)
    below.apply(children[1].pid)
    below.apply(children[2].pid)
    assert sorted(cgroups.pids()) == sorted(child.pid for child in children)
    cgroups.kill(signal.SIGTERM)
    assert [child.wait(20) for child in children] == [-signal.SIGTERM] * 3


@v2
def test_killing_works_on_frozen_processes_at_once(box):
    cgroups = box.created()
    child = box.process()
    cgroups.apply(child.pid)
    cgroups.freeze()
    cgroups.kill(signal.SIGKILL)
    await_end([child])


@v2
def test_paused_container_stays_paused_when_signalled(box):
    cgroups = box.created()
    probe = box.probe()
    cgroups.apply(probe.pid)
    cgroups.freeze()
    cgroups.kill(signal.SIGCONT)
    assert cgroups.frozen()


@v2
def test_killing_without_cgroup_kill_leaves_none_of_those_that_fork(box):
    cgroups = box.created()
    child = box.process("sh", "-c", "read go; while :; do (sleep 1000 &) ; sleep 0.001 ; done 2>/dev/null")
    cgroups.apply(child.pid)
    box.go(child)
    until("it has forked", lambda: len(cgroups.pids()) > 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctr_supervisor.cgroups.v2.Manager._kill_at_once", lambda _: False)
        cgroups.kill(signal.SIGKILL)
    until("all are gone", lambda: not cgroups.pids())


@v2
def test_removed_cgroup_takes_those_below_along_and_may_be_removed_again(box):
    cgroups = box.created()
    (path(cgroups) / "d/e").mkdir(parents=True)
    cgroups.destroy()
    assert not cgroups.exists()
    cgroups.destroy()
    assert (cgroups.pids(), cgroups.frozen(), cgroups.oom_kill_count()) == ([], False, 0)
    cgroups.thaw()
    cgroups.kill(signal.SIGTERM)
    cgroups.kill(signal.SIGKILL)


@v2
def test_recorded_path_is_all_that_is_needed(box):
    made = box.created()
    child = box.process()
    made.apply(child.pid)
    found = manager.from_paths(dict(made.paths), rootless_cgroups=False)
    assert found.pids() == [child.pid]
    found.kill(signal.SIGKILL)
    found.destroy()
    assert not made.exists()


@v2
def test_joining_process_may_go_into_a_sub_cgroup(box):
    cgroups = box.created()
    (path(cgroups) / "sub").mkdir()
    child = box.process()
    cgroups.add_pid(child.pid, "sub")
    assert manager.parse_proc_cgroup(child.pid)[""] == f"{box.top}/c/sub"
    cgroups.add_pid(child.pid)
    assert manager.parse_proc_cgroup(child.pid)[""] == f"{box.top}/c"


@v2
def test_joining_process_follows_the_first_one_where_the_container_s_cgroup_takes_no_processes(box):
    cgroups = box.created()
    first, second = box.process(), box.process()
    (path(cgroups) / "init").mkdir()
    files.enter(f"{path(cgroups)}/init", first.pid)
    (path(cgroups) / "cgroup.subtree_control").write_text("+hugetlb")
    with pytest.raises(CgroupError) as caught:
        cgroups.add_pid(second.pid)
    assert caught.value.errno == errno.EBUSY
    cgroups.add_pid(second.pid, init_pid=first.pid)
    assert manager.parse_proc_cgroup(second.pid)[""] == f"{box.top}/c/init"


@v2
def test_cgroups_made_on_the_way_are_removed_when_the_last_fails(box):
    cgroups = box.manager("a/b/x\ny")
    with pytest.raises(CgroupError) as caught:
        cgroups.create()
    assert caught.value.errno == errno.EINVAL
    assert caught.value.json_path == ".linux.cgroupsPath"
    assert not os.path.exists(f"/sys/fs/cgroup{box.top}")


@v2
def test_rootless_does_without_a_cgroup_that_may_not_be_made(box):
    def run() -> None:
        cgroups = manager.for_container({"linux": {}}, "ctrtest-none", rootless_cgroups=True)
        cgroups.create()
        assert cgroups.paths == {}
        assert cgroups.clone_fd() is None
        cgroups.apply(os.getpid())
        cgroups.add_pid(os.getpid())
        cgroups.set({"devices": [{"allow": False}]})
        assert (cgroups.exists(), cgroups.pids(), cgroups.frozen()) == (False, [], False)
        cgroups.kill(signal.SIGKILL)
        cgroups.destroy()

    as_nobody(run)


@v2
def test_rootless_does_not_do_without_limits_that_were_asked_for(box):
    def run() -> None:
        cgroups = manager.for_container(config(pids={"limit": 5}), "ctrtest-none", rootless_cgroups=True)
        with pytest.raises(
            CgroupError, match=r"rootless needs no limits \+ no cgrouppath when no permission is granted"
        ):
            cgroups.create()

    as_nobody(run)


@v2
def test_rootless_uses_what_was_delegated_to_it(box):
    above = Path(f"/sys/fs/cgroup{box.top}")
    box.created("own")
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "own", "own/cgroup.procs"):
        os.chown(above / name, NOBODY, NOBODY)
    files.enter(f"{above}/own", os.getpid())

    def run() -> None:
        resources = {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}], "devices": [{"allow": False}]}
        cgroups = manager.for_container(config(**resources), "id1", rootless_cgroups=True)
        cgroups.create()
        assert cgroups.paths == {"": f"{above}/id1"}
        cgroups.set(resources)
        assert (above / "id1/hugetlb.2MB.max").read_text() == f"{2 << 20}\n"
        child = os.fork()
        if child == 0:
            os.execvp("sleep", ["sleep", "1000"])
        cgroups.apply(child)
        cgroups.freeze()
        cgroups.kill(signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        cgroups.destroy()
        assert not (above / "id1").exists()

    try:
        as_nobody(run)
    finally:
        files.enter("/sys/fs/cgroup", os.getpid())
