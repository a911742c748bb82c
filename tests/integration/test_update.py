"""`update` on real containers: what the kernel has afterwards, what stays, and what a failure leaves."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.kernel import _kernel
from tests.support.bundles import Bundles
from tests.support.command import Result, started
from tests.support.limits import UNLIMITED, Limits
from tests.support.needs import lacking
from tests.support.runtime import Runtime
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.needs_limits,
    pytest.mark.usefixtures("no_leaks"),
]
covers = pytest.mark.covers

MIB = 1 << 20
BPF_CGROUP_DEVICE = 6

Start = Callable[..., Limits]


def limited(config: dict[str, Any], container: str, resources: dict[str, Any]) -> None:
    """Gives a container a cgroup of its own name at the top, and limits."""
    config["linux"]["cgroupsPath"] = f"/{container}"
    config["linux"]["resources"].update(resources)


@pytest.fixture
def start(ctrun: Runtime, bundle: Bundles, container_id: str) -> Start:
    """Runs the container: `start(memory={"limit": 1 << 24})` returns its limits."""

    def run(*, args: list[str] | None = None, **resources: Any) -> Limits:
        made = bundle(lambda config: limited(config, container_id, resources), args=args or ["sleep", "1000"])
        ctrun("run", "-d", "-b", made, container_id).ok()
        return Limits(ctrun, container_id)

    return run


@pytest.fixture
def update(ctrun: Runtime, container_id: str) -> Callable[..., Result]:
    """Updates the container with flags."""

    def run(*flags: str, stdin: str | None = None) -> Result:
        return ctrun("update", *flags, container_id, stdin=stdin)

    return run


@pytest.fixture(autouse=True)
def delete_before_looking_for_leaks(no_leaks: None, ctrun: Runtime, new_container_id: Callable[[], str]) -> Any:
    """Deletes the container of a test, which `no_leaks` would find."""
    yield
    for name in os.listdir(ctrun.state_root) if ctrun.state_root.exists() else ():
        if name.startswith(f"ctrtest-{os.getpid()}-"):
            ctrun.remove(name)


def config_of(ctrun: Runtime, container: str) -> dict[str, Any]:
    """The resources in the container's own configuration."""
    config = json.loads((ctrun.state_root / container / "config.json").read_text())
    found: dict[str, Any] = config["linux"]["resources"]
    return found


@pytest.mark.parametrize(
    ("flag", "value", "limit", "expected"),
    [
        ("memory", "64m", "memory", 64 * MIB),
        ("memory-reservation", "8m", "reservation", 8 * MIB),
        ("memory-swap", "96m", "memory_and_swap", 96 * MIB),
        ("pids-limit", "17", "pids", 17),
        ("cpu-quota", "20000", "bandwidth", (20000, 50000)),
        ("cpu-period", "100000", "bandwidth", (10000, 100000)),
        ("cpu-share", "512", "shares", 512),
        ("cpu-burst", "5000", "burst", 5000),
        ("cpu-idle", "1", "idle", 1),
        ("cpuset-cpus", "0", "cpus", "0"),
        ("cpuset-mems", "0", "mems", "0"),
    ],
)
@covers("update --{flag}", "verb update")
def test_a_flag_sets_its_limit_and_no_other(
    start: Start, update: Callable[..., Result], flag: str, value: str, limit: str, expected: object
):
    limits = start(
        memory={"limit": 48 * MIB, "swap": 72 * MIB}, cpu={"quota": 10000, "period": 50000}, pids={"limit": 40}
    )
    before = limits.all()
    result = update(f"--{flag}", value).ok()
    assert (result.out, result.err) == ("", "")
    assert getattr(limits, limit)() == expected
    # v2 knows swap apart, so that it moves with the limit on memory; an idle cgroup has the least weight
    moving = {limit, *(["memory_and_swap"] if limits.unified else []), *(["shares"] if limit == "idle" else [])}
    assert {name: value for name, value in limits.all().items() if name not in moving} == {
        name: value for name, value in before.items() if name not in moving
    }


@covers("update --memory", "update --memory-swap", "update --cpu-quota", "update --pids-limit")
def test_minus_one_takes_limits_away(start: Start, update: Callable[..., Result]):
    limits = start(memory={"limit": 48 * MIB, "swap": 72 * MIB}, cpu={"quota": 10000}, pids={"limit": 40})
    update("--memory", "-1", "--cpu-quota", "-1", "--pids-limit", "-1").ok()
    assert limits.memory() == limits.memory_and_swap() == limits.pids() == limits.bandwidth()[0] == UNLIMITED


