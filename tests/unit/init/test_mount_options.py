from __future__ import annotations

import pytest

from ctr_common.kernel import constants as c
from ctr_common.spec import mount_options


def parse(*options: str) -> mount_options.MountOptions:
    return mount_options.parse(options)


def test_flags_are_told_from_data():
    options = parse("nosuid", "noexec", "mode=755", "size=64k")
    assert options.flags == c.MS_NOSUID | c.MS_NOEXEC
    assert options.data == ["mode=755", "size=64k"]


def test_a_later_option_overrides_an_earlier_one():
    assert parse("ro", "rw").flags == 0
    assert parse("ro", "rw").cleared == c.MS_RDONLY
    assert parse("rw", "ro").flags == c.MS_RDONLY
    assert parse("rw", "ro").cleared == 0


def test_defaults_changes_nothing():
    options = parse("defaults")
    assert (options.flags, options.cleared, options.data) == (0, 0, [])


def test_rbind_is_a_recursive_bind():
    assert parse("rbind").flags == c.MS_BIND | c.MS_REC


def test_propagation_keeps_its_order():
    assert parse("rprivate", "shared").propagation == [c.MS_PRIVATE | c.MS_REC, c.MS_SHARED]


def test_extensions_are_no_data():
    options = parse("tmpcopyup", "ridmap")
    assert options.tmpcopyup
    assert options.idmap == "ridmap"
    assert options.data == []


@pytest.mark.parametrize("name", sorted(mount_options.RECURSIVE))
def test_every_recursive_attribute_sets_or_clears_its_attribute(name: str):
    sets, attribute = mount_options.RECURSIVE[name]
    options = parse(name)
    if sets:
        assert options.recursive_set & attribute == attribute
    elif attribute:
        assert options.recursive_clear & attribute
    assert options.data == []


def test_a_recursive_access_time_mode_clears_the_whole_field():
    assert parse("rnoatime").recursive_clear == c.MOUNT_ATTR__ATIME
    assert parse("rnoatime", "rstrictatime").recursive_set == c.MOUNT_ATTR_STRICTATIME


def test_a_recursive_opposite_takes_the_attribute_back():
    options = parse("rro", "rrw")
    assert (options.recursive_set, options.recursive_clear) == (0, c.MOUNT_ATTR_RDONLY)


def test_a_new_mount_has_relatime_unless_told_otherwise():
    assert mount_options.attributes(0) == 0
    assert mount_options.attributes(c.MS_NOATIME) == c.MOUNT_ATTR_NOATIME
    assert mount_options.attributes(c.MS_NOATIME | c.MS_STRICTATIME) == c.MOUNT_ATTR_STRICTATIME


def test_a_bind_mount_without_flags_stays_as_its_source():
    options = parse("rbind", "rprivate")
    assert mount_options.bind_changes(options.flags, options.cleared) == (0, 0)


def test_flags_of_a_bind_mount_replace_those_of_its_source():
    options = parse("bind", "ro")
    setting, clearing = mount_options.bind_changes(options.flags, options.cleared)
    assert setting == c.MOUNT_ATTR_RDONLY
    assert clearing == c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC | c.MOUNT_ATTR_NOSYMFOLLOW


def test_a_lone_clearing_option_of_a_bind_mount_clears_that_flag_only():
    options = parse("bind", "rw")
    assert mount_options.bind_changes(options.flags, options.cleared) == (0, c.MOUNT_ATTR_RDONLY)


def test_an_access_time_option_of_a_bind_mount_replaces_the_mode():
    options = parse("bind", "noatime")
    setting, clearing = mount_options.bind_changes(options.flags, options.cleared)
    assert setting == c.MOUNT_ATTR_NOATIME
    assert clearing & c.MOUNT_ATTR__ATIME == c.MOUNT_ATTR__ATIME


@pytest.mark.parametrize(
    ("option", "source", "cleared"),
    [
        ("atime", c.MS_NOATIME, True),
        ("atime", c.MS_STRICTATIME, False),
        ("nostrictatime", c.MS_STRICTATIME, True),
        ("nostrictatime", c.MS_NOATIME, False),
        ("norelatime", c.MS_RELATIME, False),
    ],
)
def test_an_access_time_mode_is_taken_off_a_bind_mount_only_where_it_is(option: str, source: int, cleared: bool):
    options = parse("bind", option)
    changes = mount_options.bind_changes(options.flags, options.cleared, source)
    assert changes == (0, c.MOUNT_ATTR__ATIME if cleared else 0)
