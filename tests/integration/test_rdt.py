"""Intel RDT in whole containers, on a directory that looks like resctrl."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.state import CONFIG_FILE
from tests.support.bundles import Bundles, Config
from tests.support.resctrl import SCHEMATA, Resctrl
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]
covers = pytest.mark.covers


@pytest.fixture
def fake(directory: Path) -> Resctrl:
    """A host with Intel RDT."""
    return Resctrl(directory)


def asking_for(rdt: dict[str, Any]) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        config["linux"]["intelRdt"] = rdt

    return change


def state_of(container: str, fake: Resctrl) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(fake.ctrun("state", container).text)
    return state


@covers(".linux.intelRdt.l3CacheSchema", ".linux.intelRdt.memBwSchema")
def test_a_container_is_in_a_class_of_service_of_its_own(fake: Resctrl, bundle: Bundles, container_id: str):
    asked = asking_for({"l3CacheSchema": "L3:0=f;1=f", "memBwSchema": "MB:0=20;1=20"})
    fake.ctrun("create", "-b", bundle(asked), container_id).ok()
    group = fake.group(container_id)
    assert (group / "schemata").read_text() == "L3:0=f;1=f\nMB:0=20;1=20\n"
    assert (group / "tasks").read_text() == f"{state_of(container_id, fake)['pid']}\n"
    fake.ctrun("delete", "--force", container_id).ok()
    assert fake.groups() == set()


@covers(".linux.intelRdt.schemata")
def test_schemata_are_written(fake: Resctrl, bundle: Bundles, container_id: str):
    asked = asking_for({"schemata": ["L3:0=3", "MB:0=10"]})
    fake.ctrun("create", "-b", bundle(asked), container_id).ok()
    assert (fake.group(container_id) / "schemata").read_text() == "L3:0=3\nMB:0=10\n"
    fake.ctrun("delete", "--force", container_id).ok()


@covers(".linux.intelRdt.closID")
def test_an_administrators_class_of_service_is_joined_and_stays(fake: Resctrl, bundle: Bundles, container_id: str):
    gold = fake.add("gold")
    fake.ctrun("create", "-b", bundle(asking_for({"closID": "gold"})), container_id).ok()
    assert (gold / "tasks").read_text() == f"{state_of(container_id, fake)['pid']}\n"
    fake.ctrun("delete", "--force", container_id).ok()
    assert fake.groups() == {"gold"}
    assert (gold / "schemata").read_text() == SCHEMATA


def test_a_class_of_service_that_is_not_there_fails_the_creation(
    fake: Resctrl, bundle: Bundles, container_id: str, ctrun: Runtime
):
    result = fake.ctrun("create", "-b", bundle(asking_for({"closID": "gold"})), container_id)
    assert result.code == 1
    assert "clos dir not accessible" in result.err
    assert ctrun.status(container_id) == ""
    assert fake.groups() == set()


@covers(".linux.intelRdt.enableMonitoring")
def test_a_container_is_counted_alone_where_it_asks_for_it(fake: Resctrl, bundle: Bundles, container_id: str):
    gold = fake.add("gold")
    asked = asking_for({"closID": "gold", "enableMonitoring": True})
    fake.ctrun("create", "-b", bundle(asked), container_id).ok()
    tasks = gold / f"mon_groups/{container_id}/tasks"
    assert tasks.read_text() == f"{state_of(container_id, fake)['pid']}\n"
    fake.ctrun("delete", "--force", container_id).ok()
    assert list((gold / "mon_groups").iterdir()) == []


def test_a_process_of_exec_is_in_it_too(fake: Resctrl, bundle: Bundles, container_id: str):
    fake.ctrun("create", "-b", bundle(asking_for({}), args=["sleep", "100"]), container_id).ok()
    fake.ctrun("start", container_id).ok()
    tasks = fake.group(container_id) / "tasks"
    first = tasks.read_text()
    fake.ctrun("exec", container_id, "true").ok()
    assert tasks.read_text() not in ("", first)
    fake.ctrun("delete", "--force", container_id).ok()


def test_a_creation_that_fails_later_leaves_no_group(fake: Resctrl, bundle: Bundles, container_id: str):
    made = bundle(asking_for({"closID": "gold", "memBwSchema": "MB:0=20"}), args=["/no/such"])
    assert fake.ctrun("create", "-b", made, container_id).code == 1
    assert fake.groups() == set()


def test_a_host_without_rdt_refuses(fake: Resctrl, ctrun: Runtime, bundle: Bundles, container_id: str):
    fake.mountinfo.write_text("")
    result = fake.ctrun("create", "-b", bundle(asking_for({"l3CacheSchema": "L3:0=f"})), container_id)
    assert result.code == 1
    assert ".linux.intelRdt: intelRdt is specified in config, but Intel RDT is not enabled" in result.err
    assert ctrun.status(container_id) == ""


@covers("update --l3-cache-schema", "update --mem-bw-schema")
def test_update_changes_the_schemata_of_a_running_container(fake: Resctrl, bundle: Bundles, container_id: str):
    fake.ctrun("create", "-b", bundle(asking_for({"l3CacheSchema": "L3:0=f"})), container_id).ok()
    fake.ctrun("update", "--l3-cache-schema", "L3:0=3", "--mem-bw-schema", "MB:0=30", container_id).ok()
    assert (fake.group(container_id) / "schemata").read_text() == "L3:0=3\nMB:0=30\n"
    fake.ctrun("delete", "--force", container_id).ok()
    assert fake.groups() == set()


@pytest.mark.parametrize("own", [True, False])
def test_an_update_that_fails_late_leaves_the_schemata_as_they_were(
    fake: Resctrl, bundle: Bundles, container_id: str, ctrun: Runtime, own: bool
):
    change = asking_for({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}) if own else None
    fake.ctrun("create", "-b", bundle(change), container_id).ok()
    groups = fake.groups()
    schemata = fake.group(container_id) / "schemata"
    before = schemata.read_text() if own else ""
    state = Path(ctrun.state_root, container_id)
    known = state.joinpath("state.json").read_text()
    # The configuration is written last, by way of a file of this name.
    blocked = state / f"{CONFIG_FILE}.partial"
    blocked.mkdir()
    result = fake.ctrun("update", "--l3-cache-schema", "L3:0=3", container_id)
    blocked.rmdir()
    assert result.code == 1
    assert fake.groups() == groups
    assert (schemata.read_text() if own else "") == before
    assert state.joinpath("state.json").read_text() == known
    fake.ctrun("delete", "--force", container_id).ok()


def test_statistics_tell_what_the_container_uses(fake: Resctrl, bundle: Bundles, container_id: str):
    fake.ctrun(
        "create", "-b", bundle(asking_for({"l3CacheSchema": "L3:0=f"}), args=["sleep", "100"]), container_id
    ).ok()
    fake.ctrun("start", container_id).ok()
    told = json.loads(fake.ctrun("events", "--stats", container_id).text)["data"]["intel_rdt"]
    assert told["l3_cache_schema"] == "L3:0=f"
    assert told["cmt_stats"] == [{"llc_occupancy": 4096}] * 2
    fake.ctrun("delete", "--force", container_id).ok()