def test_zero_changes_nothing(start: Start, update: Callable[..., Result]):
    limits = start(memory={"limit": 48 * MIB}, pids={"limit": 40})
    before = limits.all()
    update("--memory", "0", "--cpu-quota", "0", "--cpu-share", "0", "--pids-limit", "0", "--cpuset-cpus", "").ok()
    assert limits.all() == before


@covers("update --blkio-weight")
def test_a_weight_of_block_io_is_set(start: Start, update: Callable[..., Result]):
    limits = start()
    files = [
        limits.directory("blkio") / name for name in ("io.bfq.weight", "io.weight", "blkio.bfq.weight", "blkio.weight")
    ]
    found = [path for path in files if path.exists()]
    if not found:
        pytest.skip("the kernel has no block I/O weights")
    update("--blkio-weight", "333").ok()
    weight = found[0].read_text().split()[-1]
    assert weight == ("3263" if found[0].name == "io.weight" else "333")


@covers("update --cpu-rt-period", "update --cpu-rt-runtime")
@pytest.mark.needs_cgroup_v1
def test_real_time_limits_are_set(start: Start, update: Callable[..., Result]):
    limits = start()
    if not (limits.directory("cpu") / "cpu.rt_period_us").exists():
        pytest.skip("the kernel has no real-time group scheduling")
    update("--cpu-rt-period", "500000").ok()
    assert limits.text("cpu", "cpu.rt_period_us") == "500000"
    update("--cpu-rt-runtime", "1000").ok()
    assert limits.text("cpu", "cpu.rt_runtime_us") == "1000"


@covers("update --resources")
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_resources_come_as_json(start: Start, update: Callable[..., Result], directory: Path, source: str):
    limits = start()
    text = json.dumps(
        {
            "memory": {"limit": 32 * MIB, "reservation": 0, "swap": 64 * MIB},
            "cpu": {"shares": 0, "quota": 7000, "period": 70000, "cpus": "0", "mems": ""},
            "pids": {"limit": 9},
            "blockIO": {"weight": 0},
            "devices": None,
        }
    )
    if source == "file":
        (directory / "r.json").write_text(text)
        update("-r", str(directory / "r.json"), "--pids-limit", "1").ok()
    else:
        update("--resources", "-", stdin=text).ok()
    assert (limits.memory(), limits.memory_and_swap()) == (32 * MIB, 64 * MIB)
    assert (limits.bandwidth(), limits.cpus(), limits.pids()) == ((7000, 70000), "0", 9)


def test_files_of_cgroup_v2_can_be_updated_by_name(start: Start, update: Callable[..., Result]):
    limits = start()
    text = json.dumps({"unified": {"memory.high": str(32 * MIB)}})
    result = update("-r", "-", stdin=text)
    if not limits.unified:
        assert result.code == 1
        assert ".unified: invalid configuration: cannot use unified on cgroup v1" in result.err
        return
    result.ok()
    assert limits.text("memory", "memory.high") == str(32 * MIB)


def test_the_configuration_of_the_container_follows(
    start: Start, update: Callable[..., Result], ctrun: Runtime, container_id: str
):
    start(memory={"limit": 48 * MIB, "swap": 72 * MIB, "swappiness": 10} if not _unified() else {"limit": 48 * MIB})
    before = config_of(ctrun, container_id)
    update("--memory", "32m", "--cpu-quota", "20000").ok()
    update("--cpu-period", "50000").ok()
    after = config_of(ctrun, container_id)
    assert after["cpu"] == {"quota": 20000, "period": 50000}
    assert after["memory"] == {**before["memory"], "limit": 32 * MIB}
    assert after["devices"] == before["devices"]
    assert Limits(ctrun, container_id).bandwidth() == (20000, 50000)


def _unified() -> bool:
    return not lacking("needs_cgroup_v2") and bool(lacking("needs_cgroup_v1"))


