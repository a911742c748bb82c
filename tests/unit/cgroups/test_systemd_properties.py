from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import device_rules, systemd_properties
from ctr_supervisor.cgroups.systemd_properties import INFINITY, cpuset_bits, per_second, v1, v2, with_rounded_quota

ALLOW_ALL = {"allow": True, "access": "rwm"}
DENY_ALL = {"allow": False, "access": "rwm"}


def limits(make, resources, version=257):
    """The properties other than those of devices."""
    return make(resources, lambda: version, skip_devices=True)


def devices(make, rules, version=257):
    return make({"devices": rules}, lambda: version, skip_devices=False)


def test_v2_limits_have_the_names_and_types_of_systemd():
    resources = {
        "memory": {"limit": 1 << 30, "reservation": 1 << 20, "swap": 3 << 30},
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0,2-3", "mems": "0"},
        "pids": {"limit": 7},
        "blockIO": {"weight": 500},
    }
    assert limits(v2, resources) == [
        ("MemoryMax", ("t", 1 << 30)),
        ("MemoryLow", ("t", 1 << 20)),
        ("MemorySwapMax", ("t", 2 << 30)),
        ("CPUWeight", ("t", 100)),
        ("CPUQuotaPeriodUSec", ("t", 100000)),
        ("CPUQuotaPerSecUSec", ("t", 500000)),
        ("IOWeight", ("t", 4950)),
        ("TasksMax", ("t", 7)),
        ("AllowedCPUs", ("ay", b"\x0d")),
        ("AllowedMemoryNodes", ("ay", b"\x01")),
    ]


def test_v1_limits_have_the_names_of_old():
    resources = {
        "memory": {"limit": 1 << 30, "reservation": 1 << 20, "swap": 3 << 30},
        "cpu": {"shares": 1024},
        "pids": {"limit": -1},
        "blockIO": {"weight": 500},
    }
    assert limits(v1, resources) == [
        ("MemoryLimit", ("t", 1 << 30)),
        ("CPUShares", ("t", 1024)),
        ("BlockIOWeight", ("t", 500)),
        ("TasksMax", ("t", INFINITY)),
    ]


def test_limits_of_minus_one_are_infinity():
    resources = {"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    assert limits(v2, resources) == [
        (name, ("t", INFINITY)) for name in ("MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax")
    ]


def test_what_is_not_given_is_not_told():
    assert limits(v2, {}) == []
    assert limits(v1, {"memory": {}, "cpu": {"shares": 0}, "pids": {"limit": 0}}) == []


def test_swap_that_equals_memory_is_no_swap():
    assert ("MemorySwapMax", ("t", 0)) in limits(v2, {"memory": {"limit": 4096, "swap": 4096}})


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [(50000, 100000, 500000), (12345, 100000, 130000), (1, 0, 10000), (5000, 1000000, 10000)],
)
def test_quota_is_rounded_up_to_a_percent(quota, period, expected):
    assert per_second(quota, period) == expected


def test_file_gets_the_quota_that_systemd_makes_of_it():
    resources = {"cpu": {"quota": 12345, "period": 50000}, "pids": {"limit": 3}}
    assert with_rounded_quota(resources) == {"cpu": {"quota": 12500, "period": 50000}, "pids": {"limit": 3}}
    assert resources["cpu"]["quota"] == 12345
    assert with_rounded_quota({"cpu": {"quota": -1}}) == {"cpu": {"quota": -1}}


def test_period_alone_is_told_with_no_quota():
    assert limits(v2, {"cpu": {"period": 50000}}) == [
        ("CPUQuotaPeriodUSec", ("t", 50000)),
        ("CPUQuotaPerSecUSec", ("t", INFINITY)),
    ]


@pytest.mark.parametrize(
    ("resources", "version", "names"),
    [
        ({"cpu": {"quota": 1000, "period": 10000}}, 241, ["CPUQuotaPerSecUSec"]),
        ({"cpu": {"cpus": "0"}}, 243, []),
        ({"cpu": {"cpus": "0"}}, 244, ["AllowedCPUs"]),
        ({"cpu": {"idle": 1}}, 251, []),
        ({"unified": {"cpuset.mems": "0"}}, 243, []),
        ({"unified": {"cpu.idle": "1"}}, 251, []),
        ({"unified": {"cpu.idle": "1", "cpu.weight": "5"}}, 251, ["CPUWeight"]),
    ],
)
def test_older_systemd_is_told_only_what_it_knows(resources, version, names):
    assert [name for name, _ in limits(v2, resources, version)] == names


def test_idle_is_a_weight_of_zero_and_the_only_weight():
    assert limits(v2, {"cpu": {"idle": 1, "shares": 1024}}) == [("CPUWeight", ("t", 0))]
    assert limits(v2, {"cpu": {"idle": 0, "shares": 1024}}) == [("CPUWeight", ("t", 100))]


