"""Readiness of a container, passed on to the caller's service manager."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def manager(directory: Path) -> Iterator[socket.socket]:
    """What systemd is to a service: the reader of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(directory / "manager"))
        listening.settimeout(20)
        yield listening


def tell(ctrun: Runtime, container: str, message: bytes) -> None:
    """Says something as the container would, through the file that is bound into it."""
    path = ctrun.state_root / container / "notify/notify.sock"
    until("the container listens", path.exists)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message, str(path))


def answer_barrier(manager: socket.socket) -> None:
    message, fds, _, _ = socket.recv_fds(manager, 100, 1)
    assert message == b"BARRIER=1"
    for fd in fds:
        os.close(fd)


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "NOTIFY_SOCKET": str(directory / "manager")}


def test_a_detached_run_waits_until_the_container_is_ready(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, manager: socket.socket
) -> None:
    path = bundle(args=["sh", "-c", "test -S $NOTIFY_SOCKET && exec sleep 1000"], writable=True)
    with subprocess.Popen(
        [ctrun.path, "run", "-d", "-b", path, container_id], env=environment(directory), stdout=subprocess.DEVNULL
    ) as process:
        tell(ctrun, container_id, b"STATUS=starting\nMAINPID=1")
        tell(ctrun, container_id, b"STATUS=up\nREADY=1")
        # Nothing but readiness comes through, and the pid is the runtime's word for it.
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == f"MAINPID={ctrun.state(container_id)['pid']}".encode()
        answer_barrier(manager)
        assert process.wait(20) == 0
    ctrun("delete", "--force", container_id).ok()


def test_start_waits_for_a_container_that_was_created_with_a_notify_socket(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, manager: socket.socket
) -> None:
    path = bundle(args=["sh", "-c", "test -S $NOTIFY_SOCKET && exec sleep 1000"], writable=True)
    ctrun("create", "-b", path, container_id, env=environment(directory)).ok()
    with subprocess.Popen([ctrun.path, "start", container_id], env=environment(directory)) as process:
        tell(ctrun, container_id, b"READY=1")
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100).startswith(b"MAINPID=")
        answer_barrier(manager)
        assert process.wait(20) == 0
    ctrun("delete", "--force", container_id).ok()


def test_a_foreground_run_passes_readiness_on_and_stays(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, manager: socket.socket
) -> None:
    path = bundle(args=["sleep", "1000"], writable=True)
    with subprocess.Popen([ctrun.path, "run", "-b", path, container_id], env=environment(directory)) as process:
        tell(ctrun, container_id, b"READY=1")
        assert manager.recv(100) == b"READY=1"
        ctrun("kill", container_id, "KILL").ok()
        assert process.wait(20) == 137


def test_a_detached_run_does_not_wait_for_a_dead_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, manager: socket.socket
) -> None:
    ctrun("run", "-d", "-b", bundle(args=["true"], writable=True), container_id, env=environment(directory)).ok()
    ctrun("delete", container_id).ok()
