"""Containers as the registry sees them: state directories and real processes, without anything of a container."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.state import StateDir
from ctr_supervisor.process.status import read_stat
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.registry import Registry

LIMIT = 10.0


def sleeper() -> int:
    """A child that lives until it is killed."""
    return os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsigmask=())


class Pretender:
    """Makes state directories, in the steps in which a creation does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.children: set[int] = set()
        root.mkdir(mode=0o700, exist_ok=True)

    def directory(self, container_id: str) -> StateDir:
        return StateDir(str(self.root), container_id)

    def begin(self, container_id: str, **more: Any) -> StateDir:
        """Up to the intent; the lock is held."""
        directory = self.directory(container_id)
        directory.make()
        state = {
            "id": container_id,
            "bundle": "/b",
            "rootfs": "/b/r",
            "created": f"2026-01-01T00:00:00.{time.monotonic_ns()}Z",
        }
        directory.save(state | {"init_process_pid": 0, "init_process_start": 0, "prepared": False} | more)
        return directory

    def create(self, container_id: str, pid: int | None = None, **more: Any) -> int:
        """As `create` leaves it; the pid of its process."""
        directory = self.begin(container_id, **more)
        if pid is None:
            pid = sleeper()
            self.children.add(pid)
        found = read_stat(pid)
        state = directory.load() | {"init_process_pid": pid, "init_process_start": found[1] if found else 1}
        directory.save(state)
        directory.make_fifo(os.geteuid(), os.getegid())
        directory.save(state | {"prepared": True})
        directory.unlock()
        return pid

    def start(self, container_id: str) -> None:
        directory = self.directory(container_id)
        directory.lock()
        directory.remove_fifo()
        directory.unlock()

    def run(self, container_id: str, **more: Any) -> int:
        """As `run --detach` leaves it."""
        pid = self.create(container_id, **more)
        self.start(container_id)
        return pid

    def delete(self, container_id: str) -> None:
        directory = self.directory(container_id)
        directory.lock()
        directory.remove()

    def kill(self, pid: int) -> None:
        """Ends a process, which stays a zombie."""
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def reap(self, pid: int) -> None:
        """As its parent does."""
        self.children.discard(pid)
        os.waitpid(pid, 0)

    def end(self) -> None:
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pretend(directory: Path) -> Iterator[Pretender]:
    made = Pretender(directory / "root")
    yield made
    made.end()


@pytest.fixture
def told() -> list[dict[str, Any]]:
    """The events that were told."""
    return []


@pytest.fixture
def new_registry(loop: Loop, pretend: Pretender, told: list[dict[str, Any]]) -> Iterator[Callable[..., Registry]]:
    made = []

    def new(**more: Any) -> Registry:
        made.append(Registry(str(pretend.root), loop, told.append, **more))
        return made[-1]

    yield new
    for registry in made:
        registry.close()


@pytest.fixture
def registry(new_registry: Callable[..., Registry]) -> Registry:
    return new_registry()


def serve_until(loop: Loop, condition: Callable[[], bool]) -> None:
    """Runs the loop until something has happened."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        loop.run_once(1)
