from __future__ import annotations

from pathlib import Path
from typing import Any

from ctr_common.kernel import constants as c
from ctr_init import steps
from ctr_init.main import configured_flags, plan_for
from tests.support.bundles import default_config

Config = dict[str, Any]


def described(config: Config) -> list[dict[str, str]]:
    plan = plan_for(config, "/bundle", 0, -1, configured_flags(config))  # type: ignore[arg-type]
    plan.console = bool(config["process"]["terminal"])
    return steps.describe(plan)


def names(config: Config) -> list[str]:
    return list(dict.fromkeys(entry["step"] for entry in described(config)))


def details(config: Config, step: str) -> list[str]:
    return [entry["detail"] for entry in described(config) if entry["step"] == step]


def test_the_steps_of_the_default_configuration_stand_in_their_order():
    assert names(default_config()) == [
        "join namespaces",
        "set root propagation",
        "bind root filesystem",
        "bring up loopback",
        "mount",
        "make device",
        "link in /dev",
        "prestart and createRuntime hooks",
        "change root",
        "make root read-only",
        "set host name",
        "make path read-only",
        "mask path",
        "report",
    ]


def test_every_mount_names_its_place_in_the_configuration():
    entries = [entry for entry in described(default_config()) if entry["step"] == "mount"]
    assert [entry["json_path"] for entry in entries] == [f".mounts[{index}]" for index in range(7)]
    assert entries[0]["detail"] == "proc on /proc"
    assert entries[5]["detail"] == "sysfs on /sys (nosuid,noexec,nodev,ro)"


def test_a_relative_bind_source_starts_at_the_bundle():
    config = default_config()
    config["mounts"] = [{"destination": "/data/../x//y", "type": "none", "source": "data", "options": ["bind"]}]
    assert details(config, "mount") == ["/bundle/data on /x/y (bind)"]


def test_a_configured_device_takes_the_place_of_a_default_one():
    config = default_config()
    config["linux"]["devices"] = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}]
    assert [line for line in details(config, "make device") if "null" in line] == ["/dev/null c 1:3 0600"]


def test_a_bind_mounted_dev_gets_no_devices():
    config = default_config()
    config["mounts"] = [{"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]}]
    assert details(config, "make device") == []
    assert details(config, "link in /dev") == []


def test_without_a_mount_namespace_nothing_is_mounted():
    config = default_config()
    config["linux"]["namespaces"] = [{"type": "pid"}, {"type": "uts"}]
    assert names(config) == ["join namespaces", "prestart and createRuntime hooks", "set host name", "report"]


def test_with_a_user_namespace_the_mount_namespace_is_joined_first_and_sources_are_opened_before_the_rest():
    config = default_config()
    config["linux"]["namespaces"].append({"type": "user"})
    config["mounts"].append({"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind"]})
    plan = plan_for(config, "/bundle", 0, -1, configured_flags(config))  # type: ignore[arg-type]
    plan.rootless = False
    found = [entry["step"] for entry in steps.describe(plan)]
    first, opened, rest = (
        found.index(name) for name in ("join namespaces", "open bind source", "join other namespaces")
    )
    assert first < opened < rest < found.index("mount")


def test_a_joined_network_namespace_keeps_its_loopback():
    config = default_config()
    for entry in config["linux"]["namespaces"]:
        if entry["type"] == "network":
            entry["path"] = "/proc/1/ns/net"
    assert details(config, "bring up loopback") == []


def test_a_terminal_tells_its_size():
    config = default_config()
    plan = plan_for(config, "/bundle", 0, -1, configured_flags(config))  # type: ignore[arg-type]
    plan.console = True
    plan.console_size = (80, 24)
    found = [entry["detail"] for entry in steps.describe(plan) if entry["step"] == "allocate terminal"]
    assert found == ["pair from /dev/pts, slave on /dev/console, 80x24"]


def test_all_mounts_are_described_with_one_parse(tmp_path: Path):
    config = default_config()
    plan = plan_for(config, str(tmp_path), 0, -1, c.CLONE_NEWNS)  # type: ignore[arg-type]
    steps.describe(plan)
    assert plan.requests is not None
    assert len(plan.requests) == len(config["mounts"])
