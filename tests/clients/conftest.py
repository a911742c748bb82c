"""Engines that run for the whole session, and names for what tests make in them."""

from __future__ import annotations

import itertools
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.containerd import oci_archive
from tests.clients.docker import Docker
from tests.clients.podman import Podman
from tests.clients.users import User
from tests.support.bundles import copy_rootfs
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
    path = run_directory / "busybox.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(busybox_rootfs, ".")
    return path


@pytest.fixture(scope="session")
def oci_image(busybox_tar: Path, run_directory: Path) -> Path:
    """The busybox root file system as an OCI image archive."""
    path = run_directory / "busybox.oci.tar"
    oci_archive(busybox_tar, path)
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


@pytest.fixture(scope="session")
def plain_user(run_directory: Path) -> Iterator[User]:
    """An ordinary user of the host, with subordinate ids."""
    user = User(f"ctrtest{os.getpid()}", run_directory / "home")
    yield user
    user.remove()


PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _fill(podman: Podman, busybox_tar: Path, pause_tar: Path) -> None:
    podman("import", "--change", "CMD sh", "--change", f"ENV {PATH}", busybox_tar, "busybox").ok()
    podman("import", "--change", 'ENTRYPOINT ["/pause"]', pause_tar, "pause").ok()


@pytest.fixture(scope="session")
def pause_tar(busybox_rootfs: Path, run_directory: Path) -> Path:
    """An image for the container that holds a pod's namespaces: it waits, and ends when it is told to."""
    rootfs = run_directory / "pause"
    copy_rootfs(busybox_rootfs, rootfs)
    (rootfs / "pause").write_text("#!/bin/sh\ntrap 'exit 0' TERM INT\nwhile :; do sleep 1000 & wait $!; done\n")
    (rootfs / "pause").chmod(0o755)
    path = run_directory / "pause.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(rootfs, ".")
    return path


@pytest.fixture(scope="session")
def podman(
    run_directory: Path, busybox_tar: Path, pause_tar: Path, runtime: Path, plain_user: User
) -> Iterator[Podman]:
    """A Podman of root with the runtime as its default, and the images `busybox` and `pause`."""
    engine = Podman(run_directory / "podman", runtime, plain_user)
    try:
        _fill(engine, busybox_tar, pause_tar)
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def rootless_podman(
    run_directory: Path, busybox_tar: Path, pause_tar: Path, runtime: Path, plain_user: User
) -> Iterator[Podman]:
    """The same of an ordinary user."""
    engine = Podman(run_directory / "rootless", runtime, plain_user, rootless=True)
    try:
        _fill(engine, busybox_tar, pause_tar)
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


@pytest.fixture
def podman_name(podman: Podman, new_name: Callable[[], str]) -> Iterator[str]:
    """An unused container name; the container of that name is removed at the end of the test."""
    name = new_name()
    yield name
    podman("rm", "--force", "--time", "0", "--ignore", name)


@pytest.fixture
def podman_background(podman: Podman, podman_name: str) -> Callable[..., str]:
    """Starts a container in the background; returns its name."""

    def start(*flags: str, script: str = "exec sleep 1000") -> str:
        podman("run", "--detach", "--name", podman_name, *flags, "busybox", "sh", "-c", script).ok()
        return podman_name

    return start


@pytest.fixture
def podman_run(podman: Podman) -> Callable[..., Result]:
    """Runs a script in a container of its own."""

    def run(*flags: str, script: str) -> Result:
        return podman("run", "--rm", *flags, "busybox", "sh", "-c", script)

    return run