def test_version_is_not_asked_for_where_nothing_depends_on_it():
    def version():
        raise AssertionError

    v2({"memory": {"limit": 1}, "cpu": {"shares": 5, "quota": 5}}, version, skip_devices=True)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("0", b"\1"), ("0-7", b"\xff"), ("8", b"\0\1"), ("0-1, 9,", b"\3\2"), ("63", b"\0" * 7 + b"\x80")],
)
def test_list_of_cpus_is_a_little_endian_mask(text, bits):
    assert cpuset_bits(text, "") == bits


@pytest.mark.parametrize("text", ["", ",", "a", "1-", "-1", "3-2", "1-2-3", "0-4294967295", "0x1", "²"])
def test_list_of_cpus_that_is_none_is_refused(text):
    with pytest.raises(CgroupError):
        cpuset_bits(text, ".x")


def test_unified_files_become_properties():
    files = {
        "cpu.max": "12345 50000",
        "cpu.weight": "99",
        "cpuset.cpus": "0-1",
        "memory.high": "max",
        "memory.low": "1",
        "memory.max": "2\n",
        "memory.min": "3",
        "memory.swap.max": "0",
        "pids.max": "5",
        "memory.oom.group": "1",
        "hugetlb.2MB.max": "1",
    }
    assert limits(v2, {"unified": files}) == [
        ("CPUQuotaPeriodUSec", ("t", 50000)),
        ("CPUQuotaPerSecUSec", ("t", 250000)),
        ("CPUWeight", ("t", 99)),
        ("AllowedCPUs", ("ay", b"\3")),
        ("MemoryHigh", ("t", INFINITY)),
        ("MemoryLow", ("t", 1)),
        ("MemoryMax", ("t", 2)),
        ("MemoryMin", ("t", 3)),
        ("MemorySwapMax", ("t", 0)),
        ("TasksMax", ("t", 5)),
    ]


def test_unified_maximum_of_cpu_is_no_quota():
    assert limits(v2, {"unified": {"cpu.max": "max"}})[-1] == ("CPUQuotaPerSecUSec", ("t", INFINITY))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a/b.c", "1"),
        ("memory", "1"),
        (".max", "1"),
        ("memory.max", "lots"),
        ("memory.max", "-1"),
        ("pids.max", str(1 << 64)),
        ("cpu.max", ""),
        ("cpu.max", "1 2 3"),
        ("cpu.max", "x 1"),
        ("cpu.weight", "x"),
        ("cpuset.cpus", "x"),
    ],
)
def test_unified_value_that_is_wrong_is_named(name, value):
    with pytest.raises(CgroupError) as caught:
        limits(v2, {"unified": {name: value}})
    assert caught.value.json_path == f'.linux.resources.unified["{name}"]'


# -- devices


@pytest.mark.parametrize("make", [v1, v2])
def test_devices_are_a_strict_list_emptied_before_it_is_filled(make):
    rules = [DENY_ALL, {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "r"}]
    policy, empty, (name, (signature, entries)) = devices(make, rules)
    assert (policy, empty) == (("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", [])))
    assert (name, signature) == ("DeviceAllow", "a(ss)")
    assert {("/dev/block/8:1", "r"), ("/dev/char/1:3", "rwm"), ("char-*", "m"), ("char-136", "rwm")} <= set(entries)


def test_older_systemd_is_told_groups_by_name_and_only_nodes_that_are_there(monkeypatch):
    monkeypatch.setattr(systemd_properties.os.path, "exists", lambda path: path == "/dev/char/1:3")
    (_, (_, entries)) = devices(v2, [DENY_ALL], 239)[-1]
    assert [entry for entry in entries if not entry[0].endswith("*")] == [("/dev/char/1:3", "rwm"), ("char-pts", "rwm")]


@pytest.mark.parametrize("make", [v1, v2])
def test_everything_allowed_is_no_policy(make):
    assert devices(make, [ALLOW_ALL]) == [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]


EXCEPT_ONE = [ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "minor": 0, "access": "w"}]


def test_everything_but_one_is_nothing_on_v1_until_the_files_are_written():
    assert devices(v1, EXCEPT_ONE) == [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", []))]


def test_everything_but_one_is_left_to_our_own_program_on_v2():
    assert devices(v2, EXCEPT_ONE) == [("DevicePolicy", ("s", "auto")), ("DeviceAllow", ("a(ss)", []))]


HOLE = [
    {"allow": True, "type": "c", "major": 4, "access": "rw"},
    {"allow": False, "type": "c", "major": 4, "minor": 1, "access": "w"},
]


def test_hole_in_a_wildcard_is_an_error_on_v1_and_left_to_our_own_program_on_v2():
    with pytest.raises(CgroupError, match="cannot punch hole"):
        devices(v1, HOLE)
    assert devices(v2, HOLE)[0] == ("DevicePolicy", ("s", "auto"))


def test_rule_that_makes_no_sense_is_an_error_on_v2_too():
    with pytest.raises(CgroupError, match="invalid cgroup device type"):
        devices(v2, [{"allow": True, "type": "x"}])


def test_minor_number_of_every_major_has_no_words():
    assert systemd_properties.device_list([device_rules.Rule(True, "c", device_rules.ANY, 3)], lambda: 257) == []
