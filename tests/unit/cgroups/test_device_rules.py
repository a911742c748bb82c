from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups.device_rules import (
    ALL,
    ANY,
    DEFAULT_RULES,
    MKNOD,
    READ,
    WRITE,
    Emulator,
    Rule,
    from_config,
)

DENY_ALL = Rule(False)
ALLOW_ALL = Rule(True)
NULL = Rule(True, "c", 1, 3)


def written(rules: list[Rule]) -> list[str]:
    return [f"{'+' if rule.allow else '-'}{rule}" for rule in rules]


def test_rule_is_written_as_the_kernel_takes_it():
    assert str(ALLOW_ALL) == "a *:* rwm"
    assert str(Rule(True, "c", 136, ANY, READ | MKNOD)) == "c 136:* rm"


def test_missing_properties_stand_for_everything():
    assert from_config([{"allow": False}])[0] == DENY_ALL
    assert from_config([{"allow": True, "type": "b", "access": "r"}])[0] == Rule(True, "b", ANY, ANY, READ)


def test_default_devices_come_last_so_that_no_rule_takes_them_away():
    rules = from_config([{"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rw"}, {"allow": False}])
    assert rules[1] == DENY_ALL
    assert rules[2:] == list(DEFAULT_RULES)
    assert from_config(None) == list(DEFAULT_RULES)


@pytest.mark.parametrize(
    ("entry", "place", "message"),
    [
        ({"allow": True, "type": "u"}, "type", 'invalid cgroup device type "u"'),
        ({"allow": True, "access": "rx"}, "access", 'invalid device access "rx", expected letters of "rwm"'),
        ({"allow": True, "major": -2}, "major", "invalid device number -2"),
        ({"allow": True, "minor": 1 << 32}, "minor", "invalid device number 4294967296"),
    ],
)
def test_senseless_rule_is_an_error_with_its_place(entry, place, message):
    with pytest.raises(CgroupError) as caught:
        from_config([{"allow": False}, entry])
    assert caught.value.json_path == f".linux.resources.devices[1].{place}"
    assert caught.value.message == message


def test_devices_list_of_a_free_cgroup_is_understood():
    assert Emulator.of_list("a *:* rwm\n") == Emulator(default_allow=True)


def test_devices_list_of_a_restricted_cgroup_is_understood():
    state = Emulator.of_list("c 1:3 rwm\nb *:* m\n")
    assert not state.default_allow
    assert state.exceptions == {("c", 1, 3): ALL, ("b", ANY, ANY): MKNOD}


def test_unknown_devices_list_is_an_error():
    with pytest.raises(CgroupError, match="expected TYPE MAJOR:MINOR ACCESS"):
        Emulator.of_list("c 1:3\n")


def test_rules_for_the_same_device_add_up():
    state = Emulator.of_rules([Rule(True, "c", 1, 3, READ), Rule(True, "c", 1, 3, WRITE), Rule(False, "c", 1, 3, READ)])
    assert state.exceptions == {("c", 1, 3): WRITE}


def test_rule_for_everything_starts_over():
    state = Emulator.of_rules([NULL, ALLOW_ALL])
    assert state == Emulator(default_allow=True)
    assert Emulator.of_rules([NULL, ALLOW_ALL, DENY_ALL]) == Emulator()


def test_rule_for_both_types_that_is_not_for_everything_opens_no_more_than_it_says():
    state = Emulator.of_rules([Rule(True, "a", 1, 3, READ)])
    assert state.exceptions == {("b", 1, 3): READ, ("c", 1, 3): READ}
    assert not state.default_allow


def test_hole_in_a_wider_rule_is_refused_because_the_kernel_would_ignore_it():
    with pytest.raises(CgroupError, match="cannot punch hole in existing wildcard rule") as caught:
        Emulator.of_rules([Rule(True, "c", 1, ANY), Rule(False, "c", 1, 3, READ)])
    assert caught.value.json_path == ".linux.resources.devices"


def test_rule_beside_a_wider_one_with_other_accesses_is_no_hole():
    state = Emulator.of_rules([Rule(True, "c", ANY, ANY, MKNOD), Rule(False, "c", 1, 3, READ)])
    assert state.exceptions == {("c", ANY, ANY): MKNOD}


def test_same_wide_rule_can_be_taken_back():
    assert Emulator.of_rules([Rule(True, "c", 1, ANY), Rule(False, "c", 1, ANY)]) == Emulator()


def test_new_cgroup_is_closed_first_and_then_opened():
    rules = Emulator(default_allow=True).transition(Emulator.of_rules([NULL, Rule(True, "b", 8, 0, READ)]))
    assert written(rules) == ["-a *:* rwm", "+b 8:0 r", "+c 1:3 rwm"]


def test_change_takes_nothing_away_that_stays():
    old = Emulator.of_rules([NULL, Rule(True, "c", 1, 5), Rule(True, "c", 1, 7, READ)])
    new = Emulator.of_rules([NULL, Rule(True, "c", 1, 5, READ), Rule(True, "c", 1, 8), Rule(True, "c", 1, 7)])
    assert written(old.transition(new)) == ["-c 1:5 wm", "+c 1:7 wm", "+c 1:8 rwm"]


def test_no_change_needs_no_write():
    state = Emulator.of_rules(from_config(None))
    assert state.transition(Emulator.of_rules(from_config(None))) == []


def test_free_cgroup_starts_over_because_its_exceptions_can_not_be_read():
    rules = Emulator(default_allow=True).transition(Emulator.of_rules([ALLOW_ALL, Rule(False, "b", 8, 0)]))
    assert written(rules) == ["+a *:* rwm", "-b 8:0 rwm"]


def test_opening_a_restricted_cgroup_is_one_write():
    assert written(Emulator.of_rules([NULL]).transition(Emulator(default_allow=True))) == ["+a *:* rwm"]
