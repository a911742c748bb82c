from __future__ import annotations

import errno

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import v2_resources


@pytest.mark.parametrize(("_", "setter"), [pair for pair in v2_resources.SETTERS if pair[0] != "devices"])
def test_controller_that_is_not_asked_for_is_not_touched(cgroup, _, setter):
    for resources in ({}, {"memory": {}, "cpu": {}, "blockIO": {}, "hugepageLimits": [], "rdma": {}, "unified": {}}):
        setter(cgroup, resources)
    assert cgroup.writes == []


@pytest.mark.parametrize(
    ("resources", "controllers"),
    [
        ({"devices": [{"allow": False}], "network": {"classID": 1}}, []),
        ({"pids": {"limit": 5}}, ["pids"]),
        ({"pids": {"limit": 0}, "memory": {"swappiness": 5}, "blockIO": {"weight": 0}}, []),
        ({"memory": {"reservation": 1}, "blockIO": {"weight": 10}}, ["memory", "io"]),
        ({"cpu": {"idle": 0, "cpus": "1"}}, ["cpu", "cpuset"]),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "rdma": {"x": {}}}, ["hugetlb", "rdma"]),
    ],
)
def test_controllers_that_a_configuration_needs(resources, controllers):
    assert v2_resources.wanted_controllers(resources) == controllers


def memory(cgroup, **wanted):
    v2_resources.memory(cgroup, {"memory": wanted})
    return cgroup.writes


def test_memory_limits_are_converted(cgroup):
    assert memory(cgroup, limit=100, swap=300, reservation=50, swappiness=7, kernel=9, disableOOMKiller=True) == [
        ("memory.swap.max", "200"),
        ("memory.max", "100"),
        ("memory.low", "50"),
    ]


def test_same_limit_for_both_is_no_swap(cgroup):
    assert memory(cgroup, limit=100, swap=100) == [("memory.swap.max", "0"), ("memory.max", "100")]


def test_unlimited_memory_is_unlimited_swap(cgroup):
    assert memory(cgroup, limit=-1) == [("memory.swap.max", "max"), ("memory.max", "max")]


@pytest.mark.parametrize(("swap", "written"), [(100, [("memory.max", "100")]), (-1, [("memory.max", "100")])])
def test_kernel_without_swap_accounting_has_no_swap_to_limit(cgroup, swap, written):
    cgroup.refuse("memory.swap.max", errno.ENOENT)
    assert memory(cgroup, limit=100, swap=swap) == written


def test_swap_limit_that_can_not_be_kept_is_an_error(cgroup):
    cgroup.refuse("memory.swap.max", errno.ENOENT)
    with pytest.raises(CgroupError) as caught:
        memory(cgroup, limit=100, swap=150)
    assert caught.value.json_path == ".linux.resources.memory.swap"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"limit": 100}, "rejecting memory limit 100 <= usage 500"),
        ({"limit": 100, "swap": 400}, r"rejecting memory\+swap limit 400 <= usage 500"),
    ],
)
def test_limit_below_usage_is_refused_when_asked_to_check(cgroup, wanted, message):
    cgroup.contents = {"memory.current": "500"}
    with pytest.raises(CgroupError, match=message):
        memory(cgroup, checkBeforeUpdate=True, **wanted)
    assert cgroup.writes == []


def cpu(cgroup, **wanted):
    v2_resources.cpu(cgroup, {"cpu": wanted})
    return cgroup.writes


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        ({"shares": 1024}, [("cpu.weight", "100")]),
        ({"quota": 20000}, [("cpu.max", "20000 100000")]),
        ({"quota": 20000, "period": 50000}, [("cpu.max", "20000 50000")]),
        ({"quota": -1}, [("cpu.max", "max 100000")]),
        ({"period": 50000}, [("cpu.max", "max 50000")]),
        ({"idle": 1, "shares": 1024}, [("cpu.weight", "100"), ("cpu.idle", "1")]),
        ({"idle": 0, "shares": 1024}, [("cpu.idle", "0"), ("cpu.weight", "100")]),
        ({"burst": 0, "quota": 5000}, [("cpu.max.burst", "0"), ("cpu.max", "5000 100000")]),
        ({"realtimeRuntime": 5, "realtimePeriod": 10}, []),
    ],
)
def test_cpu_settings_are_converted(cgroup, wanted, written):
    assert cpu(cgroup, **wanted) == written


