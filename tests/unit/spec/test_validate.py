"""ctr_common/spec/validate*.py: what a configuration means, in runc's words where it has some.

A long file: it is mostly tables of configurations, one for each rule, that are best read together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common import resctrl
from ctr_common.errors import ConfigError, UsageError
from ctr_common.spec import load, schema, validate, validate_process
from ctr_common.spec.default import default_config

SAMPLES = Path(__file__).parents[2] / "data" / "oci-1.3.0" / "test" / "config"

Change = Callable[[dict[str, Any]], object]
ONE_ID = [{"containerID": 0, "hostID": 1000, "size": 1}]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs").mkdir()
    return tmp_path.resolve()


def changed(change: Change) -> Any:
    config: Any = default_config()
    change(config)
    return config


def problems_of(config: Any, bundle: Path, rootless: bool = False) -> list[tuple[str, str]]:
    try:
        validate.check(config, str(bundle), rootless=rootless)
    except ConfigError as error:
        found: list[tuple[str, str]] = error.__dict__["problems"]
        return found
    return []


def put(*keys: Any) -> Change:
    """Sets the value at the end of a path of keys, making objects on the way."""
    *way, last, value = keys

    def change(config: dict[str, Any]) -> None:
        target: Any = config
        for key in way:
            target = target[key] if isinstance(target, list) else target.setdefault(key, {})
        target[last] = value

    return change


def drop(*keys: Any) -> Change:
    def change(config: Any) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return change


def without_namespace(kind: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [entry for entry in config["linux"]["namespaces"] if entry["type"] != kind]

    return change


def with_namespace(**entry: str) -> Change:
    return lambda config: config["linux"]["namespaces"].append(entry)


def with_user_namespace(uids: Any = ONE_ID, gids: Any = ONE_ID) -> Change:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"].update(uidMappings=uids, gidMappings=gids)
        config["mounts"][2]["options"].remove("gid=5")

    return change


def both(*changes: Change) -> Change:
    def change(config: dict[str, Any]) -> None:
        for one in changes:
            one(config)

    return change


def test_the_default_configuration_is_fine(bundle: Path) -> None:
    assert validate.check(default_config(), str(bundle), rootless=False) == []


def test_the_rootless_default_configuration_is_fine(bundle: Path) -> None:
    assert validate.check(default_config(rootless=True), str(bundle), rootless=True) == []


ACCEPTED: dict[str, Change] = {
    "a pre-release version": put("ociVersion", "1.0.2-dev"),
    "a version with build metadata": put("ociVersion", "1.2.0+dev"),
    "a user namespace": with_user_namespace(),
    "a joined namespace": with_namespace(type="user", path="/proc/self/ns/user"),
    "no linux section": both(drop("linux"), drop("hostname")),
    "a mount over the same destination": lambda c: c["mounts"].append({**c["mounts"][1], "source": "other"}),
    "a sysctl of the network namespace": put("linux", "sysctl", {"net.ipv4.ip_forward": "1"}),
    "a sysctl with slashes": put("linux", "sysctl", {"net/ipv4/conf/eth0.1/mtu": "1"}),
    "sysctls of the ipc namespace": put("linux", "sysctl", {"kernel.sem": "1", "fs.mqueue.msg_max": "1"}),
    "the domain name as a sysctl": put("linux", "sysctl", {"kernel.domainname": "a"}),
    "an unlimited rlimit": put("process", "rlimits", [{"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}]),
    "an empty seccomp profile as Go writes it": put("linux", "seccomp", {"defaultAction": ""}),
    "recursive rootfs propagation": put("linux", "rootfsPropagation", "rslave"),
    "a hook with a timeout": put("hooks", {"prestart": [{"path": "/bin/true", "timeout": 1}]}),
    "an unknown kind of hook": put("hooks", {"later": {"path": 1}}),
    "a deadline": put("process", "scheduler", {"policy": "SCHED_DEADLINE", "runtime": 1, "period": 2, "deadline": 2}),
    "a real-time priority": put("process", "scheduler", {"policy": "SCHED_FIFO", "priority": 10}),
    "an io priority": put("process", "ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 7}),
    "a personality": put("linux", "personality", {"domain": "LINUX32"}),
    "a device": put("linux", "devices", [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
    "a fifo as a device": put("linux", "devices", [{"path": "/dev/pipe", "type": "p"}]),
    "time offsets": both(
        with_namespace(type="time"), put("linux", "timeOffsets", {"boottime": {"secs": -1, "nanosecs": 999999999}})
    ),
    "an idmapped mount": lambda c: c["mounts"].append(
        {"destination": "/x", "source": "/", "options": ["bind"], "uidMappings": ONE_ID, "gidMappings": ONE_ID}
    ),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_it_accepts(change: Change, bundle: Path) -> None:
    assert problems_of(changed(change), bundle) == []


REFUSED: dict[str, tuple[Change, str, str]] = {
    "a version that is none": (put("ociVersion", "1.0"), ".ociVersion", 'a semantic version such as 1.3.0, got "1.0"'),
    "a later major version": (
        put("ociVersion", "2.0.0"),
        ".ociVersion",
        "version 2.0.0 is not supported, expected 1.x",
    ),
    "no process": (drop("process"), ".process", "process property must not be empty"),
    "no args": (drop("process", "args"), ".process.args", "args must not be empty"),
    "empty args": (put("process", "args", []), ".process.args", "args must not be empty"),
    "no cwd": (drop("process", "cwd"), ".process.cwd", "Cwd property must not be empty"),
    "a relative cwd": (put("process", "cwd", "tmp"), ".process.cwd", "Cwd must be an absolute path"),
    "an environment entry without =": (put("process", "env", ["A=1", "B"]), ".process.env[1]", 'variable: "B"'),
    "an environment entry without a name": (put("process", "env", ["=1"]), ".process.env[0]", "name can't be empty"),
    "an unknown rlimit": (
        put("process", "rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
        ".process.rlimits[0].type",
        "wrong rlimit value: RLIMIT_X",
    ),
    "an rlimit twice": (
        lambda c: c["process"]["rlimits"].append(c["process"]["rlimits"][0]),
        ".process.rlimits[1]",
        "RLIMIT_NOFILE is set by .process.rlimits[0] already",
    ),
    "a soft limit above the hard one": (
        put("process", "rlimits", 0, "soft", 2000),
        ".process.rlimits[0].soft",
        "2000 is above the hard limit 1024",
    ),
    "an oom score out of range": (put("process", "oomScoreAdj", 1001), ".process.oomScoreAdj", "-1000 to 1000"),
    "a giant console": (
        put("process", "consoleSize", {"height": 1, "width": 65536}),
        ".process.consoleSize.width",
        "0 to 65535",
    ),
    "the id that is none": (put("process", "user", "uid", 2**32 - 1), ".process.user.uid", "means no id"),
    "the group that is none": (
        put("process", "user", "additionalGids", [1, 2**32 - 1]),
        ".process.user.additionalGids[1]",
        "means no id",
    ),
    "an unknown scheduler": (
        put("process", "scheduler", {"policy": "SCHED_X"}),
        ".process.scheduler.policy",
        "expected one of SCHED_OTHER",
    ),
    "a real-time policy without priority": (
        put("process", "scheduler", {"policy": "SCHED_RR"}),
        ".process.scheduler.priority",
        "needs a priority from 1 to 99",
    ),
    "a priority for a normal policy": (
        put("process", "scheduler", {"policy": "SCHED_BATCH", "priority": 1}),
        ".process.scheduler.priority",
        "can only be specified for SCHED_FIFO or SCHED_RR policy",
    ),
    "a deadline for a normal policy": (
        put("process", "scheduler", {"policy": "SCHED_OTHER", "deadline": 1}),
        ".process.scheduler.deadline",
        "can only be specified for SCHED_DEADLINE policy",
    ),
    "a nice value out of range": (
        put("process", "scheduler", {"policy": "SCHED_OTHER", "nice": 20}),
        ".process.scheduler.nice",
        "-20 to 19",
    ),
    "an unknown scheduler flag": (
        put("process", "scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}),
        ".process.scheduler.flags[0]",
        "expected one of",
    ),
    "an unknown io class": (
        put("process", "ioPriority", {"class": "X"}),
        ".process.ioPriority.class",
        "expected one of IOPRIO_CLASS_RT",
    ),
    "an io priority out of range": (
        put("process", "ioPriority", {"class": "IOPRIO_CLASS_RT", "priority": 8}),
        ".process.ioPriority.priority",
        "invalid ioPriority.Priority: 8",
    ),
    "no root": (drop("root"), ".root", "root must be specified"),
    "an empty root": (put("root", "path", ""), ".root.path", "must not be empty"),
    "a root that is not there": (put("root", "path", "none"), ".root.path", "/none: no such file or directory"),
    "a hostname without uts": (
        without_namespace("uts"),
        ".hostname",
        "unable to set hostname without a private UTS namespace",
    ),
    "a domainname without uts": (
        both(without_namespace("uts"), drop("hostname"), put("domainname", "a")),
        ".domainname",
        "unable to set domainname without a private UTS namespace",
    ),
    "a hostname that is too long": (put("hostname", "x" * 65), ".hostname", "longer than 64 bytes"),
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
    "the same mount twice": (
        lambda c: c["mounts"].append(dict(c["mounts"][0])),
        ".mounts[7]",
        "is the same mount as .mounts[0], on /proc",
    ),
    "a mount without a destination": (
        put("mounts", 0, "destination", ""),
        ".mounts[0].destination",
        "must not be empty",
    ),
    "a bind mount without a source": (
        lambda c: c["mounts"].append({"destination": "/x", "options": ["rbind"]}),
        ".mounts[7].source",
        "is missing",
    ),
    "an idmapped mount that is not a bind mount": (
        both(put("mounts", 0, "uidMappings", ONE_ID), put("mounts", 0, "gidMappings", ONE_ID)),
        ".mounts[0]",
        "id-mapped mounts must be bind mounts",
    ),
    "a mount with half of an id map": (
        lambda c: c["mounts"].append({"destination": "/x", "source": "/", "options": ["bind"], "uidMappings": ONE_ID}),
        ".mounts[7].gidMappings",
        "id-mapped mounts must specify both",
    ),
    "a hook with a relative path": (
        put("hooks", {"poststop": [{"path": "a"}]}),
        ".hooks.poststop[0].path",
        "expected an absolute path",
    ),
    "a hook without time": (
        put("hooks", {"prestart": [{"path": "/a", "timeout": 0}]}),
        ".hooks.prestart[0].timeout",
        "above 0, got 0",
    ),
    "an annotation without a key": (put("annotations", {"": "x"}), '.annotations[""]', "must not be empty"),
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


def test_a_root_that_is_a_file_is_refused(bundle: Path) -> None:
    (bundle / "file").touch()
    ((path, message),) = problems_of(changed(put("root", "path", "file")), bundle)
    assert (path, message) == (".root.path", f"invalid rootfs: {bundle}/file is not a directory")


@pytest.mark.parametrize("absolute", [False, True])
def test_a_root_that_is_a_symlink_is_refused(bundle: Path, absolute: bool) -> None:
    (bundle / "link").symlink_to("rootfs")
    name = str(bundle / "link") if absolute else "link"
    ((path, message),) = problems_of(changed(put("root", "path", name)), bundle)
    assert (path, message) == (".root.path", "invalid rootfs: not an absolute path, or a symlink")


def test_a_root_below_a_symlinked_directory_is_refused(bundle: Path) -> None:
    (bundle / "real").mkdir()
    (bundle / "real" / "rootfs").mkdir()
    (bundle / "link").symlink_to("real")
    assert problems_of(changed(put("root", "path", "link/rootfs")), bundle)


def test_the_bundle_itself_may_be_reached_by_a_symlink(bundle: Path) -> None:
    link = bundle / "link"
    link.symlink_to(bundle)
    assert problems_of(default_config(), link) == []
    assert validate.rootfs_path(default_config(), str(link)) == str(bundle / "rootfs")


def test_an_unclean_root_path_is_made_clean(bundle: Path) -> None:
    config = changed(put("root", "path", f"../{bundle.name}//rootfs/."))
    assert problems_of(config, bundle) == []
    assert validate.rootfs_path(config, str(bundle)) == str(bundle / "rootfs")


def test_a_root_elsewhere_is_taken_from_its_absolute_path(bundle: Path) -> None:
    (bundle / "sub").mkdir()
    config = changed(put("root", "path", str(bundle / "rootfs")))
    assert problems_of(config, bundle / "sub") == []


def test_rootless_needs_a_user_namespace(bundle: Path) -> None:
    assert problems_of(default_config(), bundle, rootless=True) == [
        (".linux.namespaces", "rootless container requires user namespaces")
    ]


def test_rootless_cannot_set_groups_with_one_mapped_group(bundle: Path) -> None:
    config = changed(both(with_user_namespace(), put("process", "user", "additionalGids", [0])))
    assert problems_of(config, bundle, rootless=True) == [
        (".process.user.additionalGids", "cannot set any additional groups in a rootless container")
    ]
    assert problems_of(config, bundle) == []


def test_rootless_cannot_move_network_devices(bundle: Path) -> None:
    config = changed(both(with_user_namespace(), put("linux", "netDevices", {"eth0": {}})))
    assert problems_of(config, bundle, rootless=True) == [
        (".linux.netDevices", "network devices are not supported for rootless containers")
    ]


def test_labels_need_a_security_module(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(both(put("process", "selinuxLabel", "a:b"), put("process", "apparmorProfile", "p")))
    for on in (True, False):
        monkeypatch.setattr(validate_process, "selinux_enabled", lambda on=on: on)
        monkeypatch.setattr(validate_process, "apparmor_enabled", lambda on=on: on)
        paths = [path for path, _ in problems_of(config, bundle)]
        assert paths == ([] if on else [".process.selinuxLabel", ".process.apparmorProfile"])


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


def test_unknown_capabilities_are_a_warning(bundle: Path) -> None:
    config = changed(put("process", "capabilities", "bounding", ["CAP_NEW", "CAP_KILL"]))
    assert validate.check(config, str(bundle), rootless=False) == [
        ".process.capabilities: ignoring unknown or unavailable capabilities: CAP_NEW"
    ]


def test_a_relative_mount_destination_is_a_warning(bundle: Path) -> None:
    config = changed(put("mounts", 0, "destination", "proc"))
    assert validate.check(config, str(bundle), rootless=False) == [
        '.mounts[0].destination: "proc" is not absolute, taken as /proc'
    ]


def test_a_message_stays_on_one_line(bundle: Path) -> None:
    config = changed(put("linux", "seccomp", {"defaultAction": "a\nlevel=info"}))
    with pytest.raises(ConfigError) as caught:
        validate.check(config, str(bundle), rootless=False)
    assert "\n" not in str(caught.value)


def test_a_process_of_exec_is_checked_with_its_container() -> None:
    config = changed(with_user_namespace())
    process: Any = {"args": ["sh"], "cwd": "/", "user": {"uid": 7}, "env": ["X"]}
    with pytest.raises(ConfigError) as caught:
        validate.check_process(process, config, rootless=False)
    paths = [path for path, _ in caught.value.__dict__["problems"]]
    assert paths == [".env[0]", ".user.uid"]


def test_the_published_bad_page_size_is_refused(bundle: Path) -> None:
    config = load.parse((SAMPLES / "bad" / "linux-hugepage.json").read_bytes(), schema.CONFIG, "config.json")
    found = problems_of(config, bundle)
    assert (".linux.resources.hugepageLimits[0].pageSize", 'expected a size such as 2MB, got "64kB"') in found


@pytest.mark.parametrize("container_id", ["a", "A-1_b.c+d", "-x", "...", "a" * 255])
def test_an_id_of_letters_digits_and_a_few_others_is_fine(container_id: str) -> None:
    validate.validate_id(container_id)


@pytest.mark.parametrize("container_id", ["a/b", ".", "..", "a b", "ä", "a:b", "a\n", "../a", "a\0"])
def test_another_id_is_refused(container_id: str) -> None:
    with pytest.raises(UsageError, match="invalid container ID format: "):
        validate.validate_id(container_id)


def test_an_empty_id_has_runcs_words() -> None:
    with pytest.raises(UsageError, match="container id cannot be empty"):
        validate.validate_id("")


def test_an_id_that_cannot_be_a_directory_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than 255"):
        validate.validate_id("a" * 256)


def test_a_namespace_that_we_may_not_look_at_is_left_to_the_container(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "no")

    config = changed(put("linux", "namespaces", 0, "path", "/run/secret"))
    monkeypatch.setattr(os, "open", refuse)
    assert problems_of(config, bundle) == []
