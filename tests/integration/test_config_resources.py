"""Devices and resources of config.json: nodes and rules tried from inside, limits read back from the cgroups."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Config
from tests.support.inside import Inside, Living, as_root_of_the_host, changed, namespaces

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

covers = pytest.mark.covers
RESOURCES = ".linux.resources"


def resources(**sections: Any) -> dict[str, Any]:
    return {"linux": {"resources": sections}}


# -- device nodes

DEVICE = ".linux.devices[]"


def with_devices(*devices: dict[str, Any]) -> dict[str, Any]:
    return {"linux": {"devices": list(devices)}}


@covers(*(f"{DEVICE}.{key}" for key in ("type", "path", "major", "minor", "fileMode", "uid", "gid")))
@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("c", "character special file a:e5 640 5:6"),
        ("u", "character special file a:e5 640 5:6"),
        ("b", "block special file a:e5 640 5:6"),
        ("p", "fifo 0:0 640 5:6"),
    ],
)
def test_a_device_is_made_as_it_is_described(inside: Inside, kind: str, seen: str):
    device = {"path": "/dev/below/it", "type": kind, "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6}
    change = with_devices(device)
    runc = kind not in "u"  # which 1.1 does not know for nodes
    assert inside("stat", "-c", "%F %t:%T %a %u:%g", "/dev/below/it", change=change, runc=runc) == seen


@covers(f"{DEVICE}.fileMode", f"{DEVICE}.uid", f"{DEVICE}.gid")
def test_a_device_without_mode_and_owner_is_everybody_s(inside: Inside):
    change = with_devices({"path": "/dev/it", "type": "c", "major": 1, "minor": 3})
    assert inside("stat", "-c", "%a %u:%g", "/dev/it", change=change, runc=True) == "666 0:0"


@covers(f"{DEVICE}.path")
def test_a_configured_device_takes_the_place_of_a_default_one(inside: Inside):
    change = with_devices({"path": "/dev/zero", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600})
    assert inside("stat", "-c", "%t:%T %a", "/dev/zero", change=change) == "1:7 600"


@covers(f"{DEVICE}.path", f"{DEVICE}.type")
def test_a_device_of_a_user_namespace_is_the_host_s(inside: Inside):
    def change(config: Config) -> None:
        mappings = [{"containerID": 0, "hostID": 100000, "size": 1000}]
        config["linux"].update(
            namespaces=namespaces("pid", "network", "ipc", "uts", "mount", "user"),
            uidMappings=mappings,
            gidMappings=mappings,
            devices=[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        )

    status = os.stat("/dev/fuse")
    number = f"{os.major(status.st_rdev):x}:{os.minor(status.st_rdev):x}"
    mode = oct(stat.S_IMODE(status.st_mode))[2:]
    assert inside("stat", "-c", "%t:%T %a", "/dev/fuse", change=change) == f"{number} {mode}"


@covers(".linux.devices[].type")
def test_the_default_devices_are_there(inside: Inside):
    names = ["null", "zero", "full", "random", "urandom", "tty"]
    files = [f"/dev/{name}" for name in names]
    seen = inside("stat", "-c", "%t:%T %a", *files, runc=True).split()
    assert seen[::2] == ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]
    assert set(seen[1::2]) == {"666"}


# -- device rules: which of them lets a process read, write or make /dev/it, which is like /dev/fuse

DENY = {"allow": False, "access": "rwm"}
RULES = [
    ([DENY], ""),
    ([DENY, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}], "rw"),
    ([DENY, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}], "r"),
    ([DENY, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "w"}], "w"),
    ([DENY, {"allow": True, "type": "c", "major": 10, "minor": 228, "access": "rw"}], ""),
    ([DENY, {"allow": True, "type": "c", "major": 11, "minor": 229, "access": "rw"}], ""),
    ([DENY, {"allow": True, "type": "b", "major": 10, "minor": 229, "access": "rw"}], ""),
    ([DENY, {"allow": True, "type": "c", "major": 10, "access": "rw"}], "rw"),
    ([DENY, {"allow": True, "type": "c", "access": "r"}], "r"),
    ([DENY, {"allow": True, "access": "rwm"}], "rw"),
    ([{"allow": True, "access": "rwm"}], "rw"),
    ([{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"}], "r"),
]


@covers(*(f"{RESOURCES}.devices[].{key}" for key in ("allow", "type", "major", "minor", "access")))
@pytest.mark.parametrize(("rules", "may"), RULES, ids=[f"{i}-{may or 'none'}" for i, (_, may) in enumerate(RULES)])
@pytest.mark.needs_file("/dev/fuse")
def test_a_device_can_be_opened_as_far_as_rules_allow(inside: Inside, rules: list[dict[str, Any]], may: str):
    device = {"path": "/dev/it", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}
    script = "(: </dev/it) 2>/dev/null && printf r; (: >/dev/it) 2>/dev/null && printf w; echo"
    assert inside.shell(script, [with_devices(device), resources(devices=rules)], runc=True) == may


@covers(f"{RESOURCES}.devices[].access")
def test_making_a_node_is_always_allowed(inside: Inside):
    change = [as_root_of_the_host, resources(devices=[DENY])]
    seen = inside.result("sh", "-c", "mknod /dev/made b 7 250 && (: </dev/made) 2>&1", change=change, runc=True)
    assert seen.out.endswith("can't open /dev/made: Operation not permitted\n")


# -- limits, on cgroup v1

v1 = pytest.mark.needs_cgroup_v1


@pytest.fixture(scope="session")
def disk() -> Iterator[str]:
    """Major and minor number of a disk."""
    line = next(line.split() for line in Path("/proc/partitions").read_text().splitlines()[2:] if line)
    yield f"{line[0]}:{line[1]}"


def read(container: Living, controller: str, file: str) -> str:
    return (container.cgroup(controller) / file).read_text().strip()


M = 1 << 20
# property, section of the resources, controller, file, what is in it
FILES: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("cpu.shares", {"cpu": {"shares": 333}}, "cpu", "cpu.shares", "333"),
    ("cpu.quota", {"cpu": {"quota": 30000}}, "cpu", "cpu.cfs_quota_us", "30000"),
    ("cpu.period", {"cpu": {"period": 50000}}, "cpu", "cpu.cfs_period_us", "50000"),
    ("cpu.burst", {"cpu": {"quota": 30000, "burst": 10000}}, "cpu", "cpu.cfs_burst_us", "10000"),
    ("cpu.realtimeRuntime", {"cpu": {"realtimeRuntime": 5000}}, "cpu", "cpu.rt_runtime_us", "5000"),
    (
        "cpu.realtimePeriod",
        {"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 500000}},
        "cpu",
        "cpu.rt_period_us",
        "500000",
    ),
    ("cpu.idle", {"cpu": {"idle": 1}}, "cpu", "cpu.idle", "1"),
    ("cpu.cpus", {"cpu": {"cpus": "1"}}, "cpuset", "cpuset.cpus", "1"),
    ("cpu.mems", {"cpu": {"mems": "0"}}, "cpuset", "cpuset.mems", "0"),
    ("memory.limit", {"memory": {"limit": 64 * M}}, "memory", "memory.limit_in_bytes", str(64 * M)),
    ("memory.reservation", {"memory": {"reservation": 32 * M}}, "memory", "memory.soft_limit_in_bytes", str(32 * M)),
    (
        "memory.swap",
        {"memory": {"limit": 64 * M, "swap": 96 * M}},
        "memory",
        "memory.memsw.limit_in_bytes",
        str(96 * M),
    ),
    ("memory.swappiness", {"memory": {"swappiness": 7}}, "memory", "memory.swappiness", "7"),
    ("memory.useHierarchy", {"memory": {"useHierarchy": True}}, "memory", "memory.use_hierarchy", "1"),
    ("pids.limit", {"pids": {"limit": 17}}, "pids", "pids.max", "17"),
]


@v1
@covers(f"{RESOURCES}.{{name}}")
@pytest.mark.parametrize(("name", "section", "controller", "file", "value"), FILES, ids=[entry[0] for entry in FILES])
def test_a_limit_is_in_the_cgroup(
    inside: Inside, name: str, section: dict[str, Any], controller: str, file: str, value: str
):
    with inside.running(change=resources(**section)) as container:
        assert read(container, controller, file) == value


@v1
@covers(f"{RESOURCES}.memory.disableOOMKiller")
@pytest.mark.parametrize(("value", "seen"), [(True, "1"), (False, "0"), (None, "0")])
def test_the_oom_killer_is_switched_off(inside: Inside, value: bool | None, seen: str):
    with inside.running(change=resources(memory={"disableOOMKiller": value})) as container:
        assert read(container, "memory", "memory.oom_control").splitlines()[0] == f"oom_kill_disable {seen}"


@v1
@covers(f"{RESOURCES}.memory.limit", ".linux.cgroupsPath")
def test_a_process_above_its_memory_is_killed(inside: Inside):
    script = "head -c 100000000 /dev/zero | tail -c 90000000 | wc -c; echo ${PIPESTATUS:-end}"
    result = inside.result("sh", "-c", script, change=resources(memory={"limit": 20 * M, "swap": 20 * M}))
    assert "90000000" not in result.out


@v1
@covers(f"{RESOURCES}.pids.limit")
def test_no_more_processes_than_allowed_can_be_made(inside: Inside):
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo made"
    result = inside.result("sh", "-c", script, change=resources(pids={"limit": 5}))
    assert "can't fork" in result.err
    assert inside.shell(script, resources(pids={"limit": 50})) == "made"


@v1
@covers(f"{RESOURCES}.memory.kernel", f"{RESOURCES}.memory.kernelTCP")
def test_limits_that_the_kernel_gave_up_are_passed_over_as_by_runc(inside: Inside):
    change = resources(memory={"kernel": 50 * M, "kernelTCP": 10 * M})
    assert inside("echo", "runs", change=change, runc=True) == "runs"


@v1
@covers(f"{RESOURCES}.memory.checkBeforeUpdate")
def test_a_check_before_an_update_is_for_cgroup_v2(inside: Inside):
    with inside.running(change=resources(memory={"limit": 64 * M, "checkBeforeUpdate": True})) as container:
        assert read(container, "memory", "memory.limit_in_bytes") == str(64 * M)


THROTTLES = [
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
]


@v1
@covers(*(f"{RESOURCES}.blockIO.{{name}}[].{key}" for key in ("major", "minor", "rate")))
@pytest.mark.parametrize(("name", "file"), THROTTLES)
def test_a_device_is_throttled(inside: Inside, disk: str, name: str, file: str):
    major, minor = map(int, disk.split(":"))
    change = resources(blockIO={name: [{"major": major, "minor": minor, "rate": 4321}]})
    with inside.running(change=change) as container:
        assert read(container, "blkio", file) == f"{disk} 4321"


WEIGHTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("weight", {"weight": 333}, "blkio.bfq.weight", "333"),
    ("weightDevice[].weight", {"weightDevice": [{"weight": 333}]}, "blkio.bfq.weight_device", "{disk} 333"),
    ("leafWeight", {"leafWeight": 333}, "blkio.leaf_weight", "333"),
    ("weightDevice[].leafWeight", {"weightDevice": [{"leafWeight": 333}]}, "blkio.leaf_weight_device", "{disk} 333"),
]


@v1
@covers(f"{RESOURCES}.blockIO.{{name}}")
@covers(f"{RESOURCES}.blockIO.weightDevice[].major", f"{RESOURCES}.blockIO.weightDevice[].minor")
@pytest.mark.parametrize(("name", "section", "file", "value"), WEIGHTS, ids=[entry[0] for entry in WEIGHTS])
def test_a_weight_is_set_or_refused_with_the_file_that_this_kernel_lacks(
    inside: Inside, disk: str, name: str, section: dict[str, Any], file: str, value: str
):
    major, minor = map(int, disk.split(":"))
    for entry in section.get("weightDevice", ()):
        entry.update(major=major, minor=minor)
    change = resources(blockIO=section)
    name_of_run = inside.new_container_id()
    path = inside.bundle(changed(change), args=["sleep", "1000"])
    result = inside.ctrun("run", "-d", "-b", path, name_of_run)
    if result.code:  # neither the old file nor BFQ's, or a disk without BFQ
        place = name.replace("[]", "[0]")
        assert f".linux.resources.blockIO.{place}" in result.err
        assert file in result.err
        return
    cgroup = Path("/sys/fs/cgroup/blkio", name_of_run)
    contents = [
        entry.read_text().split("\n") for entry in (cgroup / file, cgroup / file.replace(".bfq", "")) if entry.exists()
    ]
    inside.ctrun("delete", "--force", name_of_run).ok()
    assert any(value.format(disk=disk) in lines for lines in contents)


@v1
@covers(f"{RESOURCES}.hugepageLimits[].pageSize", f"{RESOURCES}.hugepageLimits[].limit")
@covers(f"{RESOURCES}.network.classID", f"{RESOURCES}.network.priorities[].name")
@covers(f"{RESOURCES}.network.priorities[].priority")
@pytest.mark.parametrize(
    ("file", "place", "section", "line"),
    [
        (
            "hugetlb/hugetlb.2MB.limit_in_bytes",
            "hugepageLimits",
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * M}]},
            str(2 * M),
        ),
        ("net_cls/net_cls.classid", "network", {"network": {"classID": 1048577}}, "1048577"),
        (
            "net_prio/net_prio.ifpriomap",
            "network",
            {"network": {"priorities": [{"name": "lo", "priority": 3}]}},
            "lo 3",
        ),
    ],
)
def test_a_limit_is_set_or_refused_where_its_controller_is_not_there(
    inside: Inside, file: str, place: str, section: dict[str, Any], line: str
):
    controller, _, name = file.partition("/")
    # A directory without a mount is what somebody has left who had one.
    if os.path.ismount(f"/sys/fs/cgroup/{controller}"):
        with inside.running(change=resources(**section)) as container:
            assert line in read(container, controller, name).splitlines()
    else:
        error = inside.refused(resources(**section))
        assert controller in error or place in error


@covers(f"{RESOURCES}.rdma.*.hcaHandles", f"{RESOURCES}.rdma.*.hcaObjects")
@pytest.mark.parametrize("limit", [{"hcaHandles": 3}, {"hcaObjects": 10000}])
def test_a_limit_for_a_device_of_rdma_that_is_not_there_is_refused(inside: Inside, limit: dict[str, int]):
    assert "rdma" in inside.refused(resources(rdma={"ctrtest_1": limit}))


@v1
@covers(f"{RESOURCES}.unified")
def test_files_of_cgroup_v2_are_refused_on_v1(inside: Inside):
    assert ".linux.resources.unified" in inside.refused(resources(unified={"memory.high": "1000000"}))


@v1
@covers(".linux.cgroupsPath")
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_the_cgroups_are_at_their_path(inside: Inside, form: str):
    name = f"ctrtest-{os.getpid()}-path"
    path = f"/{name}/below" if form == "absolute" else f"{name}/below"
    try:
        with inside.running(change={"linux": {"cgroupsPath": path}}) as container:
            assert container.cgroup("pids") == Path("/sys/fs/cgroup/pids", name, "below")
            members = (container.cgroup("pids") / "cgroup.procs").read_text().split()
            assert members == [str(container.pid)]
    finally:
        for own in Path("/proc/self/cgroup").read_text().splitlines():
            _, names, own_path = own.split(":", 2)
            for place in (own_path.lstrip("/"), ""):
                left = Path("/sys/fs/cgroup", names.removeprefix("name=") or "unified", place, name)
                if left.exists():
                    left.rmdir()


@v1
@covers(".linux.cgroupsPath")
def test_without_a_path_the_cgroups_have_the_container_s_name(inside: Inside):
    with inside.running() as container:
        assert container.cgroup("memory").name == container.name


# -- limits, on cgroup v2

v2 = pytest.mark.needs_cgroup_v2
V2_FILES: list[tuple[str, dict[str, Any], str, str]] = [
    ("cpu.quota", {"cpu": {"quota": 30000}}, "cpu.max", "30000 100000"),
    ("cpu.period", {"cpu": {"quota": 30000, "period": 50000}}, "cpu.max", "30000 50000"),
    ("cpu.burst", {"cpu": {"quota": 30000, "burst": 10000}}, "cpu.max.burst", "10000"),
    ("cpu.idle", {"cpu": {"idle": 1}}, "cpu.idle", "1"),
    ("cpu.cpus", {"cpu": {"cpus": "1"}}, "cpuset.cpus", "1"),
    ("cpu.mems", {"cpu": {"mems": "0"}}, "cpuset.mems", "0"),
    ("memory.limit", {"memory": {"limit": 64 * M}}, "memory.max", str(64 * M)),
    ("memory.reservation", {"memory": {"reservation": 32 * M}}, "memory.low", str(32 * M)),
    ("memory.swap", {"memory": {"limit": 64 * M, "swap": 96 * M}}, "memory.swap.max", str(32 * M)),
    ("pids.limit", {"pids": {"limit": 17}}, "pids.max", "17"),
    ("unified", {"unified": {"memory.high": str(48 * M)}}, "memory.high", str(48 * M)),
    (
        "hugepageLimits[].limit",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * M}]},
        "hugetlb.2MB.max",
        str(2 * M),
    ),
]


@v2
@covers(f"{RESOURCES}.{{name}}")
@pytest.mark.parametrize(("name", "section", "file", "value"), V2_FILES, ids=[entry[0] for entry in V2_FILES])
def test_a_limit_is_in_the_cgroup_of_v2(inside: Inside, name: str, section: dict[str, Any], file: str, value: str):
    with inside.running(change=resources(**section)) as container:
        assert (container.unified_cgroup() / file).read_text().strip() == value


@v2
@covers(f"{RESOURCES}.cpu.shares")
def test_shares_order_cgroups_of_v2_by_weight(inside: Inside):
    weights = []
    for shares in (2, 1024, 262144):
        with inside.running(change=resources(cpu={"shares": shares})) as container:
            weights.append(int((container.unified_cgroup() / "cpu.weight").read_text()))
    assert (weights[0], weights[-1]) == (1, 10000)
    assert weights == sorted(set(weights))


@v2
@covers(*(f"{RESOURCES}.blockIO.{{name}}[].{key}" for key in ("major", "minor", "rate")))
@pytest.mark.parametrize(("name", "_file"), THROTTLES)
def test_a_device_is_throttled_on_v2(inside: Inside, disk: str, name: str, _file: str):
    major, minor = map(int, disk.split(":"))
    word = {"ReadBps": "rbps", "WriteBps": "wbps", "ReadIOPS": "riops", "WriteIOPS": "wiops"}[
        name.removeprefix("throttle").removesuffix("Device")
    ]
    change = resources(blockIO={name: [{"major": major, "minor": minor, "rate": 4321}]})
    with inside.running(change=change) as container:
        assert f"{word}=4321" in (container.unified_cgroup() / "io.max").read_text().split()
