from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import manager, systemd
from ctr_supervisor.cgroups.hierarchies import Hierarchies
from tests.support import fake_systemd

UNIFIED = Hierarchies("unified", {"": "/sys/fs/cgroup"}, {"": "/"})
HYBRID = Hierarchies(
    "hybrid",
    {"cpu": "/c/cpu,cpuacct", "cpuset": "/c/cpuset", "name=systemd": "/c/systemd", "": "/c/unified"},
    {"cpu": "/", "cpuset": "/", "name=systemd": "/", "": "/"},
)
CONTROL_GROUP = "/user.slice/user-1000.slice/user@1000.service"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hierarchies], None]:
    """A host with systemd and these hierarchies."""
    monkeypatch.setattr(systemd, "require_systemd", lambda: None)
    return lambda found: monkeypatch.setattr(systemd, "hierarchies", lambda: found)


@pytest.fixture
def user_manager(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_systemd.Answer]:
    """A user's service manager."""
    with fake_systemd.running(directory, cgroups=False) as fake:
        fake.tell(control_group=CONTROL_GROUP)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", fake.address)
        yield fake


def test_scope_of_root_is_in_the_system_slice(host):
    host(UNIFIED)
    made = manager.for_container({"linux": {}}, "id1", rootless_cgroups=False, systemd=True)
    assert made.paths == {"": "/sys/fs/cgroup/system.slice/runc-id1.scope"}
    assert manager.state_of(made) == {"cgroup_paths": made.paths}


@pytest.mark.needs_command("dbus-daemon")
def test_scope_of_a_user_is_below_the_user_s_service_manager(host, user_manager):
    host(UNIFIED)
    made = manager.for_container({"linux": {}}, "id1", rootless_cgroups=True, systemd=True)
    assert made.paths == {"": f"/sys/fs/cgroup{CONTROL_GROUP}/user.slice/runc-id1.scope"}


@pytest.mark.needs_command("dbus-daemon")
def test_unit_is_in_the_state_once_it_is_there(host, user_manager):
    host(UNIFIED)
    made = manager.for_container({"linux": {}}, "id1", rootless_cgroups=True, systemd=True)
    made.unit.started = True
    state = manager.state_of(made)
    assert state["systemd"] == {"unit": "runc-id1.scope", "user": True}
    found = manager.from_paths(state["cgroup_paths"], rootless_cgroups=True, systemd=state["systemd"])
    assert (type(found), found.unit.name, found.unit.user, found.unit.started) == (
        systemd.V2,
        "runc-id1.scope",
        True,
        True,
    )


@pytest.mark.needs_command("dbus-daemon")
def test_user_has_no_units_on_v1(host, user_manager):
    host(HYBRID)
    with pytest.raises(CgroupError, match="cannot use rootless systemd cgroups manager on cgroup v1"):
        manager.for_container({"linux": {}}, "id1", rootless_cgroups=True, systemd=True)


def test_cgroup_is_at_the_same_place_in_every_hierarchy_of_v1(host):
    host(HYBRID)
    config = {"linux": {"cgroupsPath": "a-b.slice:p:x"}}
    made = manager.for_container(config, "id1", rootless_cgroups=False, systemd=True)
    assert list(made.paths) == ["cpuset", "cpu", "name=systemd", ""]
    assert made.paths["cpu"] == "/c/cpu,cpuacct/a.slice/a-b.slice/p-x.scope"


def test_unit_that_is_not_there_yet_has_nothing_to_be_born_in_or_to_enter(host):
    host(HYBRID)
    made = manager.for_container({"linux": {}}, "id1", rootless_cgroups=False, systemd=True)
    assert (made.clone_fd(), made.entry_fds(False)) == (None, None)


def test_limit_that_is_wrong_is_found_before_there_is_a_process(host):
    host(UNIFIED)
    made = manager.for_container({"linux": {}}, "id1", rootless_cgroups=False, systemd=True)
    with pytest.raises(CgroupError, match="is not a list"):
        made.set({"cpu": {"cpus": "x"}})


@pytest.mark.parametrize("name", ["", "../x.scope", "a/b.scope"])
def test_state_without_a_unit_s_name_is_refused(name):
    with pytest.raises(CgroupError, match="invalid unit name"):
        manager.from_paths({"": "/sys/fs/cgroup/x"}, rootless_cgroups=False, systemd={"unit": name})


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        (CONTROL_GROUP, 1000),
        ("/user.slice/user-0.slice/user@0.service", 0),
        ("/init.scope", 0),
        ("/user.slice/user-x.slice", 0),
        ("", 0),
    ],
)
def test_owner_of_a_cgroup_is_in_its_path(cgroup, uid):
    assert systemd.owner_of(cgroup) == uid


@pytest.mark.needs_root
def test_rootless_cgroups_of_real_root_are_of_the_manager_of_its_session(monkeypatch):
    def refuse(*, user: bool) -> None:
        pytest.fail("nobody has to be asked")

    monkeypatch.setattr(systemd, "Bus", refuse)
    assert not systemd.manages_system()
