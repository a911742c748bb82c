"""The D-Bus client against a real message bus, with a service manager of the tests' own on it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import systemd_bus
from ctr_supervisor.cgroups.systemd_bus import MANAGER, Bus, BusError, Unreachable, escape
from tests.support import fake_systemd

pytestmark = pytest.mark.needs_command("dbus-daemon")

START = [("Slice", ("s", "system.slice")), ("Delegate", ("b", True)), ("PIDs", ("au", [1]))]


@pytest.fixture
def fake(directory: Path) -> Iterator[fake_systemd.Answer]:
    with fake_systemd.running(directory, cgroups=False) as running:
        yield running


@pytest.fixture
def bus(fake: fake_systemd.Answer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", fake.address)
    with Bus(user=True) as connection:
        yield connection


def test_unit_is_there_when_its_job_is_done(fake, bus):
    bus.start_transient("a.scope", START)
    (call,) = fake.calls("StartTransientUnit")
    assert call["signature"] == "ssa(sv)a(sa(sv))"
    assert bus.unit_properties("a.scope")["Delegate"] == ("b", True)


def test_job_that_fails_is_an_error_and_the_unit_is_forgotten(fake, bus):
    fake.tell(results={"a.scope": "failed"})
    with pytest.raises(CgroupError, match=r"error creating systemd unit `a.scope`: got `failed`"):
        bus.start_transient("a.scope", START)
    assert fake.calls("ResetFailedUnit")


def test_wait_for_a_job_ends(fake, bus, monkeypatch):
    fake.tell(results={"a.scope": None})
    monkeypatch.setattr(systemd_bus, "JOB_TIMEOUT", 0.2)
    with pytest.raises(CgroupError, match="timeout waiting for systemd to create a.scope"):
        bus.start_transient("a.scope", START)


def test_failed_unit_in_the_way_is_cleared_away_once(fake, bus):
    bus.start_transient("a.scope", START)
    fake.tell(failed=["a.scope"])
    bus.start_transient("a.scope", START)
    assert len(fake.calls("StartTransientUnit")) == 3


def test_unit_of_somebody_else_stays_and_is_an_error(fake, bus):
    bus.start_transient("a.scope", START)
    with pytest.raises(BusError) as caught:
        bus.start_transient("a.scope", START)
    assert caught.value.name == systemd_bus.UNIT_EXISTS
    assert not fake.calls("StopUnit")


def test_signal_of_somebody_else_does_not_end_the_wait(fake, bus, monkeypatch):
    from jeepney import DBusAddress, new_signal
    from jeepney.io.blocking import open_dbus_connection

    fake.tell(results={"a.scope": None})
    monkeypatch.setattr(systemd_bus, "JOB_TIMEOUT", 0.5)
    with open_dbus_connection(fake.address) as stranger:
        forged = new_signal(
            DBusAddress(systemd_bus.OBJECT, interface=MANAGER),
            "JobRemoved",
            "uoss",
            (1, f"{systemd_bus.OBJECT}/job/1", "a.scope", "done"),
        )
        names = stranger.send_and_get_reply(list_names()).body[0]
        for name in names:
            if name.startswith(":") and name != stranger.unique_name:
                from jeepney.low_level import HeaderFields

                forged.header.fields[HeaderFields.destination] = name
                stranger.send(forged)
        # the bus has passed them on before it answers this
        stranger.send_and_get_reply(list_names())
        with pytest.raises(CgroupError, match="timeout"):
            bus.start_transient("a.scope", START)


def list_names():
    from jeepney.bus_messages import message_bus

    return message_bus.ListNames()


def test_property_of_the_wrong_type_is_refused_by_name(bus):
    with pytest.raises(BusError, match="MemoryMax") as caught:
        bus.start_transient("a.scope", [*START, ("MemoryMax", ("u", 5))])
    assert caught.value.name == "org.freedesktop.DBus.Error.InvalidArgs"


def test_value_that_does_not_fit_its_type_is_an_error_of_ours(bus):
    with pytest.raises(CgroupError, match="does not fit its type"):
        bus.set_properties("a.scope", [("MemoryMax", ("t", 1 << 64))])
    with pytest.raises(CgroupError, match="does not fit its type"):
        bus.set_properties("a.scope", [("Description", ("s", "\ud800"))])


def test_properties_are_changed_until_the_next_boot(fake, bus):
    bus.start_transient("a.scope", START)
    bus.set_properties("a.scope", [("TasksMax", ("t", 5)), ("DeviceAllow", ("a(ss)", [("char-*", "m")]))])
    assert fake.calls("SetUnitProperties")[0]["body"][1] is True
    found = bus.unit_properties("a.scope")
    assert (found["TasksMax"], found["DeviceAllow"]) == (("t", 5), ("a(ss)", [("char-*", "m")]))


def test_stopping_what_is_not_there_is_fine(fake, bus):
    bus.stop("a.scope")
    assert [call["member"] for call in fake.calls()] == ["StopUnit", "ResetFailedUnit"]


def test_process_is_attached_below_the_unit(fake, bus):
    bus.start_transient("a.scope", START)
    bus.attach("a.scope", "", 7)
    bus.attach("a.scope", "b/c", 7)
    assert [call["body"] for call in fake.calls("AttachProcessesToUnit")] == [
        ["a.scope", "", [7]],
        ["a.scope", "/b/c", [7]],
    ]


@pytest.mark.parametrize(
    ("text", "number"), [("257.4-1", 257), ("v245", 245), ('"v241-rc1"', 241), ("239 (239-1)", 239), ("odd", -1)]
)
def test_release_is_the_first_number_of_its_name(fake, bus, text, number):
    fake.tell(version=text)
    assert bus.version() == number


def test_unit_s_name_is_part_of_a_path():
    assert escape("docker-1.scope") == "docker_2d1_2escope"
    assert escape("1a") == "_31a"


# -- the way to it


def test_no_bus_at_the_address_is_told_with_what_to_do(directory, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={directory}/none")
    with pytest.raises(Unreachable, match="failed to connect to the user service manager") as caught:
        Bus(user=True)
    assert "enable-linger" in str(caught.value)


@pytest.mark.parametrize("address", ["nonsense", "tcp:host=x", ""])
def test_address_of_another_form_is_told(address, monkeypatch, directory):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setattr(os, "geteuid", lambda: 4000000000)
    with pytest.raises(Unreachable):
        Bus(user=True)


def test_user_s_bus_is_looked_for_in_the_runtime_directory(fake, directory, monkeypatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    with Bus(user=True) as bus:
        assert bus.version() == 257


def test_first_of_several_addresses_that_answers_is_used(fake, directory, monkeypatch):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={directory}/none;{fake.address},guid=00")
    with Bus(user=True) as bus:
        assert bus.version() == 257


def peer(directory: Path, script: list[bytes]) -> tuple[str, threading.Thread]:
    """A server that says one thing after each that it hears, and then no more."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{directory}/odd")
    server.listen()

    def serve() -> None:
        with server:
            client, _ = server.accept()
            # who gives up on us hangs up with our words unread
            with client, suppress(ConnectionError):
                for line in script:
                    client.recv(4096)
                    client.sendall(line)
                while client.recv(4096):
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    return f"unix:path={directory}/odd", thread


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ([b"REJECTED EXTERNAL\r\n"], "authentication was refused"),
        ([b"DATA\r\nREJECTED\r\n"], "authentication was refused"),
        ([b"x" * 10000], "no end"),
        ([b"DATA\r\nOK 00\r\n", b"x" * 100], "can't be read"),
        ([b"DATA\r\nOK 00\r\n", b"l\4\0\1" + b"\xff" * 12], "too long"),
        ([], "no answer in time"),
        ([b"DATA\r\nOK 00\r\n"], "no answer in time"),
    ],
)
def test_peer_that_is_no_bus_is_given_up(script, complaint, directory, monkeypatch):
    monkeypatch.setattr(systemd_bus, "CONNECT_TIMEOUT", 0.3)
    address, thread = peer(directory, script)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    with pytest.raises(Unreachable, match=complaint):
        Bus(user=True)
    thread.join(10)


def test_host_without_systemd_is_told_so(monkeypatch, directory):
    monkeypatch.setattr(systemd_bus, "BOOTED", f"{directory}/none")
    with pytest.raises(systemd_bus.NotSupported, match="systemd cgroup flag passed, but systemd support"):
        systemd_bus.require_systemd()