FAILURES = [
    # the limit of the first controllers is set by the time that the last one fails, and the other way round
    ["--memory", "64m", "--memory-reservation", "9m", "--cpu-quota", "20000", "--cpuset-cpus", "4000"],
    ["--memory", "64m", "--pids-limit", "5", "--cpu-period", "5"],
    ["--cpu-share", "512", "--cpu-quota", "30000", "--cpu-burst", "99999999"],
]


@pytest.mark.parametrize("flags", FAILURES, ids=" ".join)
def test_a_failed_update_leaves_every_limit_as_it_was(
    start: Start, update: Callable[..., Result], ctrun: Runtime, container_id: str, flags: list[str]
):
    limits = start(
        memory={"limit": 48 * MIB, "swap": 72 * MIB}, cpu={"quota": 10000, "period": 50000}, pids={"limit": 40}
    )
    before, configured = limits.all(), config_of(ctrun, container_id)
    result = update(*flags)
    assert result.code == 1
    assert "failed to write" in result.err
    assert "Setting back" not in result.err
    assert limits.all() == before
    assert config_of(ctrun, container_id) == configured


def test_a_limit_that_can_not_be_set_back_is_warned_of(
    start: Start, ctrun: Runtime, container_id: str, directory: Path
):
    limits = start(pids={"limit": 40})
    # The kernel refuses nothing that it once had; a file that went away with its controller does as well.
    script = directory / "script.py"
    script.write_text(
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from ctr_common.errors import CgroupError\n"
        "from ctr_supervisor.cgroups import snapshot\n"
        "from ctr_supervisor.cli import main\n"
        "def refuse(self):\n"
        "    raise CgroupError('no', path='/x')\n"
        "snapshot.Snapshot.restore = refuse\n"
        "sys.exit(main.main(sys.argv[2:]))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["python3", "-I", script, root, "update", "--cpu-period", "5", container_id],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert re.search(
        r'level=warning msg="Setting back cgroup configs failed due to error: no /x, '
        r'your state.json and actual configs might be inconsistent."$',
        warning,
    )
    assert "level=error" in error
    assert limits.pids() == 40


def test_an_error_of_json_names_its_place_there(start: Start, update: Callable[..., Result]):
    start()
    result = update("-r", "-", stdin='{"cpu": {"cpus": "4000"}}')
    assert 'msg=".cpu.cpus: failed to write' in result.err


def test_an_error_of_a_flag_is_told_without_a_place(start: Start, update: Callable[..., Result]):
    start()
    assert re.search(r'msg="failed to write \\"4000\\": write /\S+/cpuset.cpus: ', update("--cpuset-cpus", "4000").err)


def test_a_paused_container_can_be_updated_and_stays_paused(
    start: Start, update: Callable[..., Result], ctrun: Runtime, container_id: str
):
    limits = start()
    ctrun("pause", container_id).ok()
    update("--pids-limit", "12").ok()
    assert limits.pids() == 12
    assert ctrun.status(container_id) == "paused"
    ctrun("resume", container_id).ok()


def test_a_created_container_can_be_updated(
    update: Callable[..., Result], ctrun: Runtime, bundle: Bundles, container_id: str
):
    ctrun("create", "-b", bundle(lambda config: limited(config, container_id, {})), container_id).ok()
    update("--pids-limit", "12").ok()
    assert Limits(ctrun, container_id).pids() == 12


def test_a_stopped_container_can_not_be_updated(
    start: Start, update: Callable[..., Result], ctrun: Runtime, container_id: str
):
    start(args=["true"])
    until("it stopped", lambda: ctrun.status(container_id) == "stopped")
    result = update("--pids-limit", "12")
    assert (result.code, "container not running" in result.err) == (1, True)


def test_device_rules_that_somebody_added_survive(start: Start, update: Callable[..., Result]):
    limits = start()
    if limits.unified:
        with_fd = os.open(limits.directory(""), os.O_RDONLY)
        try:
            before = _kernel.bpf_prog_query(with_fd, BPF_CGROUP_DEVICE)
            update("--pids-limit", "12").ok()
            assert _kernel.bpf_prog_query(with_fd, BPF_CGROUP_DEVICE) == before != []
        finally:
            os.close(with_fd)
        return
    directory = limits.directory("devices")
    (directory / "devices.allow").write_text("c 10:229 rwm")
    update("--pids-limit", "12").ok()
    assert "c 10:229 rwm" in limits.text("devices", "devices.list")


