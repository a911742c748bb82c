"""inotify: the wrappers of c/kernel/inotify.c on a real directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import is_cloexec


@pytest.fixture
def instance() -> Iterator[int]:
    fd = _kernel.inotify_init(os.O_NONBLOCK)
    yield fd
    os.close(fd)


def test_what_happens_in_a_directory_is_told_in_order(instance: int, directory: Path) -> None:
    watch = _kernel.inotify_add_watch(instance, str(directory), k.IN_CREATE | k.IN_DELETE | k.IN_MOVED_TO)
    (directory / "a").touch()
    (directory / "a").rename(directory / "a name that is longer than the padding")
    (directory / "d").mkdir()
    (directory / "d").rmdir()

    assert _kernel.read_inotify(instance) == [
        (watch, k.IN_CREATE, "a"),
        (watch, k.IN_MOVED_TO, "a name that is longer than the padding"),
        (watch, k.IN_CREATE | k.IN_ISDIR, "d"),
        (watch, k.IN_DELETE | k.IN_ISDIR, "d"),
    ]


def test_names_that_are_no_utf8_pass(instance: int, directory: Path) -> None:
    _kernel.inotify_add_watch(instance, directory.as_posix().encode(), k.IN_CREATE)
    (directory / os.fsdecode(b"\xff")).touch()

    assert [name for _, _, name in _kernel.read_inotify(instance)] == [os.fsdecode(b"\xff")]


def test_nothing_there_is_an_error_that_names_the_call(instance: int) -> None:
    with pytest.raises(BlockingIOError) as raised:
        _kernel.read_inotify(instance)
    assert getattr(raised.value, "syscall", "") == "read"


def test_a_removed_directory_ends_its_watch(instance: int, directory: Path) -> None:
    below = directory / "below"
    below.mkdir()
    watch = _kernel.inotify_add_watch(instance, str(below), k.IN_DELETE_SELF | k.IN_ONLYDIR)
    below.rmdir()

    assert _kernel.read_inotify(instance) == [(watch, k.IN_DELETE_SELF, ""), (watch, k.IN_IGNORED, "")]


def test_a_watch_is_taken_away(instance: int, directory: Path) -> None:
    watch = _kernel.inotify_add_watch(instance, str(directory), k.IN_CREATE)
    _kernel.inotify_rm_watch(instance, watch)
    (directory / "a").touch()

    assert _kernel.read_inotify(instance) == [(watch, k.IN_IGNORED, "")]


def test_a_missing_path_is_named(instance: int) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        _kernel.inotify_add_watch(instance, "/nonexistent", k.IN_CREATE)
    assert raised.value.filename == "/nonexistent"


def test_the_fd_is_closed_on_execve(instance: int) -> None:
    assert is_cloexec(instance)
