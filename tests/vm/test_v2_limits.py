"""Limits that the kernel really enforces: each is seen to bite, not just to stand in its file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.waiting import until
from tests.vm.conftest import Driver, edit

pytestmark = pytest.mark.usefixtures("no_leaks")

MIB = 1 << 20
Limited = Callable[..., Path]


def events(cgroup: Path, name: str = "memory.events") -> dict[str, int]:
    return {key: int(value) for key, value in map(str.split, (cgroup / name).read_text().splitlines())}


@pytest.mark.vm_short
def test_process_that_takes_more_than_its_memory_is_killed(driver: Driver, limited: Limited, container_id: str):
    made = limited(["sh", "-c", "tail /dev/zero; echo $?"], memory={"limit": 16 * MIB, "swap": 16 * MIB})
    assert driver("run", "-b", made, container_id).text.splitlines()[-1] == "137"


def test_kernel_counts_the_killed_process_in_the_container_s_cgroup(
    driver: Driver, running: Limited, container_id: str
):
    cgroup = running(memory={"limit": 16 * MIB, "swap": 16 * MIB})
    assert events(cgroup)["oom_kill"] == 0
    assert driver("exec", container_id, "tail", "/dev/zero").code == 137
    assert events(cgroup)["oom_kill"] == 1
    driver("delete", "--force", container_id).ok()


def test_reservation_is_what_the_kernel_leaves_alone(driver: Driver, running: Limited, container_id: str):
    cgroup = running(memory={"limit": 32 * MIB, "reservation": 8 * MIB, "swap": 48 * MIB})
    values = [(cgroup / f"memory.{name}").read_text().strip() for name in ("max", "low", "swap.max")]
    assert values == [str(32 * MIB), str(8 * MIB), str(16 * MIB)]
    driver("delete", "--force", container_id).ok()


@pytest.mark.vm_short
def test_fork_past_the_limit_of_processes_fails(driver: Driver, limited: Limited, container_id: str):
    made = limited(["sh", "-c", "for i in 1 2 3 4 5; do sleep 1000 & done; echo not here"], pids={"limit": 4})
    result = driver("run", "-b", made, container_id)
    assert "can't fork: Resource temporarily unavailable" in result.err
    assert "not here" not in result.out


def test_processor_time_past_the_quota_is_withheld(driver: Driver, running: Limited, container_id: str):
    cgroup = running(["sh", "-c", "while :; do :; done"], cpu={"quota": 10000, "period": 100000})
    assert (cgroup / "cpu.max").read_text() == "10000 100000\n"
    until("it was throttled", lambda: events(cgroup, "cpu.stat")["nr_throttled"] > 2)
    before = events(cgroup, "cpu.stat")
    until("ten more periods", lambda: events(cgroup, "cpu.stat")["nr_periods"] >= before["nr_periods"] + 10)
    after = events(cgroup, "cpu.stat")
    periods = after["nr_periods"] - before["nr_periods"]
    # a tenth of the period each, and what a tick lets through
    assert after["usage_usec"] - before["usage_usec"] <= periods * 100000 * 0.35
    driver("delete", "--force", container_id).ok()


def test_process_runs_on_the_cpus_it_was_given(driver: Driver, limited: Limited, container_id: str):
    last = max(os.sched_getaffinity(0))
    made = limited(["grep", "Cpus_allowed_list", "/proc/self/status"], cpu={"cpus": str(last), "mems": "0"})
    assert driver("run", "-b", made, container_id).text.split() == ["Cpus_allowed_list:", str(last)]


def test_exec_runs_on_the_container_s_cpus(driver: Driver, running: Limited, container_id: str):
    last = max(os.sched_getaffinity(0))
    running(cpu={"cpus": str(last)})
    result = driver("exec", container_id, "grep", "Cpus_allowed_list", "/proc/self/status")
    assert result.text.split()[-1] == str(last)
    driver("delete", "--force", container_id).ok()


def test_writing_is_no_faster_than_the_device_s_limit(
    driver: Driver, limited: Limited, container_id: str, disk_directory: Path
):
    number = disk_directory.stat().st_dev
    rate, amount = MIB, 3 * MIB
    limit = {"major": os.major(number), "minor": os.minor(number), "rate": rate}
    write = f"dd if=/dev/zero of=/d/f bs={amount} count=1 conv=fsync 2>&1"
    script = f"read a _ </proc/uptime; {write}; read b _ </proc/uptime; echo $a $b"
    made = limited(["sh", "-c", script], blockIO={"throttleWriteBpsDevice": [limit]})
    edit(
        made,
        lambda config: config["mounts"].append(
            {"destination": "/d", "type": "bind", "source": str(disk_directory), "options": ["bind"]}
        ),
    )
    began, ended = map(float, driver("run", "-b", made, container_id).lines[-1].split())
    assert ended - began >= 0.8 * amount / rate


def test_huge_pages_past_the_limit_are_refused(driver: Driver, limited: Limited, container_id: str, huge_pages: int):
    script = "fallocate -l 2097152 /huge/a && echo one; fallocate -l 4194304 /huge/b || echo no more"
    made = limited(["sh", "-c", script], hugepageLimits=[{"pageSize": "2MB", "limit": 2 * MIB}])
    mount = {"destination": "/huge", "type": "hugetlbfs", "source": "hugetlbfs", "options": ["pagesize=2M"]}
    edit(made, lambda config: config["mounts"].append(mount))
    assert driver("run", "-b", made, container_id).lines == ["one", "no more"]


def test_file_of_cgroup_v2_can_be_set_by_its_name(driver: Driver, running: Limited, container_id: str):
    cgroup = running(unified={"memory.high": str(24 * MIB), "cpu.weight": "42", "pids.max": "7"})
    values = [(cgroup / name).read_text().strip() for name in ("memory.high", "cpu.weight", "pids.max")]
    assert values == [str(24 * MIB), "42", "7"]
    driver("delete", "--force", container_id).ok()


@pytest.fixture
def disk_directory(new_container_id: Callable[[], str]):
    """A directory on a real disk: the kernel throttles no tmpfs."""
    directory = Path("/var/tmp", new_container_id())
    directory.mkdir()
    yield directory
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()


@pytest.fixture
def huge_pages():
    """Huge pages for the test, given back afterwards."""
    pool = Path("/proc/sys/vm/nr_hugepages")
    before = pool.read_text()
    pool.write_text("8")
    yield int(pool.read_text())
    pool.write_text(before)


def test_limits_hold_for_all_containers_below_a_common_cgroup(
    ctrun, bundle: Bundles, new_container_id: Callable[[], str]
):
    parent, one, two = (new_container_id() for _ in range(3))
    for name in (one, two):

        def below(config, name=name):
            config["linux"]["cgroupsPath"] = f"/{parent}/{name}"
            config["linux"]["resources"]["pids"] = {"limit": 10}

        ctrun("run", "-d", "-b", bundle(below, args=["sleep", "1000"]), name, stdin="").ok()
    top = Path("/sys/fs/cgroup", parent)
    (top / "pids.max").write_text("3")
    refused = ctrun("exec", one, "sh", "-c", "true & wait")
    assert "can't fork: Resource temporarily unavailable" in refused.err
    for name in (one, two):
        ctrun("delete", "--force", name).ok()
    top.rmdir()
