"""What an update makes of the resources that a container has."""

from __future__ import annotations

from typing import Any

import pytest

from ctr_common.spec import resources


def test_zeros_and_empty_strings_change_nothing():
    update: Any = {"memory": {"limit": 0}, "cpu": {"shares": 0, "cpus": ""}, "pids": {"limit": 0}, "blockIO": {}}
    assert resources.given(update) == {}


@pytest.mark.parametrize(("section", "key"), [("cpu", "idle"), ("cpu", "burst"), ("memory", "swappiness")])
def test_a_zero_that_is_a_value_counts(section: str, key: str):
    assert resources.given({section: {key: 0}}) == {section: {key: 0}}  # type: ignore[misc]


def test_a_swappiness_of_minus_one_is_none():
    assert resources.given({"memory": {"swappiness": 2**64 - 1}}) == {}


def test_kernel_memory_and_device_rules_are_no_part_of_an_update():
    update: Any = {"memory": {"kernel": 1, "kernelTCP": 2}, "devices": [{"allow": True, "access": "rwm"}]}
    assert resources.given(update) == {}
    assert resources.asks_for_kernel_memory(update)
    assert not resources.asks_for_kernel_memory({"memory": {"limit": 1}})


def test_a_quota_is_set_with_the_period_that_the_container_has():
    old: Any = {"cpu": {"period": 50000}}
    assert resources.to_set(old, {"cpu": {"quota": 1000}}) == {"cpu": {"quota": 1000, "period": 50000}}


def test_a_period_is_set_with_the_quota_that_the_container_has():
    old: Any = {"cpu": {"quota": 1000, "period": 50000}}
    assert resources.to_set(old, {"cpu": {"period": 20000}}) == {"cpu": {"quota": 1000, "period": 20000}}


def test_a_quota_alone_stays_alone_where_nothing_is_known_of_a_period():
    assert resources.to_set({}, {"cpu": {"quota": 1000}}) == {"cpu": {"quota": 1000}}


def test_other_cpu_settings_leave_quota_and_period_alone():
    old: Any = {"cpu": {"quota": 1000, "period": 50000}}
    assert resources.to_set(old, {"cpu": {"shares": 7}}) == {"cpu": {"shares": 7}}


def test_a_limit_on_swap_comes_with_the_limit_on_memory():
    old: Any = {"memory": {"limit": 100}}
    assert resources.to_set(old, {"memory": {"swap": 300}}) == {"memory": {"limit": 100, "swap": 300}}
    assert resources.to_set(old, {"memory": {"swap": -1}}) == {"memory": {"swap": -1}}


def test_what_was_not_named_stays_in_the_configuration():
    old: Any = {"memory": {"limit": 1, "swappiness": 10}, "pids": {"limit": 5}, "devices": ["rule"], "odd": 1}
    update: Any = {"memory": {"limit": 2}, "devices": []}
    merged = resources.merge(old, update)
    assert merged == {"memory": {"limit": 2, "swappiness": 10}, "pids": {"limit": 5}, "devices": ["rule"], "odd": 1}
    assert old["memory"]["limit"] == 1


def test_no_limit_on_memory_is_none_on_swap():
    old: Any = {"memory": {"limit": 1, "swap": 2}}
    assert resources.merge(old, {"memory": {"limit": -1}}) == {"memory": {"limit": -1, "swap": -1}}
    assert resources.merge(old, {"memory": {"limit": -1, "swap": 3}}) == {"memory": {"limit": -1, "swap": 3}}


def test_entries_of_lists_are_told_apart_by_what_they_are_for():
    old: Any = {
        "blockIO": {
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 2}]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "network": {"priorities": [{"name": "lo", "priority": 1}]},
    }
    update: Any = {
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 9}]},
        "hugepageLimits": [{"pageSize": "1GB", "limit": 2}],
        "network": {"classID": 3},
    }
    assert resources.merge(old, update) == {
        "blockIO": {
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 9}]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}],
        "network": {"priorities": [{"name": "lo", "priority": 1}], "classID": 3},
    }


def test_maps_keep_their_other_keys():
    old: Any = {"unified": {"memory.high": "1"}, "rdma": {"mlx": {"hcaHandles": 1}}}
    update: Any = {"unified": {"cpu.max": "max"}, "rdma": {"mlx": {"hcaObjects": 2}}}
    assert resources.merge(old, update) == {
        "unified": {"memory.high": "1", "cpu.max": "max"},
        "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 2}},
    }
