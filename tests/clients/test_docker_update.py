"""`docker update` and `podman update`: the engines hand new limits to the runtime."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.docker import Docker
from tests.clients.podman import Podman
from tests.clients.test_docker_options import cgroup_file

Background = Callable[..., str]

MEMORY = cgroup_file("memory/memory.limit_in_bytes", "memory.max")
PIDS = cgroup_file("pids/pids.max", "pids.max")
CPUS = cgroup_file("cpuset/cpuset.cpus", "cpuset.cpus")
QUOTA = cgroup_file("cpu/cpu.cfs_quota_us", "cpu.max")


@pytest.mark.needs_docker
@pytest.mark.needs_limits
def test_docker_changes_the_limits_of_a_running_container(docker: Docker, docker_background: Background):
    name = docker_background("-m", "64m", "--memory-swap", "64m")
    docker("update", "-m", "96m", "--memory-swap", "96m", "--pids-limit", "33", "--cpuset-cpus", "0", name).ok()
    shown = docker("exec", name, "sh", "-c", f"{MEMORY}; {PIDS}; {CPUS}").text.split()
    assert shown == [str(96 << 20), "33", "0"]


@pytest.mark.needs_docker
@pytest.mark.needs_limits
def test_docker_changes_one_limit_and_the_others_stay(docker: Docker, docker_background: Background):
    name = docker_background("-m", "64m", "--memory-swap", "64m", "--pids-limit", "44")
    docker("update", "--cpus", "0.5", name).ok()
    shown = docker("exec", name, "sh", "-c", f"{MEMORY}; {PIDS}; {QUOTA}").text.split()
    assert shown[:3] == [str(64 << 20), "44", "50000"]


@pytest.mark.needs_podman
@pytest.mark.needs_limits
def test_podman_changes_the_limits_of_a_running_container(podman: Podman, podman_background: Background):
    name = podman_background("--memory", "64m", "--memory-swap", "64m")
    podman("update", "--memory", "48m", "--cpus", "0.5", name).ok()
    shown = podman("exec", name, "sh", "-c", f"{MEMORY}; {QUOTA}").text.split()
    assert shown[:2] == [str(48 << 20), "50000"]
