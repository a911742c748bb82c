"""`ctrun --systemd-cgroup`: with the host's own systemd, or where there is none with a fake on a real message bus."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups.hierarchies import hierarchies
from ctr_supervisor.cgroups.systemd_bus import BOOTED, Bus
from tests.support import fake_systemd
from tests.support.bundles import Bundles
from tests.support.command import Result, run
from tests.support.runtime import Runtime

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.needs_busybox,
    pytest.mark.needs_limits,
    pytest.mark.needs_command("dbus-daemon"),
    pytest.mark.usefixtures("no_leaks"),
]

SLICE = f"ctrtest{os.getpid()}.slice"
MIB = 1 << 20
HAS_SYSTEMD = Path(BOOTED).is_dir()

only_fake = pytest.mark.skipif(HAS_SYSTEMD, reason="this host has a systemd, which must not be disturbed")
only_real = pytest.mark.needs_systemd


class Service:
    """The service manager for a test's containers.

    Args:
        fake: None for the host's own.
    """

    def __init__(self, fake: fake_systemd.Answer | None) -> None:
        self.fake = fake

    def run(self, runtime: Runtime, *args: str | Path, **keywords: Any) -> Result:
        """Runs a verb of a runtime that is told to use systemd."""
        __tracebackhide__ = True
        argv = [runtime.path, *runtime.globals, "--systemd-cgroup", *args]
        if self.fake is None:
            return run(*argv, **keywords)
        return run(*self.fake.wrap(*argv), env=self.fake.environment(), **keywords)

    def properties(self, unit: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What the manager has for a unit; a new unit's values if there is none of the name."""
        if self.fake is not None:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", self.fake.address)
        with Bus(user=False) as bus:
            return {name: value for name, (_, value) in bus.unit_properties(unit).items()}


@pytest.fixture
def service(directory: Path) -> Iterator[Service]:
    """A service manager; what is left of the tests' slice goes at the end."""
    try:
        if HAS_SYSTEMD:
            yield Service(None)
        else:
            with fake_systemd.running(directory) as fake:
                yield Service(fake)
    finally:
        if HAS_SYSTEMD:
            run("systemctl", "stop", SLICE)
        for mount in hierarchies().mounts.values():
            if Path(mount, SLICE).is_dir():
                Path(mount, SLICE).rmdir()


@pytest.fixture
def unit(container_id: str) -> str:
    """Name of the container's unit."""
    return f"t-{container_id}.scope"


class Container:
    """One container of a test.

    Args:
        name: its id.
        service: whom its cgroups come from.
        runtime: what runs it.
        bundle: its bundle.
    """

    def __init__(self, name: str, service: Service, runtime: Runtime, bundle: Path) -> None:
        self.name = name
        self.service = service
        self.runtime = runtime
        self.bundle = bundle

    def __call__(self, verb: str, *args: str | Path, **keywords: Any) -> Result:
        """Runs a verb on it."""
        __tracebackhide__ = True
        flags = ["-b", self.bundle] if verb in ("run", "create") else []
        return self.service.run(self.runtime, verb, *flags, *args, **keywords)

    def start(self) -> None:
        """Runs it in the background."""
        __tracebackhide__ = True
        self("run", "-d", self.name, stdin="").ok()

    def cgroup(self, controller: str) -> Path:
        """Its cgroup of a controller."""
        mounts = hierarchies().mounts
        return Path(mounts.get(controller, mounts.get("", "")), SLICE, f"t-{self.name}.scope")


@pytest.fixture
def container(
    bundle: Bundles, service: Service, container_id: str, ctrun: Runtime
) -> Iterator[Callable[..., Container]]:
    """Factory of containers in a slice of the tests' own; further arguments are their resources."""

    def make(args: list[str] | None = None, *, path: str = "", annotations: Any = None, **resources: Any) -> Container:
        def change(config: dict[str, Any]) -> None:
            config["linux"]["resources"] |= resources
            config["linux"]["cgroupsPath"] = path or f"{SLICE}:t:{container_id}"
            config["annotations"] = annotations or {}

        return Container(container_id, service, ctrun, bundle(change, args=args or ["sleep", "1000"]))

    yield make
    # by the service manager that it came from, which is going
    service.run(ctrun, "delete", "--force", container_id).ok()


