"""Containers of the Python API, in this process and in a supervisor."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ctr_supervisor as api
from tests.support.bundles import Config, copy_rootfs, default_config
from tests.support.supervised import Supervisor

ENVIRONMENT = {"PATH": "/bin:/sbin:/usr/bin:/usr/sbin"}


def script(text: str, **options: Any) -> api.Process:
    """A process that runs a shell script."""
    return api.Process(["sh", "-c", text], **{"env": ENVIRONMENT, "stdin": api.DEVNULL, **options})


def init(text: str = "exec sleep 1000", **options: Any) -> api.Process:
    """The same as a container's first process."""
    return script(text, init=True, **options)


def open_fds() -> list[str]:
    """What this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the one that lists them
            continue
    return sorted(found)


def zombies() -> list[int]:
    """Dead children that nobody has waited for."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        children = Path(f"/proc/self/task/{thread}/children").read_text().split()
        for pid in children:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            if stat.rpartition(")")[2].split()[0] == "Z":
                found.append(int(pid))
    return found


@pytest.fixture
def config(busybox_rootfs: Path, directory: Path) -> Config:
    """A configuration without a process, with a root file system of the test's own."""
    made = default_config()
    del made["process"]
    made["root"] = {"path": str(directory / "image"), "readonly": True}
    copy_rootfs(busybox_rootfs, directory / "image")
    return made


@pytest.fixture
def state_root(directory: Path) -> str:
    """A state root of the test's own."""
    return str(directory / "state")


Make = Callable[..., api.Container]


@pytest.fixture
def make(state_root: str, config: Config, new_container_id: Callable[[], str]) -> Iterator[Make]:
    """Factory of containers of this process: `make(config, …)`; destroyed at the end."""
    made: list[api.Container] = []

    def new(given: Config | None = None, **options: Any) -> api.Container:
        made.append(api.create(state_root, new_container_id(), given or config, **options))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for container in made:
        container.destroy(force=True)


@pytest.fixture
def supervisor_process(directory: Path) -> Iterator[Supervisor]:
    """A running supervisor."""
    running = Supervisor(directory).start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def supervisor(supervisor_process: Supervisor) -> Iterator[api.Supervisor]:
    """A connection to it."""
    with api.connect(str(supervisor_process.socket)) as connected:
        yield connected


@pytest.fixture(params=["direct", "supervised"])
def make_any(request: pytest.FixtureRequest, config: Config, new_container_id: Callable[[], str]) -> Iterator[Make]:
    """As `make`, once in this process and once in a supervisor."""
    if request.param == "direct":
        yield request.getfixturevalue("make")
        return
    supervisor: api.Supervisor = request.getfixturevalue("supervisor")
    made: list[api.Container] = []

    def new(given: Config | None = None, **options: Any) -> api.Container:
        made.append(supervisor.create(new_container_id(), given or config, **options))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for container in made:
        container.destroy(force=True)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails a test after which this process has more fds, threads or dead children than before."""
    fds, threads = open_fds(), threading.active_count()
    yield
    assert open_fds() == fds
    assert threading.active_count() == threads
    assert zombies() == []
