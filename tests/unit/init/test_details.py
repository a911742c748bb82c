from __future__ import annotations

import pytest

from ctr_common.errors import UsageError
from ctr_common.kernel import constants as c
from ctr_init import filesystem, idmap, main, sysctl


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
        ("kernel.shmmax", "sys/kernel/shmmax"),
        ("net/ipv4/conf/eth0.100/forwarding", "sys/net/ipv4/conf/eth0.100/forwarding"),
    ],
)
def test_a_sysctl_is_found_by_both_spellings(key: str, path: str):
    assert sysctl.file_of(key) == path


def test_several_options_in_one_string_are_told_apart():
    assert filesystem.split_data(["size=1m,mode=755", "noswap"]) == ["size=1m", "mode=755", "noswap"]


def test_a_quoted_option_keeps_its_commas():
    assert filesystem.split_data(['context="a:b:c:s0,c1"']) == ['context="a:b:c:s0,c1"']


def test_options_too_long_for_fsconfig_go_through_mount():
    assert not filesystem.needs_old_call(["lowerdir=/a"], c.MS_NOSUID)
    assert filesystem.needs_old_call(["lowerdir=" + "/a:" * 200], 0)
    assert filesystem.needs_old_call([], c.MS_I_VERSION)


def test_mappings_become_lines_of_a_map():
    lines = idmap.map_text([{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 5, "size": 10}])
    assert lines == b"0 1000 1\n1 5 10\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["/bundle"],
        ["--dry-run"],
        ["--dry-run", "--pid", "1", "/bundle"],
        ["--pid", "x", "/bundle"],
        ["--pid"],
        ["--dry-run", "--format", "xml", "/bundle"],
        ["--dry-run", "/a", "/b"],
        ["--what", "/a"],
    ],
)
def test_a_wrong_command_line_is_told(argv: list[str]):
    with pytest.raises(UsageError):
        main.parse(argv)


def test_values_may_be_given_with_an_equals_sign():
    arguments = main.parse(["--dry-run", "--format=json", "/bundle"])
    assert (arguments.dry_run, arguments.format, arguments.bundle) == (True, "json", "/bundle")
