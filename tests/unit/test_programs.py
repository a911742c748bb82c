"""Python programs of ours, started by a program that may not fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from ctr_common import programs
from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from tests.support.runtime import ROOT
from tests.support.waiting import until


def status_of(module: str, function: str, fd_map: list[tuple[int, int]]) -> int:
    """Exit status of a program."""
    pid, pidfd = programs.spawn(module, function, fd_map)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_function_of_ours_is_called():
    # The setup worker ends in peace when nobody gives it a plan.
    reading, writing = (Fd(fd) for fd in os.pipe())
    with reading, writing:
        assert status_of("ctr_init.program", "main", [(writing.fileno(), 3)]) == 1


def test_it_is_found_wherever_this_program_was_started():
    code = (
        "import os; from ctr_common import programs; os.chdir('/');"
        "pid, fd = programs.spawn('ctr_init.program', 'main', [(1, 3)]);"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "ModuleNotFoundError" not in done.stderr


def test_an_interpreter_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(CtrError, match="cannot run the Python interpreter /no/such/python") as error:
        programs.spawn("ctr_init.program", "main", [])
    assert error.value.hint


def test_a_thread_is_not_alone():
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    assert not programs.is_alone()
    release.set()
    thread.join()
    until("the thread is gone", programs.is_alone)