def limit_files(made: Container) -> dict[str, str]:
    """The limits of memory and processes, as the kernel has them."""
    v2 = hierarchies().mode == "unified"
    memory = made.cgroup("memory") / ("memory.max" if v2 else "memory.limit_in_bytes")
    return {"memory": memory.read_text().strip(), "pids": (made.cgroup("pids") / "pids.max").read_text().strip()}


MEMORY = "MemoryMax" if hierarchies().mode == "unified" else "MemoryLimit"


@pytest.mark.vm_short
@pytest.mark.covers("global --systemd-cgroup", ".linux.cgroupsPath")
def test_container_is_in_its_scope_in_every_hierarchy(container, unit):
    result = container(["cat", "/proc/self/cgroup"])
    lines = result("run", result.name).lines
    # with a cgroup namespace it could not be seen
    assert lines
    assert {line.split(":", 2)[2] for line in lines} <= {"/", f"/{SLICE}/{unit}"}


@pytest.mark.vm_short
def test_limits_are_systemd_s_and_the_kernel_s(container, service, unit, monkeypatch):
    made = container(memory={"limit": 64 * MIB}, pids={"limit": 20}, cpu={"quota": 12345, "period": 50000})
    made.start()
    found = service.properties(unit, monkeypatch)
    assert (found[MEMORY], found["TasksMax"]) == (64 * MIB, 20)
    assert (found["CPUQuotaPerSecUSec"], found["CPUQuotaPeriodUSec"]) == (250000, 50000)
    assert (found["Delegate"], found["DevicePolicy"]) == (True, "strict")
    assert limit_files(made) == {"memory": str(64 * MIB), "pids": "20"}
    if hierarchies().mode == "unified":
        assert (made.cgroup("") / "cpu.max").read_text() == "12500 50000\n"
    else:
        assert (made.cgroup("cpu") / "cpu.cfs_quota_us").read_text() == "12500\n"


@pytest.mark.vm_short
def test_deleted_container_leaves_no_unit_and_no_cgroup(container, service, unit, monkeypatch):
    made = container(pids={"limit": 20})
    made.start()
    made("delete", "--force", made.name).ok()
    assert service.properties(unit, monkeypatch)["TasksMax"] != 20
    assert not any(Path(mount, SLICE, unit).exists() for mount in hierarchies().mounts.values())


def test_exec_joins_the_scope(container, unit):
    made = container()
    made.start()
    lines = made("exec", made.name, "cat", "/proc/self/cgroup").lines
    assert {line.split(":", 2)[2] for line in lines} <= {"/", f"/{SLICE}/{unit}"}


def test_update_goes_to_systemd_and_to_the_kernel(container, service, unit, monkeypatch):
    made = container(memory={"limit": 64 * MIB}, pids={"limit": 20})
    made.start()
    made("update", "--memory", str(32 * MIB), "--pids-limit", "30", made.name).ok()
    found = service.properties(unit, monkeypatch)
    assert (found[MEMORY], found["TasksMax"]) == (32 * MIB, 30)
    assert limit_files(made) == {"memory": str(32 * MIB), "pids": "30"}


def test_update_that_fails_leaves_systemd_s_limits_as_they_were(container, service, unit, monkeypatch):
    made = container(pids={"limit": 20})
    made.start()
    result = made("update", "-r", "-", made.name, stdin=json.dumps({"pids": {"limit": 30}, "rdma": {"none": {}}}))
    if not result.code:
        pytest.fail(f"the update was to fail: {result!r}")
    assert service.properties(unit, monkeypatch)["TasksMax"] == 20
    assert limit_files(made)["pids"] == "20"