def test_burst_that_does_not_fit_the_old_quota_is_set_after_the_new_one(cgroup):
    cgroup.refuse("cpu.max.burst", errno.EINVAL)
    assert cpu(cgroup, burst=9000, quota=10000) == [("cpu.max", "10000 100000"), ("cpu.max.burst", "9000")]


def test_cpuset(cgroup):
    v2_resources.cpuset(cgroup, {"cpu": {"cpus": "0-1", "mems": "0"}})
    assert cgroup.writes == [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]


@pytest.mark.parametrize(
    ("limit", "written"), [(7, [("pids.max", "7")]), (-1, [("pids.max", "max")]), (-5, [("pids.max", "max")]), (0, [])]
)
def test_pids_limit(cgroup, limit, written):
    v2_resources.pids(cgroup, {"pids": {"limit": limit}})
    assert cgroup.writes == written


DEVICES = [{"major": 8, "minor": 0, "weight": 20}]


def io(cgroup, **wanted):
    v2_resources.io(cgroup, {"blockIO": wanted})
    return cgroup.writes


def test_weight_goes_to_bfq_where_that_is_used(cgroup):
    cgroup.contents = {"io.bfq.weight": "default 100"}
    assert io(cgroup, weight=500) == [("io.bfq.weight", "500")]


def test_device_weights_go_to_bfq_where_the_kernel_has_them(cgroup):
    cgroup.contents = {"io.bfq.weight": "default 100"}
    assert io(cgroup, weightDevice=DEVICES) == [("io.bfq.weight", "8:0 20")]


def test_device_weights_are_left_out_where_the_kernel_has_only_one(cgroup):
    cgroup.contents = {"io.bfq.weight": "100"}
    assert io(cgroup, weightDevice=DEVICES) == []


def test_weight_is_converted_where_bfq_is_not_used(cgroup):
    assert io(cgroup, weight=1000, leafWeight=5) == [("io.weight", "10000")]


def test_throttling_goes_to_io_max(cgroup):
    def entry(rate: int) -> list[dict[str, int]]:
        return [{"major": 8, "minor": 0, "rate": rate}]

    assert io(
        cgroup,
        throttleReadBpsDevice=entry(1),
        throttleWriteBpsDevice=entry(2),
        throttleReadIOPSDevice=entry(3),
        throttleWriteIOPSDevice=entry(0),
    ) == [("io.max", "8:0 rbps=1"), ("io.max", "8:0 wbps=2"), ("io.max", "8:0 riops=3"), ("io.max", "8:0 wiops=max")]


def test_huge_page_limits_hold_for_reservations_too(cgroup):
    v2_resources.hugetlb(cgroup, {"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]})
    assert cgroup.writes == [("hugetlb.2MB.max", "9"), ("hugetlb.2MB.rsvd.max", "9")]


def unified(cgroup, **files):
    v2_resources.unified(cgroup, {"unified": {name.replace("__", "."): value for name, value in files.items()}})
    return cgroup.writes


def test_unified_resources_are_written_line_by_line(cgroup):
    assert unified(cgroup, io__max="8:0 rbps=1\n8:16 rbps=2\n", memory__high="5") == [
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:16 rbps=2"),
        ("memory.high", "5"),
    ]


@pytest.mark.parametrize("name", ["../x/cgroup.procs", "/etc/passwd", "a/b.c"])
def test_unified_resource_with_a_slash_is_refused(cgroup, name):
    with pytest.raises(CgroupError) as caught:
        v2_resources.unified(cgroup, {"unified": {name: "1"}})
    assert caught.value.json_path == f'.linux.resources.unified["{name}"]'
    assert cgroup.writes == []


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("nothing", errno.ENOENT, 'unified resource "nothing" must be in the form CONTROLLER.PARAMETER'),
        ("foo.bar", errno.ENOENT, 'unified resource "foo.bar" can\'t be set: controller "foo" not available'),
        ("memory.nonsense", errno.ENOENT, 'unable to set unified resource "memory.nonsense": write'),
        ("memory.max", errno.EINVAL, 'unable to set unified resource "memory.max": write'),
    ],
)
def test_unified_resource_that_does_not_take_says_why(cgroup, name, number, message):
    cgroup.contents = {"cgroup.controllers": "cpu memory"}
    cgroup.refuse(name, number)
    with pytest.raises(CgroupError) as caught:
        v2_resources.unified(cgroup, {"unified": {name: "1"}})
    assert caught.value.message == message
