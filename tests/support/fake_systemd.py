"""A service manager for tests on hosts without systemd: as much of org.freedesktop.systemd1 as a runtime needs.

It runs as a program of its own on a message bus of its own, makes cgroups as systemd does, and takes a property only if
it has the type that org.freedesktop.systemd1(5) gives it. What it was asked for is in a log, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SERVICE = "org.freedesktop.systemd1"
MANAGER = f"{SERVICE}.Manager"
MANAGER_PATH = "/org/freedesktop/systemd1"

# Types by org.freedesktop.systemd1(5): of the units' properties, then of those that only a start has.
TYPES = {
    "AllowedCPUs": "ay",
    "AllowedMemoryNodes": "ay",
    "BlockIOAccounting": "b",
    "BlockIOWeight": "t",
    "CPUAccounting": "b",
    "CPUQuotaPerSecUSec": "t",
    "CPUQuotaPeriodUSec": "t",
    "CPUShares": "t",
    "CPUWeight": "t",
    "Delegate": "b",
    "DeviceAllow": "a(ss)",
    "DevicePolicy": "s",
    "IOAccounting": "b",
    "IOWeight": "t",
    "MemoryAccounting": "b",
    "MemoryHigh": "t",
    "MemoryLimit": "t",
    "MemoryLow": "t",
    "MemoryMax": "t",
    "MemoryMin": "t",
    "MemorySwapMax": "t",
    "OOMPolicy": "s",
    "RuntimeMaxUSec": "t",
    "TasksAccounting": "b",
    "TasksMax": "t",
    "TimeoutStopUSec": "t",
}
AT_START = {
    "After": "as",
    "CollectMode": "s",
    "DefaultDependencies": "b",
    "Description": "s",
    "PIDs": "au",
    "Slice": "s",
    "Wants": "as",
}
NOT_OF_SLICES = {"Delegate", "PIDs", "Slice", "RuntimeMaxUSec", "TimeoutStopUSec"}

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""

# What a booted host looks like to sd_booted(3), for one process and its children.
BOOTED = 'mount -t tmpfs tmpfs /run/systemd && mkdir -p /run/systemd/system && exec "$@"'
# MACHINES of v1 have a v2 view too, with few controllers.
V2_VIEW = f"umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && {BOOTED}"


class Refusal(Exception):
    """An error reply: its D-Bus name and text."""


class Answer:
    """What the tests see of a fake: its bus, and what it was asked for.

    Args:
        directory: of the test.
        v2: in the view of a host with nothing but cgroup v2.
    """

    def __init__(self, directory: Path, *, v2: bool) -> None:
        self.directory = directory
        self.v2 = v2
        self.socket = directory / "bus"
        self.address = f"unix:path={self.socket}"

    def wrap(self, *argv: str | Path) -> list[str]:
        """A command line that runs a command where it takes this host for one with systemd."""
        script = V2_VIEW if self.v2 else BOOTED
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *map(str, argv)]

    def environment(self) -> dict[str, str]:
        """Environment in which the fake is found as the system's manager."""
        return {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address}

    def calls(self, member: str = "") -> list[dict[str, Any]]:
        """The calls up to now, or those of one method, the oldest first."""
        lines = [json.loads(line) for line in (self.directory / "calls").read_text().splitlines()]
        return [line for line in lines if member in ("", line["member"])]

    def tell(self, **orders: Any) -> None:
        """Orders to it: `results` by unit (None: no end of the job), `version`, `control_group`."""
        (self.directory / "orders").write_text(json.dumps(orders))


