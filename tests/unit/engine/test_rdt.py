"""ctr_supervisor/engine/rdt.py and ctr_common/resctrl.py, on a directory that looks like resctrl."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ctr_common import resctrl
from ctr_common.errors import ConfigError, CtrError, NotSupported
from ctr_supervisor.engine import rdt
from tests.support.resctrl import SCHEMATA, Resctrl, make_group, remove_group

PID = os.getpid()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resctrl:
    """A host with Intel RDT."""
    tree = Resctrl(tmp_path)
    monkeypatch.setattr(resctrl, "MOUNTINFO", str(tree.mountinfo))
    monkeypatch.setattr(rdt, "make_group", make_group)
    monkeypatch.setattr(rdt, "remove_group", remove_group)
    return tree


def applied(asked: Any, container_id: str = "c1") -> rdt.Group:
    """The group of a container that was created so."""
    group = rdt.plan(asked, container_id)
    rdt.apply(group, PID, asked)
    return group


# -- the filesystem


def test_the_mount_is_found_with_what_it_can_do(fake: Resctrl):
    found = resctrl.find()
    assert found is not None
    assert found.root == str(fake.root)
    assert (found.allocates_cache, found.allocates_bandwidth, found.software_controller) == (True, True, False)
    assert set(found.monitors) == {"llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"}


def test_bandwidth_in_megabytes_is_found_by_its_mount_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tree = Resctrl(tmp_path, "rw,cdp,mba_MBps")
    monkeypatch.setattr(resctrl, "MOUNTINFO", str(tree.mountinfo))
    found = resctrl.find()
    assert found is not None
    assert found.software_controller
    assert found.allocates_bandwidth


@pytest.mark.parametrize("text", ["", "22 1 0:21 / /mnt rw - tmpfs resctrl rw\n", "resctrl\n"])
def test_a_host_without_the_mount_has_no_rdt(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mountinfo").write_text(text)
    monkeypatch.setattr(resctrl, "MOUNTINFO", str(tmp_path / "mountinfo"))
    assert resctrl.find() is None
    with pytest.raises(NotSupported, match="intelRdt is specified in config, but Intel RDT is not enabled"):
        rdt.plan({}, "c1")


# -- schemata


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, ""),
        ({"l3CacheSchema": "L3:0=f"}, "L3:0=f\n"),
        ({"memBwSchema": "MB:0=20"}, "MB:0=20\n"),
        ({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}, "L3:0=f\nMB:0=20\n"),
        ({"l3CacheSchema": "L3:0=f\nMB:0=70", "memBwSchema": "MB:0=20"}, "L3:0=f\nMB:0=20\n"),
        ({"l3CacheSchema": "L3:0=f\nMB:0=70"}, "L3:0=f\nMB:0=70\n"),
        ({"schemata": ["L2:0=3", "MB:1=10"]}, "L2:0=3\nMB:1=10\n"),
        ({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L3:1=3"]}, "L3:0=f\nMB:0=20\nL3:1=3\n"),
    ],
)
def test_schemata_are_joined_in_the_order_of_the_specification(asked: Any, text: str):
    assert rdt.joined(asked) == text


# -- groups


def test_a_container_gets_a_class_of_service_of_its_own(fake: Resctrl):
    group = applied({"l3CacheSchema": "L3:0=f;1=f"})
    assert group.path == str(fake.group("c1"))
    assert (fake.group("c1") / "schemata").read_text() == "L3:0=f;1=f\n"
    assert (fake.group("c1") / "tasks").read_text() == f"{PID}\n"
    rdt.remove(group)
    rdt.remove(group)
    assert fake.groups() == set()


def test_without_schemata_nothing_is_written_to_them(fake: Resctrl):
    applied({})
    assert (fake.group("c1") / "schemata").read_text() == SCHEMATA


def test_an_existing_class_of_service_is_joined_and_stays(fake: Resctrl):
    gold = fake.add("gold")
    group = applied({"closID": "gold"})
    assert (gold / "tasks").read_text() == f"{PID}\n"
    assert (gold / "schemata").read_text() == SCHEMATA
    (gold / "tasks").write_text("")
    rdt.remove(group)
    assert fake.groups() == {"gold"}


def test_a_class_of_service_that_is_not_there_needs_schemata(fake: Resctrl):
    with pytest.raises(ConfigError, match="clos dir not accessible .must be pre-created when l3CacheSchema") as caught:
        applied({"closID": "gold"})
    assert caught.value.json_path == ".linux.intelRdt.closID"
    assert fake.groups() == set()


def test_a_named_class_of_service_that_is_made_goes_with_its_last_process(fake: Resctrl):
    group = applied({"closID": "gold", "memBwSchema": "MB:0=20"})
    assert (fake.group("gold") / "schemata").read_text() == "MB:0=20\n"
    rdt.remove(group)
    assert fake.groups() == {"gold"}
    (fake.group("gold") / "tasks").write_text("")
    rdt.remove(group)
    assert fake.groups() == set()


@pytest.mark.parametrize(
    "asked",
    [
        {"l3CacheSchema": "L3:0=0FFF;1=fff"},
        {"l3CacheSchema": "L3:1=fff"},
        {"memBwSchema": "MB:0=100;1=95"},
        {"schemata": ["L2:0=1"]},
    ],
)
def test_an_existing_class_of_service_may_be_described_in_other_words(asked: Any, fake: Resctrl):
    gold = fake.add("gold")
    applied({"closID": "gold", **asked})
    assert (gold / "schemata").read_text() == SCHEMATA
    assert (gold / "tasks").read_text() == f"{PID}\n"


@pytest.mark.parametrize("asked", [{"l3CacheSchema": "L3:0=ff"}, {"memBwSchema": "MB:1=50"}, {"schemata": ["L3:1=x"]}])
def test_an_existing_class_of_service_is_not_changed(asked: Any, fake: Resctrl):
    gold = fake.add("gold")
    with pytest.raises(ConfigError, match="is asked for"):
        applied({"closID": "gold", **asked})
    assert (gold / "schemata").read_text() == SCHEMATA
    assert (gold / "tasks").read_text() == ""


def test_the_root_class_of_service_can_be_chosen_and_is_never_removed(fake: Resctrl):
    group = applied({"closID": "/", "enableMonitoring": True})
    assert group.path == str(fake.root)
    assert (fake.root / "tasks").read_text() == f"{PID}\n"
    assert (fake.root / "mon_groups/c1/tasks").read_text() == f"{PID}\n"
    rdt.remove(group)
    assert fake.root.exists()
    assert not (fake.root / "mon_groups/c1").exists()


@pytest.mark.parametrize("name", ["info", "mon_groups", "mon_data"])
def test_names_of_the_kernel_are_no_groups(name: str, fake: Resctrl):
    for asked, container_id in (({}, name), ({"closID": name}, "c1")):
        with pytest.raises(ConfigError, match="cannot be the name of a class of service"):
            rdt.plan(asked, container_id)


@pytest.mark.parametrize("key", ["enableMonitoring", "enableCMT", "enableMBM"])
def test_monitoring_gets_a_group_that_goes_with_the_container(key: str, fake: Resctrl):
    gold = fake.add("gold")
    group = applied({"closID": "gold", key: True})
    assert (gold / "mon_groups/c1/tasks").read_text() == f"{PID}\n"
    rdt.remove(group)
    assert list((gold / "mon_groups").iterdir()) == []
    assert fake.groups() == {"gold"}


def test_without_monitoring_there_is_no_group_for_it(fake: Resctrl):
    applied({"enableMonitoring": False})
    assert list((fake.group("c1") / "mon_groups").iterdir()) == []


def test_a_group_that_vanishes_before_it_is_joined_is_made_again(fake: Resctrl, monkeypatch: pytest.MonkeyPatch):
    fake.add("gold")
    asked: Any = {"closID": "gold", "memBwSchema": "MB:0=100"}
    group = rdt.plan(asked, "c1")

    def vanishing(path: str) -> None:
        if group.path == path and (fake.group("gold")).exists():
            remove_group(path)
            monkeypatch.setattr(rdt, "make_group", make_group)
            raise FileExistsError(errno.EEXIST, "there a moment ago")

    monkeypatch.setattr(rdt, "make_group", vanishing)
    rdt.apply(group, PID, asked)
    assert (fake.group("gold") / "tasks").read_text() == f"{PID}\n"


def test_what_the_kernel_refuses_is_told_with_its_own_reason(fake: Resctrl, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: str) -> None:
        (fake.root / "info/last_cmd_status").write_text("Out of CLOSIDs\n")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rdt, "make_group", refuse)
    with pytest.raises(CtrError) as caught:
        applied({})
    assert str(caught.value) == (
        f"unable to apply Intel RDT configuration: {fake.group('c1')} (last_cmd_status: Out of CLOSIDs): "
        "no space left on device"
    )


def test_the_group_comes_back_from_the_state(fake: Resctrl):
    group = rdt.plan({"closID": "gold", "memBwSchema": "MB:0=10", "enableMonitoring": True}, "c1")
    state = group.as_state()
    assert state["intel_rdt_path"] == str(fake.group("gold"))
    again = rdt.from_state({"id": "c1", **state})
    assert again is not None
    assert again.as_state() == state
    assert rdt.from_state({"id": "c1"}) is None


def test_a_process_of_exec_joins_where_the_container_is(fake: Resctrl):
    group = applied({"enableMonitoring": True})
    rdt.join(group.as_state(), 4711)
    assert (fake.group("c1") / "tasks").read_text() == "4711\n"
    assert (fake.group("c1") / "mon_groups/c1/tasks").read_text() == "4711\n"
    rdt.remove(group)
    rdt.join(group.as_state(), 4711)
    assert fake.groups() == set()


# -- update


def test_update_changes_one_schema_and_keeps_the_other(fake: Resctrl):
    asked: Any = {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}
    group = applied(asked)
    changed, same = rdt.update(asked, group, "c1", PID, l3_cache="L3:0=3")
    assert changed == {"l3CacheSchema": "L3:0=3", "memBwSchema": "MB:0=20"}
    assert same is group
    assert (fake.group("c1") / "schemata").read_text() == "L3:0=3\n"


def test_update_gives_a_container_without_a_group_one_of_its_own(fake: Resctrl):
    changed, group = rdt.update({}, None, "c1", PID, mem_bw="MB:0=30")
    assert changed == {"memBwSchema": "MB:0=30"}
    assert group.path == str(fake.group("c1"))
    assert (fake.group("c1") / "tasks").read_text() == f"{PID}\n"
    assert (fake.group("c1") / "schemata").read_text() == "MB:0=30\n"


def test_a_refused_update_leaves_no_new_group(fake: Resctrl, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise CtrError("refused", errno=errno.EINVAL)

    monkeypatch.setattr(rdt, "set_schemata", refuse)
    with pytest.raises(CtrError, match="refused"):
        rdt.update({}, None, "c1", PID, mem_bw="MB:0=x")
    assert fake.groups() == set()


@pytest.mark.parametrize(
    ("directory", "arguments", "text"),
    [
        ("L3", {"l3_cache": "L3:0=f"}, "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("MB", {"mem_bw": "MB:0=10"}, "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ],
)
def test_update_needs_what_it_changes(directory: str, arguments: dict, text: str, fake: Resctrl):
    remove_group(str(fake.root / "info" / directory))
    with pytest.raises(NotSupported, match=text):
        rdt.update({}, None, "c1", PID, **arguments)


# -- statistics


def test_statistics_have_the_keys_of_runc(fake: Resctrl):
    group = applied({"l3CacheSchema": "L3:0=f;1=f", "memBwSchema": "MB:0=20;1=20"})
    bandwidth = {"mbm_total_bytes": 1000, "mbm_local_bytes": 600}
    assert rdt.statistics(group) == {
        "l3_cache_info": {"cbm_mask": "fff", "min_cbm_bits": 2, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fff;1=fff",
        "l3_cache_schema": "L3:0=f;1=f",
        "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": "MB:0=20;1=20",
        "mbm_stats": [bandwidth, bandwidth],
        "cmt_stats": [{"llc_occupancy": 4096}, {"llc_occupancy": 4096}],
    }


def test_a_monitored_container_is_counted_alone(fake: Resctrl):
    fake.add("gold")
    group = applied({"closID": "gold", "enableMonitoring": True})
    own = fake.group("gold") / "mon_groups/c1/mon_data/mon_L3_00"
    (own / "llc_occupancy").write_text("7\n")
    assert rdt.statistics(group)["cmt_stats"] == [{"llc_occupancy": 7}, {"llc_occupancy": 4096}]


def test_a_counter_without_a_value_is_left_out(fake: Resctrl):
    group = applied({})
    data = fake.group("c1") / "mon_data/mon_L3_00"
    (data / "mbm_total_bytes").write_text("Unavailable\n")
    (data / "mbm_local_bytes").write_text("Error\n")
    assert rdt.statistics(group)["mbm_stats"][0] == {}


def test_what_the_host_lacks_is_not_in_the_statistics(fake: Resctrl):
    group = applied({})
    for name in ("L3", "MB", "L3_MON"):
        remove_group(str(fake.root / "info" / name))
    assert rdt.statistics(group) == {}