@pytest.mark.vm_short
def test_update_that_fails_late_leaves_what_systemd_had_for_limits_nobody_asked_for(
    container, service, unit, monkeypatch
):
    names = ("TasksMax", "MemoryLimit", "MemoryLow", "MemoryMax", "CPUShares", "CPUWeight", "IOWeight")
    made = container(pids={"limit": 20})
    made.start()

    def limits() -> dict[str, Any]:
        return {name: value for name, value in service.properties(unit, monkeypatch).items() if name in names}

    before = limits()
    flags = ("--pids-limit", "30", "--memory-reservation", "8m", "--cpu-share", "512")
    result = made("update", *flags, "--l3-cache-schema", "L3:0=f", made.name)
    if "Intel RDT" not in result.err:
        pytest.fail(f"the update was to fail once the limits were set: {result!r}")
    assert limits() == before
    assert limit_files(made)["pids"] == "20"


def test_pause_and_resume_work_on_the_scope(container, ctrun):
    made = container()
    made.start()
    made("pause", made.name).ok()
    assert ctrun.status(made.name) == "paused"
    made("resume", made.name).ok()
    assert ctrun.status(made.name) == "running"


def test_annotation_sets_a_property(container, service, unit, monkeypatch):
    made = container(annotations={"org.systemd.property.TimeoutStopSec": "uint64 7"})
    made.start()
    assert service.properties(unit, monkeypatch)["TimeoutStopUSec"] == 7000000


def test_limit_wins_over_an_annotation(container, service, unit, monkeypatch):
    made = container(annotations={"org.systemd.property.TasksMax": "uint64 50"}, pids={"limit": 20})
    made.start()
    assert service.properties(unit, monkeypatch)["TasksMax"] == 20


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("TasksMax", "uint64", "value parse error"),
        ("Tasks-Max", "uint64 1", "non-alphabetic"),
        ("TasksMaxx", "uint64 1", "TasksMaxx"),
        ("TasksMax", "'many'", "unable to start unit"),
    ],
)
def test_annotation_that_is_wrong_fails_the_creation_and_leaves_nothing(container, ctrun, name, text, complaint):
    made = container(annotations={f"org.systemd.property.{name}": text})
    result = made("create", made.name)
    assert (result.code, complaint in result.err, len(result.err.splitlines())) == (1, True, 1), repr(result)
    assert ctrun.status(made.name) == ""


def test_path_of_the_other_driver_is_refused(container):
    made = container(path="/ctrtest/x")
    result = made("run", made.name)
    assert result.code == 1
    assert 'expected cgroupsPath to be of format \\"slice:prefix:name\\"' in result.err