@contextmanager
def running(directory: Path, *, v2: bool = False, cgroups: bool = True) -> Iterator[Answer]:
    """A message bus and a fake on it.

    Args:
        directory: for its files; short, as a socket's path is.
        v2: see Answer.
        cgroups: it makes cgroups, and so needs root.
    """
    fake = Answer(directory, v2=v2)
    (directory / "bus.conf").write_text(BUS_CONFIG.format(path=fake.socket))
    (directory / "calls").touch()
    fake.tell()
    daemon = service = None
    mount_point = Path("/run/systemd")
    # without a systemd nobody has made it, as on a host that was never booted
    missing = cgroups and not mount_point.exists()
    try:
        if missing:
            mount_point.mkdir()
        command = ["dbus-daemon", f"--config-file={directory}/bus.conf", "--nofork", "--print-address=1"]
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert daemon.stdout and daemon.stdout.readline()
        argv = [sys.executable, "-m", "tests.support.fake_systemd", str(directory), "cgroups" if cgroups else ""]
        service = subprocess.Popen(fake.wrap(*argv) if cgroups else argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert service.stdout and service.stdout.readline() == "ready\n"
        yield fake
    finally:
        for process in (service, daemon):
            if process is not None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    # What is left would be found by the collector, in the middle of another test.
                    process.kill()
                    process.wait()
                    raise
                assert process.stdout
                process.stdout.close()
        if missing:
            mount_point.rmdir()


class Service:
    """The fake itself, in a process of its own.

    Args:
        directory: of the test.
        cgroups: make them.
    """

    def __init__(self, directory: Path, *, cgroups: bool) -> None:
        from jeepney.io.blocking import open_dbus_connection

        self.directory = directory
        self.with_cgroups = cgroups
        self.units: dict[str, dict[str, tuple[str, Any]]] = {}
        self.made: list[Path] = []
        self.jobs = 0
        self.bus = open_dbus_connection(f"unix:path={directory}/bus", auth_timeout=10)

    def orders(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "orders").read_text())
        return found

    def serve(self) -> None:
        """Answers calls for ever."""
        from jeepney import MessageType, new_error, new_method_return
        from jeepney.bus_messages import message_bus
        from jeepney.low_level import HeaderFields

        self.bus.send_and_get_reply(message_bus.RequestName(SERVICE))
        print("ready", flush=True)
        while True:
            message = self.bus.receive()
            if message.header.message_type is not MessageType.method_call:
                continue
            fields = message.header.fields
            member, path = fields[HeaderFields.member], fields[HeaderFields.path]
            signature = fields.get(HeaderFields.signature, "")
            self.log(member=member, path=path, signature=signature, body=message.body)
            try:
                handler = getattr(self, f"on_{member}", None)
                if handler is None:
                    raise Refusal("org.freedesktop.DBus.Error.UnknownMethod", member)
                types, values, after = handler(path, *message.body)
                self.bus.send(new_method_return(message, types, values))
                if after:
                    after()
            except Refusal as refusal:
                self.bus.send(new_error(message, refusal.args[0], "s", (refusal.args[1],)))

    def log(self, **entry: Any) -> None:
        def plain(value: Any) -> Any:
            return list(value) if isinstance(value, bytes | bytearray | memoryview) else repr(value)

        with (self.directory / "calls").open("a") as file:
            file.write(json.dumps(entry, default=plain) + "\n")

    # -- the manager's methods; each returns type and value of the answer, and what to do once it is sent

    def on_StartTransientUnit(self, _: str, unit: str, mode: str, properties: Any, auxiliary: Any) -> Any:
        assert (mode, auxiliary) == ("replace", [])
        if unit in self.units:
            raise Refusal(f"{SERVICE}.UnitExists", f"Unit {unit} was already loaded or has a fragment file.")
        types = TYPES | AT_START
        if unit.endswith(".slice"):
            types = {name: kind for name, kind in types.items() if name not in NOT_OF_SLICES}
        self.check(unit, properties, types)
        result = self.orders().get("results", {}).get(unit, "done")
        self.units[unit] = {name: value for name, value in properties if name != "DeviceAllow"}
        self.units[unit]["DeviceAllow"] = ("a(ss)", self.device_list([], properties))
        given = dict(properties)
        if result == "done":
            self.enter(unit, given)
        return self.job(unit, result)

    def on_SetUnitProperties(self, _: str, unit: str, runtime: bool, properties: Any) -> Any:
        assert runtime is True
        if unit not in self.units:
            raise Refusal(f"{SERVICE}.NoSuchUnit", f"Unit {unit} not loaded.")
        self.log(member="frozen", body=[self.frozen(unit)])
        self.check(unit, properties, TYPES)
        devices = self.device_list(self.units[unit]["DeviceAllow"][1], properties)
        self.units[unit].update(properties)
        self.units[unit]["DeviceAllow"] = ("a(ss)", devices)
        return None, (), None

    def on_StopUnit(self, _: str, unit: str, mode: str) -> Any:
        assert mode == "replace"
        if unit not in self.units:
            raise Refusal(f"{SERVICE}.NoSuchUnit", f"Unit {unit} not loaded.")
        for directory in self.directories(unit):
            self.end(directory)
        del self.units[unit]
        return self.job(unit, "done")

    def on_ResetFailedUnit(self, _: str, unit: str) -> Any:
        if unit not in self.units:
            raise Refusal(f"{SERVICE}.NoSuchUnit", f"Unit {unit} not loaded.")
        # one that is being looked after stays
        if unit in self.orders().get("failed", []):
            del self.units[unit]
        return None, (), None

    def on_AttachProcessesToUnit(self, _: str, unit: str, below: str, pids: list[int]) -> Any:
        if unit not in self.units:
            raise Refusal(f"{SERVICE}.NoSuchUnit", f"Unit {unit} not loaded.")
        if below and not below.startswith("/"):
            raise Refusal("org.freedesktop.DBus.Error.InvalidArgs", "Control group path is not absolute")
        for directory in self.directories(unit):
            for pid in pids:
                Path(f"{directory}{below}", "cgroup.procs").write_text(str(pid))
        return None, (), None

    def on_Get(self, path: str, interface: str, name: str) -> Any:
        assert (path, interface) == (MANAGER_PATH, MANAGER)
        values = {
            "Version": self.orders().get("version", "257.4-1"),
            "ControlGroup": self.orders().get("control_group", ""),
        }
        return "v", (("s", values[name]),), None

    def on_GetAll(self, path: str, interface: str) -> Any:
        encoded = path.removeprefix(f"{MANAGER_PATH}/unit/")
        parts = encoded.split("_")
        unit = parts[0] + "".join(chr(int(part[:2], 16)) + part[2:] for part in parts[1:])
        assert interface == f"{SERVICE}.{unit.rpartition('.')[2].capitalize()}"
        default = {"DevicePolicy": ("s", "auto"), "DeviceAllow": ("a(ss)", []), "TasksMax": ("t", 1 << 63)}
        default |= dict.fromkeys(("BlockIOWeight", "CPUShares", "CPUWeight", "MemoryLimit"), ("t", (1 << 64) - 1))
        found = {name: value for name, value in self.units.get(unit, {}).items() if name in TYPES}
        return "a{sv}", (default | found,), None

    def check(self, unit: str, properties: Any, types: dict[str, str]) -> None:
        for name, (signature, _) in properties:
            if name not in types:
                raise Refusal(
                    "org.freedesktop.DBus.Error.PropertyReadOnly", f"Cannot set property {name}, or unknown property."
                )
            if signature != types[name]:
                raise Refusal(
                    "org.freedesktop.DBus.Error.InvalidArgs", f"{unit}: {name} has type {signature}, not {types[name]}"
                )

    @staticmethod
    def device_list(current: list[Any], properties: Any) -> list[Any]:
        for name, (_, value) in properties:
            if name == "DeviceAllow":
                # an empty list empties, another one appends
                current = current + value if value else []
        return current

    def job(self, unit: str, result: str | None) -> Any:
        from jeepney import DBusAddress, new_signal

        self.jobs += 1
        number = self.jobs
        path = f"{MANAGER_PATH}/job/{number}"

        def remove() -> None:
            if result is not None:
                emitter = DBusAddress(MANAGER_PATH, interface=MANAGER)
                # of somebody else's job first
                for body in ((number, f"{path}9", unit, "failed"), (number, path, unit, result)):
                    self.bus.send(new_signal(emitter, "JobRemoved", "uoss", body))

        return "o", (path,), remove

    # -- cgroups

    def directories(self, unit: str) -> list[Path]:
        """The cgroups of a unit, in each hierarchy that systemd manages."""
        from ctr_supervisor.cgroups.hierarchies import hierarchies
        from ctr_supervisor.cgroups.systemd_names import expand_slice

        if not self.with_cgroups:
            return []
        slice_ = self.units[unit].get("Slice", ("s", "-.slice"))[1]
        place = (expand_slice(slice_) + "/" + unit) if not unit.endswith(".slice") else expand_slice(unit)
        names = ("cpu", "cpuacct", "memory", "devices", "pids", "blkio", "name=systemd", "")
        mounts = hierarchies().mounts
        return [Path(mounts[name] + self.orders().get("control_group", "") + place) for name in names if name in mounts]

    def frozen(self, unit: str) -> bool:
        """Whether the processes of a unit can't run, on v1; systemd does not manage the freezer."""
        from ctr_supervisor.cgroups.hierarchies import hierarchies

        mounts, places = hierarchies().mounts, self.directories(unit)
        if "freezer" not in mounts or not places:
            return False
        place = str(places[0]).removeprefix(mounts["cpu"])
        return Path(mounts["freezer"] + place, "freezer.state").read_text() == "FROZEN\n"

    def enter(self, unit: str, properties: dict[str, Any]) -> None:
        for directory in self.directories(unit):
            for above in (*reversed(directory.parents), directory):
                if not above.is_dir():
                    above.mkdir()
                    self.made.append(above)
            for pid in properties.get("PIDs", ("au", []))[1]:
                (directory / "cgroup.procs").write_text(str(pid))

    def end(self, directory: Path) -> None:
        from ctr_supervisor.cgroups import files

        for pid in files.all_processes(str(directory)):
            os.kill(pid, signal.SIGKILL)
        files.remove([str(directory)])

    def clean(self) -> None:
        """Removes the cgroups that it made, if nobody uses them."""
        for directory in reversed(self.made):
            if directory.is_dir():
                try:
                    directory.rmdir()
                except OSError:
                    continue


def main() -> None:
    """Serves until it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = Service(Path(sys.argv[1]), cgroups=bool(sys.argv[2]))
    try:
        service.serve()
    finally:
        service.bus.close()
        service.clean()


def installed() -> bool:
    """Whether this host can run it."""
    return shutil.which("dbus-daemon") is not None


if __name__ == "__main__":
    main()
