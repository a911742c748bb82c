"""Engines that run for the whole session, and names for what tests make in them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.docker import Docker
from tests.support.capabilities import all_capabilities, own_capabilities
from tests.support.command import Result
from tests.support.runtime import runtime_under_test

serial = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs the runtime that the engines are given."""
    for item in items:
        if "/clients/" in str(item.path):
            item.add_marker(pytest.mark.needs_ctrun)
            item.add_marker(pytest.mark.needs_root)


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The runtime that the engines use."""
    return runtime_under_test()


@pytest.fixture(scope="session")
def busybox_tar(busybox_rootfs: Path, run_directory: Path) -> Path:
    """The busybox root file system as a tar archive, for `docker import` and `podman import`."""
    import tarfile

    path = run_directory / "busybox.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(busybox_rootfs, ".")
    return path


@pytest.fixture(scope="session")
def docker(run_directory: Path, busybox_tar: Path, runtime: Path) -> Iterator[Docker]:
    """A Docker with the runtime as its default, and the image `busybox`."""
    engine = Docker(run_directory / "docker", runtime, f"ctrtest-docker-{os.getpid()}")
    try:
        engine("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox").ok()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def new_name() -> Callable[[], str]:
    """Factory of unused container names."""
    return lambda: f"ctrtest-{os.getpid()}-{next(serial)}"


@pytest.fixture
def docker_name(docker: Docker, new_name: Callable[[], str]) -> Iterator[str]:
    """An unused container name; the container of that name is removed at the end of the test."""
    name = new_name()
    yield name
    docker("rm", "--force", "--volumes", name)


@pytest.fixture
def docker_background(docker: Docker, docker_name: str) -> Callable[..., str]:
    """Starts a container in the background: `docker_background("-m", "64m", script="…")` returns its name."""

    def start(*flags: str, script: str = "exec sleep 1000") -> str:
        docker("run", "--detach", "--name", docker_name, *flags, "busybox", "sh", "-c", script).ok()
        return docker_name

    return start


@pytest.fixture
def docker_run(docker: Docker) -> Callable[..., Result]:
    """Runs a script in a container of its own: `docker_run("--read-only", script="touch /x")` returns the Result."""

    def run(*flags: str, script: str) -> Result:
        return docker("run", "--rm", *flags, "busybox", "sh", "-c", script)

    return run


@pytest.fixture(scope="session")
def docker_privileged(docker: Docker) -> list[str]:
    """Flags for a privileged container, in a form that works where root lacks a capability that Docker asks for."""
    plain = docker("run", "--rm", "--privileged", "busybox", "true")
    if plain.code == 0:
        return ["--privileged"]
    assert own_capabilities() != all_capabilities(), repr(plain)
    return ["--privileged", "--runtime", "less-capable"]
