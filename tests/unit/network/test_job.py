"""ctr_supervisor/network/job.py: work in a forked child."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import pytest

from ctr_common.errors import ConfigError, CtrError, NotSupported, ProtocolError
from ctr_supervisor.network import job
from tests.support.forked import open_fds


def test_the_result_comes_back_from_another_process():
    assert job.run("step", lambda a: [a, os.getpid()], "x")[0] == "x"
    assert job.run("step", os.getpid) != os.getpid()


def test_a_large_result_comes_back_whole():
    assert job.run("step", lambda: "x" * 1_000_000) == "x" * 1_000_000


def test_errors_keep_their_kind_and_their_own_step():
    def fail() -> NoReturn:
        raise ConfigError("no", json_path=".a", step="own")

    with pytest.raises(ConfigError) as caught:
        job.run("step", fail)
    assert (caught.value.json_path, caught.value.step) == (".a", "own")


def test_errors_of_system_calls_get_the_step():
    with pytest.raises(CtrError) as caught:
        job.run("step", os.stat, "/no/such")
    assert (caught.value.step, caught.value.errno, caught.value.path) == ("step", errno.ENOENT, "/no/such")


def test_an_unexpected_exception_is_named():
    with pytest.raises(CtrError, match="step: ZeroDivisionError"):
        job.run("step", lambda: 1 // 0)


def test_a_missing_pyroute2_is_named():
    def fail() -> NoReturn:
        raise ModuleNotFoundError("No module named 'pyroute2'")

    with pytest.raises(NotSupported, match="networks need the Python package pyroute2"):
        job.run("step", fail)


def test_a_child_that_dies_is_an_error():
    with pytest.raises(ProtocolError, match="died"):
        job.run("step", os._exit, 3)


def test_a_child_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job, "TIMEOUT", 0.05)
    reader, writer = os.pipe()
    with pytest.raises(ProtocolError, match="did not answer"):
        job.run("step", os.read, reader, 1)
    os.close(writer)
    assert os.read(reader, 1) == b""  # nobody else has the other end
    os.close(reader)


def test_nothing_stays_behind():
    before = open_fds()
    job.run("step", lambda: None)
    assert open_fds() == before
    assert "pyroute2" not in sys.modules
