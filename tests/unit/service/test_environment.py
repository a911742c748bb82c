"""The environment of a worker's jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ctr_supervisor.service import environment

# By the shell that popen starts, and by readline, which only a test run imports.
ADDED = ("_=", "PWD=", "SHLVL=", "COLUMNS=", "LINES=")


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """The environment of the tests comes back."""
    environment.keep()
    yield
    environment.put_back()


def now() -> dict[str, str]:
    """What a program that is executed now would get, by the C library's account."""
    with os.popen("env -0") as found:
        entries = found.read().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry and not entry.startswith(ADDED))


def test_a_job_has_its_clients_environment_and_nothing_else() -> None:
    environment.put_on(["PATH=/usr/bin:/bin", "A=1", "B=x=y", "no equals", "=no name", "A=2"])
    assert now() == {"PATH": "/usr/bin:/bin", "A": "2", "B": "x=y"}


def test_nothing_of_one_job_is_left_to_the_next() -> None:
    environment.put_on(["PATH=/usr/bin:/bin", "SECRET=1", "A=1"])
    environment.put_on(["PATH=/usr/bin:/bin", "A=2"])
    assert now() == {"PATH": "/usr/bin:/bin", "A": "2"}


def test_the_own_environment_comes_back() -> None:
    environment.keep()
    before = dict(os.environ)
    environment.put_on(["PATH=/bin", "SECRET=1"])
    environment.put_back()
    assert dict(os.environ) == before


def test_bytes_that_are_no_text_pass() -> None:
    environment.put_on(["PATH=/usr/bin:/bin", "A=\udcff"])
    assert os.environb[b"A"] == b"\xff"