def test_name_of_a_running_container_is_refused_and_that_one_lives_on(
    container, service, bundle, new_container_id, ctrun
):
    made = container(pids={"limit": 20})
    made.start()
    other = new_container_id()

    def same(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = f"{SLICE}:t:{made.name}"

    result = service.run(ctrun, "run", "-b", bundle(same), other)
    assert result.code == 1
    assert "container's cgroup is not empty" in result.err
    assert ctrun.status(made.name) == "running"
    assert limit_files(made)["pids"] == "20"


def test_unit_that_exists_elsewhere_is_not_touched(container, service, bundle, new_container_id, ctrun):
    made = container()
    made.start()
    other = new_container_id()

    def same(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = f"{SLICE.removesuffix('.slice')}-below.slice:t:{made.name}"

    result = service.run(ctrun, "run", "-b", bundle(same), other)
    assert result.code == 1
    assert f"unable to start unit t-{made.name}.scope" in result.err
    assert ctrun.status(made.name) == "running"
    if HAS_SYSTEMD:
        run("systemctl", "stop", f"{SLICE.removesuffix('.slice')}-below.slice")


def test_failed_creation_leaves_no_unit(container, service, unit, monkeypatch, ctrun):
    made = container(["no such program"], pids={"limit": 20})
    assert made("run", made.name).code == 127 or ctrun.status(made.name) == ""
    assert service.properties(unit, monkeypatch)["TasksMax"] != 20
    assert not made.cgroup("pids").exists()


def test_container_can_be_deleted_where_the_message_bus_can_not_be_reached(container, ctrun):
    made = container()
    made.start()
    # as a user without a session would
    run(
        ctrun.path, "delete", "--force", made.name, env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/none"}
    ).ok()
    assert ctrun.status(made.name) == ""
    assert not made.cgroup("pids").exists()


def test_state_tells_the_unit(container, ctrun, unit):
    made = container()
    made.start()
    state = json.loads(Path(ctrun.state_root, made.name, "state.json").read_text())
    assert state["systemd"] == {"unit": unit, "user": False}


# -- what only the fake can show


@only_fake
def test_device_rules_of_a_running_container_change_while_it_is_frozen(container, service):
    made = container(pids={"limit": 20})
    made.start()
    made("update", "--pids-limit", "30", made.name).ok()
    assert [call["body"] for call in service.fake.calls("frozen")] == [[True]]
    state = made.cgroup("freezer") / "freezer.state"
    assert state.read_text() == "THAWED\n"


@only_fake
def test_container_without_device_rules_is_not_frozen_for_an_update(container, service):
    made = container(pids={"limit": 20}, devices=[{"allow": True, "access": "rwm"}])
    made.start()
    made("update", "--pids-limit", "30", made.name).ok()
    assert [call["body"] for call in service.fake.calls("frozen")] == [[False]]


@only_fake
def test_unit_that_does_not_start_fails_the_creation(container, service, unit, ctrun):
    service.fake.tell(results={unit: "failed"})
    made = container()
    result = made("run", made.name)
    assert result.code == 1
    assert f"error creating systemd unit `{unit}`: got `failed`" in result.err
    assert ctrun.status(made.name) == ""
    assert [call["body"][0] for call in service.fake.calls("StopUnit")] == [unit]


@only_fake
def test_container_goes_through_its_life_in_the_view_of_cgroup_v2(bundle, directory, container_id, ctrun):
    made = bundle(
        lambda config: config["linux"].update(cgroupsPath=f"{SLICE}:t:{container_id}"), args=["sleep", "1000"]
    )
    (directory / "v2").mkdir()
    with fake_systemd.running(directory / "v2", v2=True) as fake:
        service = Service(fake)
        service.run(ctrun, "run", "-d", "-b", made, container_id, stdin="").ok()
        (start,) = fake.calls("StartTransientUnit")
        assert {"Delegate", "IOAccounting", "DevicePolicy"} <= {name for name, _ in start["body"][2]}
        (line,) = service.run(ctrun, "exec", container_id, "cat", "/proc/self/cgroup").lines[-1:]
        assert line in ("0::/", f"0::/{SLICE}/t-{container_id}.scope")
        service.run(ctrun, "delete", "--force", container_id).ok()
        assert fake.calls("StopUnit")


def told(service: Service) -> dict[str, Any]:
    """The properties that a unit was told, at its start and after."""
    found: dict[str, Any] = {}
    assert service.fake is not None
    for call in service.fake.calls():
        if call["member"] in ("StartTransientUnit", "SetUnitProperties"):
            properties = call["body"][2]
            found |= {name: value for name, value in properties if name not in ("PIDs", "Description")}
    # a group of devices has a name and a number
    entries = found["DeviceAllow"][1]
    found["DeviceAllow"] = sorted(
        ["char-pts", access] if path == "char-136" else [path, access] for path, access in entries
    )
    return found


RESOURCES: list[dict[str, Any]] = [
    {},
    {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}, "cpu": {"shares": 512, "quota": 12345, "period": 50000}},
    {"cpu": {"quota": 20000, "cpus": "0", "mems": "0"}, "pids": {"limit": -1}, "memory": {"limit": -1}},
    {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"},
        ]
    },
    {"devices": [{"allow": True, "access": "rwm"}]},
]


