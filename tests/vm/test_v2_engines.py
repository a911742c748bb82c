"""Docker, Podman and containerd on real cgroup v2, each with both ways to make cgroups."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import busybox_tar, oci_image, runtime
from tests.clients.containerd import Containerd
from tests.clients.docker import Docker
from tests.clients.podman import Podman
from tests.support.command import Result, run
from tests.support.leaks import cgroups
from tests.support.waiting import until
from tests.vm.users import SessionUser

# fixtures of the tests of these engines
__all__ = ["busybox_tar", "oci_image", "runtime"]

DRIVERS = ["cgroupfs", "systemd"]
MIB = 1 << 20
LIMITS = ["--memory", "32m", "--memory-swap", "32m", "--pids-limit", "20", "--cpus", "0.5"]
SHOW = "cd /sys/fs/cgroup && cat memory.max memory.swap.max pids.max cpu.max /proc/self/cgroup"
SHOWN = [str(32 * MIB), "0", "20", "50000 100000", "0::/"]
# where the container sees the host's cgroups, as it does without a cgroup namespace
ENTER = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)"
PREFIX = f"ctrtest-{os.getpid()}"


@pytest.fixture(scope="module", params=DRIVERS)
def docker(request: pytest.FixtureRequest, run_directory: Path, busybox_tar: Path, runtime: Path) -> Iterator[Docker]:
    """A Docker that makes cgroups in one of the ways."""
    made = Docker(
        run_directory / f"v2docker-{request.param}", runtime, f"ctrtest-v2docker-{os.getpid()}", request.param
    )
    try:
        made("import", "--change", 'CMD ["sh"]', busybox_tar, "busybox").ok()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module", params=DRIVERS)
def podman(
    request: pytest.FixtureRequest, run_directory: Path, busybox_tar: Path, runtime: Path, session_user: SessionUser
) -> Iterator[Podman]:
    """A Podman of root that has cgroups made in one of the ways."""
    made = Podman(run_directory / f"v2podman-{request.param}", runtime, session_user, driver=request.param)
    try:
        made("import", busybox_tar, "busybox").ok()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def containerd(run_directory: Path, oci_image: Path, runtime: Path) -> Iterator[Containerd]:
    """A containerd; each container says how its cgroups are made."""
    made = Containerd(run_directory / "v2containerd", runtime, f"ctrtest-v2containerd-{os.getpid()}")
    try:
        made("images", "import", oci_image).ok()
        yield made
    finally:
        made.stop()


@pytest.mark.vm_short
@pytest.mark.needs_docker
def test_docker_limits_are_in_force(docker: Docker):
    assert docker("run", "--rm", *LIMITS, "busybox", "sh", "-c", SHOW).lines == SHOWN


@pytest.mark.needs_docker
def test_docker_container_goes_through_its_states(docker: Docker):
    name = f"{PREFIX}-docker"
    docker("run", "--detach", "--name", name, *LIMITS, "busybox", "sleep", "1000").ok()
    identity = docker.inspect(name)["Id"]
    assert len(cgroups(identity)) == 1
    assert docker("exec", name, "sh", "-c", SHOW).lines == SHOWN
    docker("pause", name).ok()
    assert docker.status(name) == "paused"
    docker("unpause", name).ok()
    docker("update", "--pids-limit", "30", name).ok()
    assert docker("exec", name, "cat", "/sys/fs/cgroup/pids.max").text == "30"
    assert "sleep 1000" in docker("top", name).out
    docker("rm", "--force", name).ok()
    until("its cgroup is gone", lambda: not cgroups(identity))


@pytest.mark.needs_docker
def test_docker_tells_of_memory_that_ran_out(docker: Docker):
    name = f"{PREFIX}-oom"
    limit = ["--memory", "16m", "--memory-swap", "16m"]
    assert docker("run", "--name", name, *limit, "busybox", "tail", "/dev/zero").code == 137
    assert docker.inspect(name)["State"]["OOMKilled"]
    docker("rm", name).ok()


@pytest.mark.vm_short
@pytest.mark.needs_podman
def test_podman_limits_are_in_force(podman: Podman):
    assert podman("run", "--rm", "--network=none", *LIMITS, "busybox", "sh", "-c", SHOW).lines == SHOWN


@pytest.mark.needs_podman
def test_podman_container_goes_through_its_states(podman: Podman):
    name = f"{PREFIX}-podman"
    podman("run", "--detach", "--network=none", "--name", name, *LIMITS, "busybox", "sleep", "1000").ok()
    identity = podman.inspect(name)["Id"]
    assert podman("exec", name, "sh", "-c", SHOW).lines == SHOWN
    podman("pause", name).ok()
    assert podman.status(name) == "paused"
    podman("unpause", name).ok()
    podman("update", "--pids-limit", "30", name).ok()
    assert podman("exec", name, "cat", "/sys/fs/cgroup/pids.max").text == "30"
    podman("rm", "--force", "--time", "0", name).ok()
    until("its cgroup is gone", lambda: not cgroups(identity))


@pytest.mark.needs_podman
def test_podman_pod_limits_all_of_its_containers(podman: Podman):
    name = f"{PREFIX}-pod"
    podman("pod", "create", "--name", name, "--infra=false", "--memory", "64m").ok()
    script = f"{ENTER} && cat /proc/self/cgroup pids.max ../memory.max"
    flags = ["--pod", name, "--cgroupns=host", "--network=none", "--pids-limit", "7"]
    lines = podman("run", "--rm", *flags, "busybox", "sh", "-c", script).lines
    assert "libpod" in lines[0]
    assert lines[1:] == ["7", str(64 * MIB)]
    podman("pod", "rm", "--force", "--time", "0", name).ok()


def rootless_podman(
    user: SessionUser, run_directory: Path, archive: Path, runtime: Path, driver: str
) -> Callable[..., Result]:
    """A Podman of a logged-in user."""
    directory = run_directory / f"v2rootless-{driver}"
    made = Podman(directory, runtime, user, rootless=True, driver=driver)
    made.env |= user.env()
    keep = {name: made.env[name] for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")}
    settings = [f"{name}={value}" for name, value in keep.items()]

    def podman(*args: str) -> Result:
        __tracebackhide__ = True
        words = ["podman", *made.storage_flags, "--tmpdir", f"{directory}/tmp", *args]
        return user.run_in_scope("env", "-C", str(directory), *settings, *words, timeout=60)

    podman("import", str(archive), "busybox").ok()
    return podman


@pytest.mark.needs_podman
@pytest.mark.parametrize("driver", DRIVERS)
def test_podman_of_an_ordinary_user_has_its_limits(
    session_user: SessionUser, run_directory: Path, busybox_tar: Path, runtime: Path, driver: str
):
    podman = rootless_podman(session_user, run_directory, busybox_tar, runtime, driver)
    # systemd delegates cpu, memory and pids to the user's manager
    assert podman("run", "--rm", "--network=none", *LIMITS, "busybox", "sh", "-c", SHOW).lines == SHOWN
    oom = podman("run", "--rm", "--network=none", "--memory=16m", "--memory-swap=16m", "busybox", "tail", "/dev/zero")
    assert oom.code == 137
    podman("system", "reset", "--force").ok()


@pytest.mark.vm_short
@pytest.mark.needs_containerd
@pytest.mark.parametrize("driver", DRIVERS)
def test_containerd_limits_are_in_force(containerd: Containerd, driver: str):
    name = f"{PREFIX}-ctr-{driver}"
    flags = ["--memory-limit", str(32 * MIB), "--cpus", "0.5"]
    if driver == "systemd":
        flags += ["--runc-systemd-cgroup", "--cgroup", f"system.slice:ctrtest:{name}"]
    containerd.run("--detach", *flags, name=name, script="exec sleep 1000").ok()
    # ctr gives its containers no view of their cgroups
    found = [Path(line.removeprefix("cgroup ")) for line in cgroups(name)]
    values = [(path / file).read_text() for path in found for file in ("memory.max", "cpu.max")]
    containerd("tasks", "rm", "--force", name).ok()
    containerd("containers", "rm", name).ok()
    assert values == [f"{32 * MIB}\n", "50000 100000\n"]
    until("its cgroup is gone", lambda: not cgroups(name))


@pytest.mark.needs_containerd
@pytest.mark.parametrize("driver", DRIVERS)
def test_containerd_measures_tasks(containerd: Containerd, driver: str):
    name = f"{PREFIX}-metrics-{driver}"
    flags = ["--runc-systemd-cgroup", "--cgroup", f"system.slice:ctrtest:{name}"] if driver == "systemd" else []
    containerd.run("--detach", *flags, name=name, script="exec sleep 1000").ok()
    assert int(containerd.metrics(name)["pids.current"]) == 1
    containerd("tasks", "pause", name).ok()
    assert containerd.status(name) == "PAUSED"
    containerd("tasks", "resume", name).ok()
    containerd("tasks", "kill", "--signal", "KILL", name).ok()
    until("it has stopped", lambda: containerd.status(name) == "STOPPED")
    containerd("tasks", "rm", name).ok()
    containerd("containers", "rm", name).ok()
    assert not run("sh", "-c", f"ls -d /sys/fs/cgroup/*/*{name}*").out
