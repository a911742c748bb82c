"""Dumps that fail for a known cause: the container goes on, the reason is told, and the flag in the hint helps."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.criu.conftest import LIMIT, Restorable, run_detached
from tests.support.bundles import Config
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_criu,
    pytest.mark.needs_command("musl-gcc"),
    pytest.mark.usefixtures("no_leaks"),
]
covers = pytest.mark.covers
Holding = Callable[..., Restorable]


def hint(box: Restorable, *flags: str) -> str:
    """The hint that a terminal shows for a checkpoint that fails, with all else that it shows."""
    argv = [box.ctrun.path, *box.ctrun.globals, *box.criu, "checkpoint", "--image-path", box.images, *flags]
    with Terminal(*argv, box.container_id) as terminal:
        assert terminal.wait(LIMIT) == 1
        return terminal.seen


def refused(box: Restorable, message: str, advice: str) -> None:
    """A plain checkpoint and a look beforehand both tell the reason, and the container goes on."""
    pid = box.pid
    found = box.ctrun(*box.criu, "checkpoint", "--check", box.container_id)
    assert (found.code, found.err) == (1, "")
    assert advice in found.out
    result = box.checkpoint()
    assert result.code == 1
    assert message in result.err
    assert "criu failed: type DUMP" in result.err.splitlines()[-1]
    assert f"log file: {box.work}/dump.log" in result.err.splitlines()[-1]
    assert (box.status, box.pid) == ("running", pid)
    shown = hint(box)
    assert "hint: " in shown
    assert advice in shown[shown.index("hint: ") :]
    assert box.status == "running"


def allowed(box: Restorable, *flags: str) -> None:
    """With these flags it is saved and restored, and a look beforehand finds nothing."""
    assert box.ctrun(*box.criu, "checkpoint", "--check", *flags, box.container_id).text == ""
    box.checkpoint(*flags).ok()
    box.restore(*[flag for flag in flags if flag in ("--ext-unix-sk", "--file-locks")]).ok()
    assert box.status == "running"
    box.end()


@covers("checkpoint --check")
def test_nothing_is_found_where_nothing_is(box: Restorable) -> None:
    box.count().counts()
    assert box.ctrun(*box.criu, "checkpoint", "--check", box.container_id).text == ""
    assert box.ctrun(*box.criu, "checkpoint", "--check", "--format", "json", box.container_id).text == "[]"
    assert not box.images.exists()
    box.counts()
    box.end()


@contextmanager
def listening(path: Path) -> Iterator[Callable[[], None]]:
    """A unix socket, and what takes a connection to it."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen()

        def accept() -> None:
            stack.enter_context(server.accept()[0])

        yield accept


def bound(directory: Path) -> Callable[[Config], None]:
    """A configuration that shows a directory of the host as /outside."""

    def mutate(config: Config) -> None:
        mount = {"destination": "/outside", "type": "bind", "source": str(directory), "options": ["rbind", "rw"]}
        config["mounts"].append(mount)

    return mutate


def test_a_unix_socket_to_the_outside(holding: Holding, directory: Path) -> None:
    with listening(directory / "s") as accept:
        box = holding("unix", "/outside/s", mutate=bound(directory))
        accept()
        refused(box, "unix", "--ext-unix-sk")
        box.end()


@covers("checkpoint --file-locks", "restore --file-locks")
def test_a_file_lock(holding: Holding) -> None:
    box = holding("lock", "/dev/shm/file")
    refused(box, "file locks", "--file-locks")
    allowed(box, "--file-locks")


@covers("checkpoint --link-remap")
def test_a_deleted_mapped_file_with_another_name(holding: Holding, directory: Path) -> None:
    box = holding("linked", "/outside/file", mutate=bound(directory))
    refused(box, "link", "--link-remap")
    allowed(box, "--link-remap")


@covers("checkpoint --ghost-limit")
def test_a_large_deleted_file(holding: Holding) -> None:
    box = holding("ghost", "/dev/shm/file", str(2 * 1024 * 1024))
    refused(box, "ghost", "--ghost-limit")
    allowed(box, "--ghost-limit", "4M")


def test_something_that_criu_can_not_save(holding: Holding) -> None:
    box = holding("ring")
    refused(box, "FDs", "CRIU can't save")
    box.end()


def test_a_file_outside_of_the_container_as_stdio(ctrun: Runtime, box: Restorable, directory: Path) -> None:
    # A plain sleep would end: on a slow machine CRIU leaves it an interrupted system call.
    box.bundle = box.bundles(args=["sh", "-c", "while :; do sleep 1000; done"])
    with (directory / "output").open("w") as output:
        run_detached(ctrun, "run", "-d", "-b", box.bundle, box.container_id, stdout=output).ok()
    refused(box, "Can't lookup mount", "pipes or /dev/null")
    box.end()
