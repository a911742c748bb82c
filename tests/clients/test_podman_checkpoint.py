"""Podman's checkpoint and restore with the runtime under test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.podman import Podman
from tests.support import criu
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_podman, pytest.mark.needs_criu]

# By rename: between the opening and the write of a redirection a reader finds nothing.
COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /next; mv /next /count; sleep 0.05; done"


@pytest.fixture
def podman_with_criu(podman: Podman, tmp_path: Path) -> Iterator[Podman]:
    """The podman command with a CRIU on its PATH that works on this kernel."""
    (tmp_path / "criu").symlink_to(criu.find())
    before = podman.env["PATH"]
    podman.env["PATH"] = f"{tmp_path}:{before}"
    yield podman
    podman.env["PATH"] = before


def counted(podman: Podman, name: str) -> int:
    """How far it has counted."""
    text = podman("exec", name, "cat", "/count").out.strip()
    return int(text or 0)


def test_a_container_is_checkpointed_and_restored(podman_with_criu: Podman) -> None:
    podman = podman_with_criu
    name = podman("run", "-d", "--network=none", "busybox", "sh", "-c", COUNTER).text
    until("it counts", lambda: counted(podman, name) > 2)
    podman("container", "checkpoint", name).ok()
    assert podman.status(name) in ("exited", "stopped")
    podman("container", "restore", name).ok()
    assert podman.status(name) == "running"
    before = counted(podman, name)
    assert before > 2
    until("it goes on", lambda: counted(podman, name) > before)
    podman("rm", "-f", "-t", "0", name).ok()


def test_an_exported_checkpoint_is_imported_under_another_name(podman_with_criu: Podman, tmp_path: Path) -> None:
    podman = podman_with_criu
    name = podman("run", "-d", "--network=none", "busybox", "sh", "-c", COUNTER).text
    until("it counts", lambda: counted(podman, name) > 2)
    archive = tmp_path / "checkpoint.tar.gz"
    podman("container", "checkpoint", "--export", archive, name).ok()
    podman("rm", "-f", name).ok()
    podman("container", "restore", "--import", archive, "--name", "second").ok()
    before = counted(podman, "second")
    assert before > 2
    until("it goes on", lambda: counted(podman, "second") > before)
    podman("rm", "-f", "-t", "0", "second").ok()


def test_a_container_is_left_running(podman_with_criu: Podman) -> None:
    podman = podman_with_criu
    name = podman("run", "-d", "--network=none", "busybox", "sh", "-c", COUNTER).text
    until("it counts", lambda: counted(podman, name) > 2)
    podman("container", "checkpoint", "--leave-running", name).ok()
    before = counted(podman, name)
    until("it goes on", lambda: counted(podman, name) > before)
    podman("rm", "-f", "-t", "0", name).ok()
