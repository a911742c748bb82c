"""What a worker of the pool puts down between two jobs, and what it keeps."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ctr_supervisor.cgroups import devices_ebpf
from ctr_supervisor.service import pool

if TYPE_CHECKING:
    import pytest


def in_a_worker(check: Callable[[pool.Surroundings], bool]) -> bool:
    """Runs the check in a process of its own, whose stdio and fds it may change."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if check(pool.Surroundings()) else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def test_fds_of_a_job_are_closed() -> None:
    def check(first: pool.Surroundings) -> bool:
        left = os.open("/", os.O_RDONLY)
        first.restore()
        return not pool.is_open(left)

    assert in_a_worker(check)


def test_loaded_device_programs_stay_for_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(first: pool.Surroundings) -> bool:
        program = os.open("/dev/null", os.O_RDONLY)
        monkeypatch.setattr(devices_ebpf, "_programs", {(): program})
        first.restore()
        return pool.is_open(program)

    assert in_a_worker(check)


def test_working_directory_and_umask_are_those_of_a_new_process() -> None:
    def check(first: pool.Surroundings) -> bool:
        os.chdir("/proc")
        os.umask(0)
        first.restore()
        return os.getcwd() == "/" and os.umask(0) == 0o022

    assert in_a_worker(check)
