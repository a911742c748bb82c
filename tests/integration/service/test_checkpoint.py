"""Checkpoint and restore by requests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ctr_common.errors import ConfigError, ContainerNotFound, WrongState
from tests.support import criu
from tests.support.bundles import Bundles
from tests.support.command import run
from tests.support.runtime import ROOT
from tests.support.supervised import Client, Supervisor
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_criu]

LIMIT = 90
CTRUN = ROOT / "bin/ctrun"
COUNT = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; mv /dev/shm/new /dev/shm/count; done"


def counted(pid: int) -> int:
    """How far the container has counted."""
    try:
        return int(Path(f"/proc/{pid}/root/dev/shm/count").read_text() or 0)
    except (OSError, ValueError):
        return 0


def test_a_container_goes_on_from_its_images(
    client: Client, bundle: Bundles, container_id: str, directory: Path
) -> None:
    made = str(bundle(args=["sh", "-c", COUNT]))
    where = {"image_path": str(directory / "images"), "work_path": str(directory / "work"), "criu": str(criu.find())}
    (directory / "images").mkdir()
    (directory / "work").mkdir()
    client.ask("subscribe")
    pid = client.ask("run", id=container_id, bundle=made)["pid"]
    until("it counts", lambda: counted(pid) > 10)
    before = counted(pid)
    with client.answer(client.send("checkpoint", id=container_id, **where), LIMIT) as packet:
        assert packet.body["stats"]
    assert isinstance(client.failure("state", id=container_id), ContainerNotFound)
    with client.answer(client.send("restore", id=container_id, bundle=made, **where), LIMIT) as packet:
        pid = packet.body["pid"]
        assert client.ask("state", id=container_id)["container"]["pid"] == pid
        until("it goes on to count", lambda: counted(pid) > before)
        signal.pidfd_send_signal(packet.fd("pidfd"), signal.SIGKILL)
    client.ask("wait", id=container_id)
    told = [client.event()["event"] for _ in range(5)]
    assert told[:4] == ["created", "started", "exited", "deleted"]
    client.ask("delete", id=container_id)
    assert os.listdir(directory / "images")


def test_a_checkpoint_of_the_command_line_is_served(
    supervisor: Supervisor, client: Client, bundle: Bundles, container_id: str, directory: Path
) -> None:
    pid = client.ask("run", id=container_id, bundle=str(bundle(args=["sh", "-c", COUNT])))["pid"]
    until("it counts", lambda: counted(pid) > 10)
    flags = [f"--supervisor={supervisor.socket}", "--root", supervisor.root, "--criu", criu.find(), "checkpoint"]
    images = ["--image-path", directory / "images"]
    commands = client.ask("status")["commands"]
    run(CTRUN, *flags, *images, "--leave-running", container_id, timeout=LIMIT).ok()
    before = counted(pid)
    until("it goes on", lambda: counted(pid) > before)
    run(CTRUN, *flags, *images, container_id, timeout=LIMIT).ok()
    assert client.ask("status")["commands"] == commands + 2
    assert isinstance(client.failure("state", id=container_id), ContainerNotFound)
    assert (directory / "images/inventory.img").exists()


def test_flags_are_checked(client: Client, bundle: Bundles, container_id: str, directory: Path) -> None:
    assert isinstance(client.failure("checkpoint", id=container_id), ConfigError)
    assert isinstance(client.failure("checkpoint", id=container_id, image_path="relative"), ConfigError)
    assert "image_path" in str(client.failure("checkpoint", id=container_id, image_path=5))
    images = str(directory / "images")
    assert isinstance(client.failure("checkpoint", id=container_id, image_path=images), ContainerNotFound)
    client.ask("create", id=container_id, bundle=str(bundle(args=["sleep", "600"])))
    assert isinstance(client.failure("checkpoint", id=container_id, image_path=images), WrongState)
