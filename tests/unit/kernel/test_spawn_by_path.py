"""`spawn` by path, and with nothing but the fds that it is told of."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ctr_common.fd import Fd
from ctr_common.kernel import _kernel


def output_of(exe: int | str, argv: list[str], *more: tuple[int, int], close_others: bool = False) -> str:
    """What a program writes to standard output."""
    reading, writing = (Fd(fd) for fd in os.pipe())
    with reading:
        with writing:
            pid, pidfd = _kernel.spawn(exe, argv, ["A=b"], [(writing.fileno(), 1), *more], close_others)
            os.close(pidfd)
        with open(reading.take()) as stream:
            text = stream.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text


def test_a_script_is_run_under_its_own_name(directory: Path):
    script = directory / "script"
    script.write_text('#!/bin/sh\necho "$0 $1 $A"\n')
    script.chmod(0o755)
    assert output_of(str(script), ["ignored", "argument"]) == f"{script} argument b\n"


def test_a_missing_program_is_told():
    with pytest.raises(FileNotFoundError) as error:
        _kernel.spawn("/no/such/program", ["x"], [], [])
    assert (error.value.errno, error.value.syscall) == (errno.ENOENT, "execve")  # type: ignore[attr-defined]


def test_inheritable_fds_stay_here_when_they_are_not_named(directory: Path):
    with Fd(os.open("/dev/null", os.O_RDONLY)) as inheritable, Fd(os.open("/dev/zero", os.O_RDONLY)) as named:
        os.set_inheritable(inheritable.fileno(), True)
        seen = output_of("/bin/sh", ["sh", "-c", "ls -l /proc/self/fd"], (named.fileno(), 9), close_others=True)
        assert "/dev/zero" in seen
        assert f" {inheritable.fileno()} -> /dev/null" not in seen
        seen = output_of("/bin/sh", ["sh", "-c", "ls -l /proc/self/fd"])
        assert f" {inheritable.fileno()} -> /dev/null" in seen
        assert os.get_inheritable(inheritable.fileno())


@pytest.mark.parametrize("exe", [None, 1.5, [], 2**40])
def test_what_is_neither_a_path_nor_a_fd_is_refused(exe: object):
    with pytest.raises((TypeError, OverflowError)):
        _kernel.spawn(exe, ["x"], [], [])  # type: ignore[arg-type]
