"""ctr_common/spec/validate_linux.py: what `.linux` means, in runc's words where it has some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctr_common import resctrl
from ctr_common.errors import ConfigError
from ctr_common.spec import load, schema, validate
from ctr_common.spec.default import default_config
from tests.unit.spec.changes import (
    ONE_ID,
    Change,
    both,
    changed,
    drop,
    problems_of,
    put,
    with_namespace,
    with_user_namespace,
    without_namespace,
)

SAMPLES = Path(__file__).parents[2] / "data" / "oci-1.3.0" / "test" / "config"

ACCEPTED: dict[str, Change] = {
    "a user namespace": with_user_namespace(),
    "a joined namespace": with_namespace(type="user", path="/proc/self/ns/user"),
    "no linux section": both(drop("linux"), drop("hostname")),
    "a sysctl of the network namespace": put("linux", "sysctl", {"net.ipv4.ip_forward": "1"}),
    "a sysctl with slashes": put("linux", "sysctl", {"net/ipv4/conf/eth0.1/mtu": "1"}),
    "sysctls of the ipc namespace": put("linux", "sysctl", {"kernel.sem": "1", "fs.mqueue.msg_max": "1"}),
    "the domain name as a sysctl": put("linux", "sysctl", {"kernel.domainname": "a"}),
    "an empty seccomp profile as Go writes it": put("linux", "seccomp", {"defaultAction": ""}),
    "recursive rootfs propagation": put("linux", "rootfsPropagation", "rslave"),
    "a personality": put("linux", "personality", {"domain": "LINUX32"}),
    "a device": put("linux", "devices", [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
    "a fifo as a device": put("linux", "devices", [{"path": "/dev/pipe", "type": "p"}]),
    "time offsets": both(
        with_namespace(type="time"), put("linux", "timeOffsets", {"boottime": {"secs": -1, "nanosecs": 999999999}})
    ),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(change: Change, bundle: Path) -> None:
    assert problems_of(changed(change), bundle) == []


REFUSED: dict[str, tuple[Change, str, str]] = {
    "an unknown namespace": (
        put("linux", "namespaces", 0, "type", "foo"),
        ".linux.namespaces[0].type",
        'namespace {"foo" ""} does not exist, expected one of cgroup, ipc',
    ),
    "a namespace twice": (
        lambda config: config["linux"]["namespaces"].insert(1, {"type": "pid"}),
        ".linux.namespaces[1]",
        'malformed spec file: duplicated ns {"pid" ""}',
    ),
    "a namespace path that is not there": (
        put("linux", "namespaces", 0, "path", "/none"),
        ".linux.namespaces[0].path",
        "namespace path: lstat /none: no such file or directory",
    ),
    "a relative namespace path": (
        put("linux", "namespaces", 0, "path", "none"),
        ".linux.namespaces[0].path",
        "expected an absolute path",
    ),
    "a namespace path that is a file": (
        put("linux", "namespaces", 0, "path", "/proc/self/status"),
        ".linux.namespaces[0].path",
        "/proc/self/status is not a namespace",
    ),
    "a namespace path of another type": (
        put("linux", "namespaces", 0, "path", "/proc/self/ns/net"),
        ".linux.namespaces[0].path",
        "is a network namespace, expected a pid namespace",
    ),
    "a user namespace without mappings": (
        with_user_namespace([], ONE_ID),
        ".linux.uidMappings",
        "user namespaces enabled, but no uid mappings found",
    ),
    "mappings without a user namespace": (
        put("linux", "uidMappings", ONE_ID),
        ".linux.uidMappings",
        "user namespace isn't enabled",
    ),
    "mappings without root": (
        with_user_namespace([{"containerID": 1, "hostID": 0, "size": 9}], ONE_ID),
        ".process.user.uid",
        "unmapped user",
    ),
    "mappings that overlap inside": (
        with_user_namespace(
            [{"containerID": 0, "hostID": 0, "size": 9}, {"containerID": 8, "hostID": 99, "size": 1}], ONE_ID
        ),
        ".linux.uidMappings[1].containerID",
        "overlaps .linux.uidMappings[0]",
    ),
    "mappings that overlap outside": (
        with_user_namespace(
            ONE_ID, [{"containerID": 0, "hostID": 5, "size": 1}, {"containerID": 8, "hostID": 0, "size": 9}]
        ),
        ".linux.gidMappings[1].hostID",
        "overlaps .linux.gidMappings[0]",
    ),
    "an empty mapping": (
        with_user_namespace([*ONE_ID, {"containerID": 5, "hostID": 5, "size": 0}]),
        ".linux.uidMappings[1].size",
        "must not be 0",
    ),
    "a mapping beyond the last id": (
        with_user_namespace([*ONE_ID, {"containerID": 5, "hostID": 2**32 - 1, "size": 5}]),
        ".linux.uidMappings[1].hostID",
        "beyond 4294967294",
    ),
    "a user that is not mapped": (
        both(with_user_namespace(), put("process", "user", "uid", 7)),
        ".process.user.uid",
        "cannot set uid to unmapped user in user namespace",
    ),
    "a mount option with an id that is not mapped": (
        both(with_user_namespace(), lambda c: c["mounts"][2]["options"].append("gid=5")),
        ".mounts[2].options[5]",
        "cannot specify gid=5 mount option for unmapped gid",
    ),
    "masked paths without a mount namespace": (
        both(without_namespace("mount"), drop("linux", "readonlyPaths")),
        ".linux.maskedPaths",
        "unable to restrict sys entries without a private MNT namespace",
    ),
    "a network sysctl without a network namespace": (
        both(without_namespace("network"), put("linux", "sysctl", {"net.core.x": "1"})),
        '.linux.sysctl["net.core.x"]',
        'sysctl "net.core.x" not allowed in host network namespace',
    ),
    "a network sysctl in the host's namespace": (
        both(put("linux", "namespaces", 1, "path", "/proc/self/ns/net"), put("linux", "sysctl", {"net.core.x": "1"})),
        '.linux.sysctl["net.core.x"]',
        'sysctl "net.core.x" not allowed in host network namespace',
    ),
    "an ipc sysctl without an ipc namespace": (
        both(without_namespace("ipc"), put("linux", "sysctl", {"kernel.shmmax": "1"})),
        '.linux.sysctl["kernel.shmmax"]',
        'sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace',
    ),
    "a message queue sysctl without an ipc namespace": (
        both(without_namespace("ipc"), put("linux", "sysctl", {"fs.mqueue.msg_max": "1"})),
        '.linux.sysctl["fs.mqueue.msg_max"]',
        'sysctl "fs.mqueue.msg_max" is not allowed in the hosts ipc namespace',
    ),
    "a sysctl of the host": (
        put("linux", "sysctl", {"vm.swappiness": "1"}),
        '.linux.sysctl["vm.swappiness"]',
        'sysctl "vm.swappiness" is not in a separate kernel namespace',
    ),
    "the host name as a sysctl": (
        put("linux", "sysctl", {"kernel.hostname": "a"}),
        '.linux.sysctl["kernel.hostname"]',
        'conflicts with the OCI "hostname" field',
    ),
    "the domain name twice": (
        both(put("linux", "sysctl", {"kernel.domainname": "a"}), put("domainname", "b")),
        '.linux.sysctl["kernel.domainname"]',
        'conflicts with the OCI "domainname" field',
    ),
    "a sysctl that leads elsewhere": (
        put("linux", "sysctl", {"net/../kernel/x": "1"}),
        '.linux.sysctl["net/../kernel/x"]',
        "is not the name of a sysctl",
    ),
    "time offsets without a time namespace": (
        put("linux", "timeOffsets", {"boottime": {"secs": 1}}),
        ".linux.timeOffsets",
        "unable to set time offsets without a private time namespace",
    ),
    "a second of nanoseconds": (
        both(with_namespace(type="time"), put("linux", "timeOffsets", {"monotonic": {"nanosecs": 10**9}})),
        ".linux.timeOffsets.monotonic.nanosecs",
        "less than a second",
    ),
    "network devices without a network namespace": (
        both(without_namespace("network"), put("linux", "netDevices", {"eth0": {}})),
        ".linux.netDevices",
        "without a private NET namespace",
    ),
    "a network device with a path for a name": (
        put("linux", "netDevices", {"eth0": {"name": "../x"}}),
        ".linux.netDevices.eth0.name",
        "is not a name for a network device",
    ),
    "two network devices of one name": (
        put("linux", "netDevices", {"eth0": {"name": "a"}, "eth1": {"name": "a"}}),
        ".linux.netDevices.eth1.name",
        "is the name of .linux.netDevices.eth0 already",
    ),
    "an unknown device type": (
        put("linux", "devices", [{"path": "/dev/x", "type": "z"}]),
        ".linux.devices[0].type",
        'invalid device type "z"',
    ),
    "a device with a relative path": (
        put("linux", "devices", [{"path": "x", "type": "p"}]),
        ".linux.devices[0].path",
        "expected an absolute path",
    ),
    "a device without a number": (
        put("linux", "devices", [{"path": "/dev/x", "type": "c", "major": 1}]),
        ".linux.devices[0].minor",
        "is missing",
    ),
    "a device number out of range": (
        put("linux", "devices", [{"path": "/dev/x", "type": "b", "major": 4096, "minor": 1}]),
        ".linux.devices[0].major",
        "0 to 4095",
    ),
    "a device rule of an unknown type": (
        put("linux", "resources", "devices", [{"allow": True, "type": "p", "access": "r"}]),
        ".linux.resources.devices[0].type",
        'invalid device type "p"',
    ),
    "a device rule without access": (
        put("linux", "resources", "devices", [{"allow": True}]),
        ".linux.resources.devices[0].access",
        "device access at 0 field cannot be empty",
    ),
    "a device rule with unknown access": (
        put("linux", "resources", "devices", [{"allow": True, "access": "rx"}]),
        ".linux.resources.devices[0].access",
        "expected some of r, w, m",
    ),
    "a cgroup file with a path": (
        put("linux", "resources", "unified", {"../memory.max": "1"}),
        '.linux.resources.unified["../memory.max"]',
        "must be a file name (no slashes)",
    ),
    "an unknown seccomp action": (
        put("linux", "seccomp", {"defaultAction": "X"}),
        ".linux.seccomp.defaultAction",
        "string X is not a valid action for seccomp",
    ),
    "seccomp notification as default": (
        put("linux", "seccomp", {"defaultAction": "SCMP_ACT_NOTIFY"}),
        ".linux.seccomp.defaultAction",
        "SCMP_ACT_NOTIFY cannot be used as default action",
    ),
    "an unknown seccomp architecture": (
        put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["X"]}),
        ".linux.seccomp.architectures[0]",
        "string X is not a valid arch for seccomp",
    ),
    "an unknown seccomp flag": (
        put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}),
        ".linux.seccomp.flags[0]",
        "expected one of SECCOMP_FILTER_FLAG_LOG",
    ),
    "an unknown action of a seccomp rule": (
        put("linux", "seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "X"}]}),
        ".linux.seccomp.syscalls[0].action",
        "string X is not a valid action for seccomp",
    ),
    "an unknown operator of a seccomp rule": (
        put(
            "linux",
            "seccomp",
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 0, "op": "X"}]}],
            },
        ),
        ".linux.seccomp.syscalls[0].args[0].op",
        "is not a valid operator",
    ),
    "a path as resctrl group": (
        put("linux", "intelRdt", {"closID": "a/b"}),
        ".linux.intelRdt.closID",
        'invalid intelRdt.ClosID "a/b"',
    ),
    "an unknown personality": (
        put("linux", "personality", {"domain": "X"}),
        ".linux.personality.domain",
        "expected one of LINUX, LINUX32",
    ),
    "flags of a personality": (
        put("linux", "personality", {"domain": "LINUX", "flags": ["X"]}),
        ".linux.personality.flags",
        "no personality flags are supported",
    ),
    "an unknown memory policy": (
        put("linux", "memoryPolicy", {"mode": "X"}),
        ".linux.memoryPolicy.mode",
        "expected one of MPOL_DEFAULT",
    ),
    "an unknown memory policy flag": (
        put("linux", "memoryPolicy", {"mode": "MPOL_BIND", "flags": ["X"]}),
        ".linux.memoryPolicy.flags[0]",
        "expected one of MPOL_F",
    ),
    "an unknown rootfs propagation": (
        put("linux", "rootfsPropagation", "x"),
        ".linux.rootfsPropagation",
        "rootfsPropagation=x is not supported",
    ),
}


@pytest.mark.parametrize(("change", "path", "words"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(change: Change, path: str, words: str, bundle: Path) -> None:
    found = problems_of(changed(change), bundle)
    assert found
    assert found[0][0] == path
    assert words in found[0][1]


def test_rootless_needs_a_user_namespace(bundle: Path) -> None:
    assert problems_of(default_config(), bundle, rootless=True) == [
        (".linux.namespaces", "rootless container requires user namespaces")
    ]


def test_rootless_cannot_move_network_devices(bundle: Path) -> None:
    config = changed(both(with_user_namespace(), put("linux", "netDevices", {"eth0": {}})))
    assert problems_of(config, bundle, rootless=True) == [
        (".linux.netDevices", "network devices are not supported for rootless containers")
    ]


def test_network_devices_may_share_a_template_for_their_names(bundle: Path) -> None:
    config = changed(put("linux", "netDevices", {"a": {"name": "eth%d"}, "b": {"name": "eth%d"}}))
    assert problems_of(config, bundle) == []


@pytest.mark.parametrize("asked", [{}, {"closID": "a"}, {"memBwSchema": "MB:0=1"}])
def test_a_resctrl_group_needs_resctrl(asked: dict, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(put("linux", "intelRdt", asked))
    monkeypatch.setattr(resctrl, "find", lambda: None)
    assert problems_of(config, bundle) == [
        (".linux.intelRdt", "intelRdt is specified in config, but Intel RDT is not enabled")
    ]


def test_a_resctrl_group_can_have_what_the_host_can_divide_and_count(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resctrl, "find", lambda: resctrl.Resctrl(str(tmp_path)))
    asked = {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=10", "enableMonitoring": True, "closID": "/"}
    config = changed(put("linux", "intelRdt", asked))
    assert [path for path, _ in problems_of(config, bundle)] == [
        ".linux.intelRdt.l3CacheSchema",
        ".linux.intelRdt.memBwSchema",
        ".linux.intelRdt.enableMonitoring",
    ]
    for name in ("L3", "MB", "L3_MON"):
        (tmp_path / "info" / name).mkdir(parents=True)
    (tmp_path / "info/L3_MON/mon_features").write_text("llc_occupancy\n")
    assert problems_of(config, bundle) == []


def test_a_message_stays_on_one_line(bundle: Path) -> None:
    config = changed(put("linux", "seccomp", {"defaultAction": "a\nlevel=info"}))
    with pytest.raises(ConfigError) as caught:
        validate.check(config, str(bundle), rootless=False)
    assert "\n" not in str(caught.value)


def test_the_published_bad_page_size_is_refused(bundle: Path) -> None:
    config = load.parse((SAMPLES / "bad" / "linux-hugepage.json").read_bytes(), schema.CONFIG, "config.json")
    found = problems_of(config, bundle)
    assert (".linux.resources.hugepageLimits[0].pageSize", 'expected a size such as 2MB, got "64kB"') in found


def test_a_namespace_that_we_may_not_look_at_is_left_to_the_container(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "no")

    config = changed(put("linux", "namespaces", 0, "path", "/run/secret"))
    monkeypatch.setattr(os, "open", refuse)
    assert problems_of(config, bundle) == []
