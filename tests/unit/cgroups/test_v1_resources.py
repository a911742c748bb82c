from __future__ import annotations

import errno

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import v1_resources

LIMIT = "memory.limit_in_bytes"
SWAP = "memory.memsw.limit_in_bytes"
UNLIMITED = "9223372036854771712"


@pytest.mark.parametrize(("_", "setter"), [pair for pair in v1_resources.SETTERS if pair[0] != "devices"])
def test_controller_that_is_not_asked_for_is_not_touched(cgroup, _, setter):
    for resources in ({}, {"memory": {}, "cpu": {}, "blockIO": {}, "network": {}, "hugepageLimits": [], "rdma": {}}):
        setter(cgroup, resources)
    assert cgroup.writes == []


def memory(cgroup, **wanted):
    v1_resources.memory(cgroup, {"memory": wanted})
    return cgroup.writes


def test_raised_memory_limit_comes_after_swap(cgroup):
    cgroup.contents = {LIMIT: "1000"}
    assert memory(cgroup, limit=2000, swap=3000) == [(SWAP, "3000"), (LIMIT, "2000")]


def test_lowered_memory_limit_comes_before_swap(cgroup):
    cgroup.contents = {LIMIT: UNLIMITED}
    assert memory(cgroup, limit=2000, swap=3000) == [(LIMIT, "2000"), (SWAP, "3000")]


def test_unlimited_swap_comes_first(cgroup):
    cgroup.contents = {LIMIT: UNLIMITED}
    assert memory(cgroup, limit=2000, swap=-1) == [(SWAP, "-1"), (LIMIT, "2000")]


def test_unlimited_memory_takes_the_swap_limit_along(cgroup):
    cgroup.contents = {LIMIT: "1000", SWAP: "1000"}
    assert memory(cgroup, limit=-1) == [(SWAP, "-1"), (LIMIT, "-1")]


def test_unlimited_memory_without_swap_accounting_is_memory_alone(cgroup):
    assert memory(cgroup, limit=-1) == [(LIMIT, "-1")]


def test_limit_below_usage_tells_the_usage(cgroup):
    cgroup.contents = {"memory.usage_in_bytes": "500", "memory.max_usage_in_bytes": "700"}
    cgroup.refuse(LIMIT, errno.EBUSY)
    with pytest.raises(CgroupError) as caught:
        memory(cgroup, limit=100)
    assert caught.value.message == "unable to set memory limit to 100 (current usage: 500, peak usage: 700)"
    assert caught.value.json_path == ".linux.resources.memory.limit"


def test_other_memory_settings_go_to_their_files(cgroup):
    cgroup.contents = {"memory.use_hierarchy": "0"}
    assert memory(
        cgroup, reservation=5, swappiness=0, disableOOMKiller=True, useHierarchy=True, kernel=7, kernelTCP=8
    ) == [
        ("memory.use_hierarchy", "1"),
        ("memory.soft_limit_in_bytes", "5"),
        ("memory.oom_control", "1"),
        ("memory.swappiness", "0"),
    ]


def test_hierarchy_that_is_on_is_not_written(cgroup):
    cgroup.contents = {"memory.use_hierarchy": "1"}
    assert memory(cgroup, useHierarchy=True) == []


@pytest.mark.parametrize("unset", [-1, 0xFFFFFFFFFFFFFFFF])
def test_swappiness_of_minus_one_is_not_given(cgroup, unset):
    assert memory(cgroup, swappiness=unset) == []


def test_swappiness_out_of_range_is_an_error(cgroup):
    with pytest.raises(CgroupError, match=r"invalid memory swappiness value: 101 \(valid range is 0-100\)"):
        memory(cgroup, swappiness=101)


def cpu(cgroup, **wanted):
    v1_resources.cpu(cgroup, {"cpu": wanted})
    return cgroup.writes


def test_cpu_settings_go_to_their_files(cgroup):
    wanted = {"shares": 512, "period": 50000, "burst": 10, "quota": 20000, "idle": 1}
    assert cpu(cgroup, **wanted, realtimePeriod=7, realtimeRuntime=5) == [
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.cfs_burst_us", "10"),
        ("cpu.cfs_quota_us", "20000"),
        ("cpu.idle", "1"),
        ("cpu.rt_period_us", "7"),
        ("cpu.rt_runtime_us", "5"),
    ]


def test_cgroup_stops_being_idle_before_its_shares_change(cgroup):
    assert cpu(cgroup, idle=0, shares=5) == [("cpu.idle", "0"), ("cpu.shares", "5")]


@pytest.mark.parametrize(("shares", "end", "actual"), [(1, "minimum", 2), (900000, "maximum", 262144)])
def test_shares_that_the_kernel_changes_are_an_error(cgroup, shares, end, actual):
    cgroup.limits["cpu.shares"] = range(2, 262145)
    with pytest.raises(CgroupError) as caught:
        cpu(cgroup, shares=shares)
    assert str(caught.value) == f".linux.resources.cpu.shares: the {end} allowed cpu-shares is {actual}"