@only_fake
@pytest.mark.needs_runc
@pytest.mark.parametrize("resources", RESOURCES, ids=["none", "limits", "minus-one", "devices", "all-devices"])
def test_systemd_is_told_what_runc_tells_it(container, service, runc, resources):
    annotations = {"org.systemd.property.TimeoutStopSec": "uint64 7", "org.systemd.property.CollectMode": "'inactive'"}
    made = container(["true"], annotations=annotations, **resources)
    heard = []
    for runtime in (made.runtime, runc):
        (service.fake.directory / "calls").write_text("")
        service.run(runtime, "run", "-b", made.bundle, made.name).ok()
        heard.append(told(service))
    assert heard[0] == heard[1]


@only_fake
@pytest.mark.needs_runc
def test_unit_has_runc_s_name_and_slice_where_none_is_asked_for(bundle, service, runc, ctrun, container_id):
    made = bundle(lambda config: config["linux"].pop("cgroupsPath", None))
    before = [Path(mount, "system.slice") for mount in hierarchies().mounts.values()]
    before = [path for path in before if not path.exists()]
    for runtime in (ctrun, runc):
        service.run(runtime, "run", "-b", made, container_id).ok()
    first, second = (call["body"] for call in service.fake.calls("StartTransientUnit"))
    assert first[0] == second[0] == f"runc-{container_id}.scope"
    assert dict(first[2])["Slice"] == dict(second[2])["Slice"] == ["s", "system.slice"]
    for path in before:
        if path.exists():
            path.rmdir()


@only_fake
def test_host_without_systemd_is_told_so(bundle, ctrun, container_id):
    result = ctrun("--systemd-cgroup", "run", "-b", bundle(), container_id)
    assert result.code == 1
    assert "systemd cgroup flag passed, but systemd support for managing cgroups is not available" in result.err
    assert ctrun.status(container_id) == ""


# -- what only the real one can show


@only_real
def test_limits_outlive_a_reload_of_systemd(container):
    made = container(memory={"limit": 64 * MIB}, pids={"limit": 20}, cpu={"quota": 12345, "period": 50000})
    made.start()
    before = limit_files(made), (made.cgroup("") / "cpu.max").read_text()
    run("systemctl", "daemon-reload").ok()
    assert (limit_files(made), (made.cgroup("") / "cpu.max").read_text()) == before


@only_real
@pytest.mark.parametrize("shape", ["list", "all", "all-but-one"])
def test_devices_outlive_a_reload_of_systemd(container, shape):
    rules = {
        "list": [{"allow": False, "access": "rwm"}],
        "all": [{"allow": True, "access": "rwm"}],
        "all-but-one": [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rw"},
        ],
    }
    probe = "mknod /dev/k c 1 11 2>/dev/null; for d in /dev/null /dev/zero /dev/k; do (: <$d) && echo $d; done; true"
    made = container(devices=rules[shape])
    made.start()

    allowed = [word for name in ("MKNOD", "SYSLOG", "SYS_ADMIN") for word in ("--cap", f"CAP_{name}")]

    def usable() -> list[str]:
        lines: list[str] = made("exec", *allowed, made.name, "sh", "-c", probe).lines
        return lines

    before = usable()
    assert "/dev/null" in before
    assert ("/dev/k" in before) == (shape == "all")
    run("systemctl", "daemon-reload").ok()
    assert usable() == before


@only_real
def test_stopping_the_scope_ends_the_container(container, unit, ctrun):
    made = container(annotations={"org.systemd.property.TimeoutStopSec": "uint64 1"})
    made.start()
    run("systemctl", "stop", unit).ok()
    assert ctrun.status(made.name) == "stopped"
    made("delete", made.name).ok()


@only_real
def test_failed_scope_is_forgotten_when_its_container_is_deleted(container, service, unit, monkeypatch):
    made = container(["sh", "-c", "tail /dev/zero"], memory={"limit": 8 * MIB, "swap": 8 * MIB})
    made("run", "--keep", made.name)
    made("delete", made.name).ok()
    with Bus(user=False) as bus, pytest.raises(CgroupError, match="not loaded"):
        bus.call("GetUnit", "s", (unit,))
