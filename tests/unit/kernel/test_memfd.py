"""Sealed memfds: nobody changes them, and they can be executed."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import is_cloexec, open_fds

SEALS = k.F_SEAL_SEAL | k.F_SEAL_SHRINK | k.F_SEAL_GROW | k.F_SEAL_WRITE


@pytest.mark.parametrize("size", [0, 1, 4096, 300_001])
def test_bytes_are_copied_whole(size: int) -> None:
    data = os.urandom(size)
    fd = _kernel.memfd_sealed("copy", data)
    try:
        assert os.pread(fd, size + 1, 0) == data
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 300_001, 5_000_000])
def test_a_file_is_copied_whole_and_its_offset_left_alone(directory: Path, size: int) -> None:
    data = os.urandom(size)
    (directory / "file").write_bytes(data)
    source = os.open(directory / "file", os.O_RDONLY)
    os.lseek(source, size // 2, os.SEEK_SET)
    fd = _kernel.memfd_sealed("copy", source)
    try:
        assert os.pread(fd, size + 1, 0) == data
        assert os.lseek(source, 0, os.SEEK_CUR) == size // 2
    finally:
        os.close(fd)
        os.close(source)


def test_it_is_read_only_sealed_and_close_on_exec() -> None:
    before = open_fds()
    fd = _kernel.memfd_sealed("sealed", b"contents")
    try:
        assert open_fds() - before == {fd}
        assert is_cloexec(fd)
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    finally:
        os.close(fd)


def test_whoever_reopens_it_for_writing_cannot_change_it() -> None:
    fd = _kernel.memfd_sealed("sealed", b"contents")
    try:
        writer = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        for change in (lambda: os.write(writer, b"x"), lambda: os.ftruncate(writer, 0)):
            with pytest.raises(PermissionError):
                change()
        os.close(writer)
        assert os.pread(fd, 100, 0) == b"contents"
    finally:
        os.close(fd)


def test_a_binary_can_be_executed_from_it() -> None:
    source = os.open(shutil.which("true") or "", os.O_RDONLY)
    exe = _kernel.memfd_sealed("true", source)
    pid, pidfd = _kernel.spawn(exe, ["true"], [], [])
    for fd in (source, exe, pidfd):
        os.close(fd)

    assert os.waitpid(pid, 0)[1] == 0


def test_a_failure_leaves_no_fd() -> None:
    before = open_fds()
    directory = os.open("/", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid") as raised:
        _kernel.memfd_sealed("name", directory)
    os.close(directory)

    assert raised.value.syscall == "sendfile"  # type: ignore[attr-defined]
    assert raised.value.filename == "name"
    assert open_fds() == before


def test_other_contents_are_refused() -> None:
    with pytest.raises(TypeError, match="not str"):
        _kernel.memfd_sealed("name", "text")  # type: ignore[arg-type]