def test_period_and_burst_that_do_not_fit_the_old_quota_are_set_after_the_new_one(cgroup):
    cgroup.refuse("cpu.cfs_period_us", errno.EINVAL)
    cgroup.refuse("cpu.cfs_burst_us", errno.EINVAL)
    assert cpu(cgroup, period=1000, burst=20, quota=3000) == [
        ("cpu.cfs_quota_us", "3000"),
        ("cpu.cfs_period_us", "1000"),
        ("cpu.cfs_burst_us", "20"),
    ]


def test_period_that_fits_no_quota_is_an_error(cgroup):
    cgroup.refuse("cpu.cfs_period_us", errno.EINVAL)
    with pytest.raises(CgroupError) as caught:
        cpu(cgroup, period=1000)
    assert caught.value.json_path == ".linux.resources.cpu.period"


def test_realtime_period_is_tried_again_after_the_runtime(cgroup):
    cgroup.refuse("cpu.rt_period_us", errno.EINVAL)
    assert cpu(cgroup, realtimePeriod=10, realtimeRuntime=5) == [("cpu.rt_runtime_us", "5"), ("cpu.rt_period_us", "10")]


@pytest.mark.parametrize(
    ("limit", "written"),
    [(7, [("pids.max", "7")]), (-1, [("pids.max", "max")]), (-5, [("pids.max", "max")]), (0, [])],
)
def test_pids_limit(cgroup, limit, written):
    v1_resources.pids(cgroup, {"pids": {"limit": limit}})
    assert cgroup.writes == written


BLKIO = {
    "weight": 500,
    "leafWeight": 300,
    "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 20}, {"major": 8, "minor": 1}],
    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
}


@pytest.mark.parametrize(("contents", "prefix"), [({"blkio.weight": "1"}, "blkio"), ({}, "blkio.bfq")])
def test_block_io_goes_to_the_files_of_the_scheduler(cgroup, contents, prefix):
    cgroup.contents = contents
    v1_resources.blkio(cgroup, {"blockIO": BLKIO})
    assert cgroup.writes == [
        (f"{prefix}.weight", "500"),
        ("blkio.leaf_weight", "300"),
        (f"{prefix}.weight_device", "8:0 10"),
        ("blkio.leaf_weight_device", "8:0 20"),
        ("blkio.throttle.read_bps_device", "8:0 1"),
        ("blkio.throttle.write_bps_device", "8:0 2"),
        ("blkio.throttle.read_iops_device", "8:0 3"),
        ("blkio.throttle.write_iops_device", "8:0 4"),
    ]


def test_error_of_a_device_names_its_place_in_the_list(cgroup):
    cgroup.refuse("blkio.throttle.read_bps_device", 0, errno.ENODEV)
    entry = {"major": 8, "minor": 0, "rate": 1}
    with pytest.raises(CgroupError) as caught:
        v1_resources.blkio(cgroup, {"blockIO": {"throttleReadBpsDevice": [entry, entry]}})
    assert caught.value.json_path == ".linux.resources.blockIO.throttleReadBpsDevice[1]"


def test_huge_page_limits_hold_for_reservations_too(cgroup):
    v1_resources.hugetlb(cgroup, {"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]})
    assert cgroup.writes == [("hugetlb.2MB.limit_in_bytes", "9"), ("hugetlb.2MB.rsvd.limit_in_bytes", "9")]


def test_kernel_that_does_not_count_reservations_is_fine(cgroup):
    cgroup.refuse("hugetlb.2MB.rsvd.limit_in_bytes", errno.ENOENT)
    v1_resources.hugetlb(cgroup, {"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]})
    assert cgroup.writes == [("hugetlb.2MB.limit_in_bytes", "9")]


def test_network_class_and_priorities(cgroup):
    resources = {"network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 3}]}}
    v1_resources.net_cls(cgroup, resources)
    v1_resources.net_prio(cgroup, resources)
    assert cgroup.writes == [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "lo 3")]


def test_rdma_limits_that_are_not_given_are_left_out(cgroup):
    v1_resources.rdma(cgroup, {"rdma": {"mlx5_0": {"hcaHandles": 0, "hcaObjects": 5}, "mlx5_1": {"hcaObjects": 2}}})
    assert cgroup.writes == [("rdma.max", "mlx5_0 hca_handle=0 hca_object=5"), ("rdma.max", "mlx5_1 hca_object=2")]


def test_device_rules_that_did_not_take_are_an_error(cgroup):
    cgroup.contents = {"devices.list": "a *:* rwm"}  # and it stays so, whatever is written
    with pytest.raises(CgroupError, match="doesn't match the rules"):
        v1_resources.devices(cgroup, {})
    assert cgroup.writes[0] == ("devices.deny", "a *:* rwm")
    assert ("devices.allow", "c 1:3 rwm") in cgroup.writes


def test_free_cgroup_for_free_rules_is_right(cgroup):
    cgroup.contents = {"devices.list": "a *:* rwm"}
    v1_resources.devices(cgroup, {"devices": [{"allow": True}]})
    assert cgroup.writes == [("devices.allow", "a *:* rwm")]
