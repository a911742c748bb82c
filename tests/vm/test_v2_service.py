"""The units of examples/systemd under a real service manager."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.command import run
from tests.support.runtime import ROOT
from tests.support.supervised import Client
from tests.support.waiting import until

UNITS = Path("/run/systemd/system")
NAME = "ctrtest-supervisor"
PLACE = Path("/run/ctrtest-supervisor")

pytestmark = [pytest.mark.needs_busybox, pytest.mark.needs_ctrun]


def systemctl(*words: str) -> str:
    return run("systemctl", *words, timeout=60).ok().text


def main_pid() -> int:
    return int(systemctl("show", "-P", "MainPID", f"{NAME}.service"))


def client() -> Client:
    """A connection; the service is started by it where it does not run."""
    return Client(PLACE / "supervisor.sock")


@pytest.fixture
def units() -> Iterator[None]:
    """Both units under other names, for the programs of this checkout; the socket listens."""
    for kind in ("service", "socket"):
        text = (ROOT / f"examples/systemd/ctr-supervisor.{kind}").read_text()
        text = text.replace("/run/ctrun/", f"{PLACE}/")
        text = text.replace("ctr-supervisor.socket", f"{NAME}.socket")
        text = text.replace("/usr/local/bin/ctr-supervisor", f"{ROOT}/bin/ctr-supervisor")
        flags = f" --root {PLACE}/state --socket {PLACE}/supervisor.sock"
        text = "\n".join(line + flags if line.startswith("Exec") else line for line in text.splitlines())
        # A minute more than a slow machine takes.
        text = text.replace("WatchdogSec=30", "WatchdogSec=90")
        (UNITS / f"{NAME}.{kind}").write_text(text + "\n")
    systemctl("daemon-reload")
    systemctl("start", f"{NAME}.socket")
    yield
    with client() as connected:
        for container in connected.ask("list")["containers"]:
            connected.ask("delete", id=container["id"], force=True)
    systemctl("stop", f"{NAME}.socket", f"{NAME}.service")
    for kind in ("service", "socket"):
        (UNITS / f"{NAME}.{kind}").unlink()
    systemctl("daemon-reload")


@pytest.fixture
def running(units: None, bundle: Bundles, new_container_id: Callable[[], str]) -> tuple[str, int]:
    """A container of the service's: id and pid."""
    name = new_container_id()

    def quick(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["sleep", "1000"]

    with client() as connected:
        pid: int = connected.ask("run", id=name, bundle=str(bundle(quick)))["pid"]
    return name, pid


def still_runs(name: str, pid: int) -> None:
    with client() as connected:
        found = connected.ask("state", id=name)["container"]
    assert (found["status"], found["pid"]) == ("running", pid)


@pytest.mark.vm_short
@pytest.mark.usefixtures("units")
def test_the_first_client_starts_the_service() -> None:
    assert systemctl("show", "-P", "ActiveState", f"{NAME}.service") == "inactive"
    with client() as connected:
        assert connected.ask("status")["pid"] == main_pid()
    until("it is ready", lambda: systemctl("show", "-P", "ActiveState", f"{NAME}.service") == "active")
    assert systemctl("show", "-P", "StatusText", f"{NAME}.service") == "serving"


def test_containers_outlive_restart_and_death_of_the_service(running: tuple[str, int]) -> None:
    before = main_pid()
    systemctl("restart", f"{NAME}.service")
    assert main_pid() != before
    still_runs(*running)
    killed = main_pid()
    os.kill(killed, signal.SIGKILL)
    until("it is started again", lambda: main_pid() not in (0, killed))
    still_runs(*running)
    systemctl("stop", f"{NAME}.service")
    still_runs(*running)


def test_a_reload_is_an_upgrade_of_the_same_process(running: tuple[str, int]) -> None:
    before = main_pid()
    systemctl("reload", f"{NAME}.service")
    assert main_pid() == before
    with client() as connected:
        assert connected.ask("status")["upgrades"] == 1
    still_runs(*running)
    # A client that comes while nobody serves it waits in the socket.
    result = subprocess.run(
        [ROOT / "bin/ctrun", "call", "--socket", PLACE / "supervisor.sock", "status"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(result.stdout)["pid"] == before