@covers("update --kernel-memory", "update --kernel-memory-tcp")
@pytest.mark.parametrize("flag", ["--kernel-memory", "--kernel-memory-tcp"])
def test_limits_on_kernel_memory_are_ignored_with_a_warning(start: Start, update: Callable[..., Result], flag: str):
    limits = start()
    before = limits.all()
    result = update(flag, "50m").ok()
    assert 'level=warning msg="Kernel memory settings are ignored and will be removed"' in result.err
    assert limits.all() == before


@covers("update --l3-cache-schema", "update --mem-bw-schema")
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--l3-cache-schema", "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("--mem-bw-schema", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ],
)
def test_without_intel_rdt_its_schemata_are_an_error_and_nothing_is_set(
    start: Start, update: Callable[..., Result], flag: str, message: str
):
    if os.path.exists("/sys/fs/resctrl/info"):
        pytest.skip("the host has Intel RDT")
    limits = start(pids={"limit": 40})
    result = update(flag, "x", "--pids-limit", "12")
    assert (result.code, message in result.err) == (1, True)
    assert limits.pids() == 40


def test_two_updates_do_not_get_into_each_other_s_way(start: Start, ctrun: Runtime, container_id: str):
    limits = start()
    lock = os.open(ctrun.state_root / container_id / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with started(ctrun.path, "update", "--pids-limit", "12", container_id) as child:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)
            assert limits.pids() == UNLIMITED
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert child.wait(20) == 0
    finally:
        os.close(lock)
    assert limits.pids() == 12


# -- beside runc

ARGUMENTS = [
    ["--memory", "64m"],
    ["--memory", "1"],
    ["--memory", "-2"],
    ["--memory", "10x"],
    ["--memory", "0x10"],
    ["--memory", ""],
    ["--memory", "64m", "--memory-swap", "10m"],
    ["--memory", "64m", "--memory-swap", "-1"],
    ["--memory-swap", "1g"],
    ["--cpu-quota", "abc"],
    ["--cpu-quota", "7000"],
    ["--cpu-quota", "5"],
    ["--cpu-period", "-5"],
    ["--cpu-period", "5"],
    ["--cpu-share", "1"],
    ["--cpu-share", "100"],
    ["--cpu-rt-period", "x"],
    ["--blkio-weight", "5"],
    ["--blkio-weight", "x"],
    ["--pids-limit", "7"],
    ["--pids-limit", "-1"],
    ["--pids-limit", "x"],
    ["--kernel-memory", "50m"],
    ["--kernel-memory-tcp", "50x"],
    ["--l3-cache-schema", "x"],
    ["--mem-bw-schema", "x"],
    ["-r", "/nope"],
    ["-r", "/tmp"],
    ["--cpuset-cpus", "99"],
    ["--cpuset-cpus", "0"],
    ["--cpuset-mems", "9"],
    ["--foo"],
    [],
]

# runc 1.1 fails to set back what it failed to set, and says so: it tries the new values again.
SETTING_BACK = re.compile(r".*Setting back cgroup configs failed.*\n")


@pytest.mark.needs_runc
@pytest.mark.needs_cgroup_v1
def test_it_ends_as_that_of_runc_and_sets_the_same(
    start: Start, ctrun: Runtime, runc: Runtime, bundle: Bundles, container_id: str, new_container_id: Callable[[], str]
):
    theirs = new_container_id()
    limits = start()
    runc("run", "-d", "-b", bundle(lambda config: limited(config, theirs, {}), args=["sleep", "1000"]), theirs).ok()
    ours_and_theirs = []
    for arguments in ARGUMENTS:
        pair = []
        for runtime, container in ((ctrun, container_id), (runc, theirs)):
            result = runtime("update", *arguments, container)
            text = re.sub(r'time="[^"]*" ', "", SETTING_BACK.sub("", result.err)).replace(container, "ID")
            # Ours names the cgroup, too.
            usage = re.sub(r"usage: \d+", "usage: N", text).replace(") /sys/fs/cgroup/memory/ID", ")")
            # What runc leaves of a failed update is not what was there before.
            left = {} if result.code else Limits(runtime, container).all()
            pair.append((arguments, result.code, usage, left))
        ours_and_theirs.append(pair)
    runc("delete", "--force", theirs).ok()
    for ours, other in ours_and_theirs:
        assert ours == other
    assert limits.memory() == 64 * MIB
