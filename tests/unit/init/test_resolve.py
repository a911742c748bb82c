from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_init import resolve


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH)
    yield fd
    os.close(fd)


def made_at(root: int, path: str, **options: bool) -> str:
    """Where inside the root `create` ended up."""
    fd, _ = resolve.create(root, path, **options)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(os.readlink(f"/proc/self/fd/{root}"))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/", "/"), ("", "/"), ("a//b/./c/", "/a/b/c"), ("/a/../../b", "/b"), ("/..", "/")],
)
def test_clean_goes_by_the_letters_of_a_path(path: str, expected: str):
    assert resolve.clean(path) == expected


def test_missing_directories_are_made(root: int, tmp_path: Path):
    assert made_at(root, "/a/b/c") == "/a/b/c"
    assert (tmp_path / "root/a/b/c").is_dir()


def test_a_missing_file_is_made_with_its_directories(root: int, tmp_path: Path):
    made_at(root, "/a/b/file", directory=False)
    assert stat.S_ISREG((tmp_path / "root/a/b/file").stat().st_mode)


def test_what_is_there_is_not_made(root: int, tmp_path: Path):
    (tmp_path / "root/a").mkdir()
    fd, made = resolve.create(root, "/a")
    os.close(fd)
    assert not made


@pytest.mark.parametrize("target", ["/outside", "../../../outside", "../outside"])
def test_a_symlink_to_the_outside_leads_to_a_place_inside(root: int, tmp_path: Path, target: str):
    (tmp_path / "root/link").symlink_to(target)
    assert made_at(root, "/link/below") == "/outside/below"
    assert not (tmp_path / "outside").exists()


def test_a_dangling_symlink_of_a_file_has_its_target_made(root: int, tmp_path: Path):
    (tmp_path / "root/etc").mkdir()
    (tmp_path / "root/etc/resolv.conf").symlink_to("../run/resolved/stub.conf")
    assert made_at(root, "/etc/resolv.conf", directory=False) == "/run/resolved/stub.conf"


def test_dots_behind_a_symlink_are_taken_at_its_target(root: int, tmp_path: Path):
    (tmp_path / "root/x/y").mkdir(parents=True)
    (tmp_path / "root/link").symlink_to("x/y")
    assert made_at(root, "/link/../new") == "/x/new"


def test_a_loop_of_symlinks_ends(root: int, tmp_path: Path):
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")
    with pytest.raises(OSError) as failure:
        resolve.create(root, "/a/c")
    assert failure.value.errno == errno.ELOOP


def test_without_symlinks_one_in_the_path_is_an_error(root: int, tmp_path: Path):
    (tmp_path / "root/real").mkdir()
    (tmp_path / "root/link").symlink_to("real")
    for path in ("/link", "/link/below", "/link/a/b"):
        with pytest.raises(OSError) as failure:
            resolve.create(root, path, symlinks=False)
        assert failure.value.errno == errno.ELOOP
