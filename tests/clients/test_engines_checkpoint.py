"""Docker's and containerd's checkpoint and restore with the runtime under test."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.containerd import IMAGE, Containerd
from tests.clients.docker import Docker
from tests.support import criu
from tests.support.command import Result
from tests.support.waiting import until

pytestmark = pytest.mark.needs_criu

COUNTER = "i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; sleep 0.05; done"
LIMIT = 120


@pytest.fixture(scope="module")
def runtime_with_criu(runtime: Path, run_directory: Path) -> Path:
    """The runtime, told of a CRIU that works on this kernel."""
    wrapper = run_directory / "ctrun-with-criu"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([str(runtime), "--criu", str(criu.find())])} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture(scope="module")
def experimental_docker(runtime_with_criu: Path, run_directory: Path, busybox_tar: Path) -> Iterator[Docker]:
    """A Docker that takes checkpoints, with the image `busybox`."""
    engine = Docker(
        run_directory / "docker-criu", runtime_with_criu, f"ctrtest-docker-criu-{os.getpid()}", experimental=True
    )
    try:
        engine("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox").ok()
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def containerd_with_criu(runtime_with_criu: Path, run_directory: Path, oci_image: Path) -> Iterator[Containerd]:
    """A containerd whose runtime takes checkpoints, with an image of busybox."""
    engine = Containerd(run_directory / "containerd-criu", runtime_with_criu, f"ctrtest-criu-{os.getpid()}")
    try:
        engine("images", "import", oci_image).ok()
        yield engine
    finally:
        engine.stop()


def goes_on(counted: Callable[[], int], least: int) -> None:
    """Waits until a counter is beyond a number and grows."""
    until("it goes on where it was", lambda: counted() >= least)
    before = counted()
    until("it counts", lambda: counted() > before)


def number(text: str) -> int:
    """What the counter shows; 0 before it has begun."""
    return int(text.strip() or 0)


def start_from(docker: Docker, checkpoint: str, container: str) -> None:
    """Starts a container from a checkpoint.

    Docker hands the images to containerd under their digest, and refuses when containerd still has the copy that
    `checkpoint create` made there and that its garbage collection is to remove.
    """

    def started() -> Result | None:
        result = docker("start", "--checkpoint", checkpoint, container, timeout=LIMIT)
        return None if result.code and "already exists" in result.err else result

    result = until("containerd has removed its copy", started)
    assert result is not None
    result.ok()


@pytest.mark.needs_docker
def test_docker_saves_a_container_and_starts_it_from_there(experimental_docker: Docker) -> None:
    docker = experimental_docker
    name = docker("run", "-d", "--network=none", "--security-opt", "seccomp=unconfined", "busybox", "sh", "-c", COUNTER)
    container = name.text

    def counted() -> int:
        return number(docker("exec", container, "cat", "/count").out)

    goes_on(counted, 5)
    docker("checkpoint", "create", container, "first", timeout=LIMIT).ok()
    until("it has ended", lambda: docker.status(container) == "exited")
    start_from(docker, "first", container)
    goes_on(counted, 5)
    docker("checkpoint", "create", "--leave-running", container, "second", timeout=LIMIT).ok()
    goes_on(counted, 5)
    assert docker("checkpoint", "ls", container).out.split()[2:] == ["first", "second"]
    docker("rm", "-f", container).ok()


@pytest.mark.needs_containerd
@pytest.mark.needs_limits  # ctr asks for shares of the CPU always
def test_containerd_saves_a_task_and_starts_it_from_there(containerd_with_criu: Containerd, directory: Path) -> None:
    ctr = containerd_with_criu
    flags = ["--runc-binary", ctr.runtime, "--null-io"]
    ctr("run", "-d", *flags, IMAGE, "saved", "sh", "-c", COUNTER, timeout=LIMIT).ok()

    def counted() -> int:
        return number(ctr("tasks", "exec", "--exec-id", f"look{os.urandom(4).hex()}", "saved", "cat", "/count").out)

    goes_on(counted, 5)
    images = directory / "images"
    ctr("tasks", "checkpoint", "--image-path", images, "saved", timeout=LIMIT).ok()
    assert list(images.glob("core-*.img"))
    goes_on(counted, 5)
    ctr("containers", "checkpoint", "--rw", "--task", "saved", "localhost/saved:first", timeout=LIMIT).ok()
    ctr("tasks", "kill", "--signal", "KILL", "saved").ok()
    until("it has ended", lambda: "RUNNING" not in ctr("tasks", "ls").out)
    ctr("tasks", "delete", "saved")
    ctr("containers", "delete", "saved").ok()
    ctr("containers", "restore", "--rw", "--live", "saved", "localhost/saved:first", timeout=LIMIT).ok()
    goes_on(counted, 5)
    ctr("tasks", "kill", "--signal", "KILL", "saved").ok()
    until("it has ended", lambda: "RUNNING" not in ctr("tasks", "ls").out)
    ctr("tasks", "delete", "saved")
    ctr("containers", "delete", "saved").ok()
