"""ctr_common/spec/users.py: the user database of a hostile image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC
from ctr_common.spec import users
from tests.support.forked import in_child

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
broken
user:x:1000:1000::/home/user:/bin/sh
again:x:1000:1000::/home/again:/bin/sh
relative:x:7:7::home:/bin/sh
empty:x:8:8:::/bin/sh
bytes:x:9:9::/home/\xff:/bin/sh
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "passwd").write_bytes(PASSWD)
    return tmp_path / "root"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("uid", "home"),
    [(0, "/root"), (1000, "/home/user"), (7, None), (8, None), (9, "/home/\udcff"), (100, None), (1, None)],
)
def test_the_first_entry_of_the_user_counts(root_fd: int, uid: int, home: str | None) -> None:
    assert users.lookup_home(root_fd, uid) == home


def test_no_file_means_no_home(root: Path, root_fd: int) -> None:
    (root / "etc" / "passwd").unlink()
    assert users.lookup_home(root_fd, 0) is None


def test_a_symlink_out_of_the_root_stays_inside(root: Path, root_fd: int, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root:x:0:0::/outside:/bin/sh\n")
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "passwd").symlink_to("../../secret")
    assert users.lookup_home(root_fd, 0) is None
    (root / "secret").write_text("root:x:0:0::/inside:/bin/sh\n")
    assert users.lookup_home(root_fd, 0) == "/inside"


def test_an_absolute_symlink_is_followed_below_the_root(root: Path, root_fd: int) -> None:
    (root / "etc" / "passwd").rename(root / "users")
    (root / "etc" / "passwd").symlink_to("/users")
    assert users.lookup_home(root_fd, 0) == "/root"


def test_a_fifo_is_not_waited_for(root: Path, root_fd: int) -> None:
    (root / "etc" / "passwd").unlink()
    os.mkfifo(root / "etc" / "passwd")
    assert users.lookup_home(root_fd, 0) is None


@pytest.mark.needs_root
@pytest.mark.parametrize("file", ["proc/kmsg", "proc/self/maps", "sys/kernel/notes"])
def test_an_interface_of_the_kernel_is_not_even_opened(file: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "passwd").symlink_to(f"/{file}")
    real = _kernel.openat2
    opened: list[int] = []

    def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
        opened.append(flags)
        return real(dirfd, path, flags, mode, resolve)

    def work() -> list[object]:
        _kernel.unshare(CLONE_NEWNS)
        _kernel.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
        for name in ("proc", "sys"):
            (root / name).mkdir()
            _kernel.mount(f"/{name}", str(root / name), None, MS_BIND | MS_REC, None)
        monkeypatch.setattr(_kernel, "openat2", openat2)
        home = users.lookup_home(os.open(root, os.O_PATH | os.O_DIRECTORY), 0)
        return [home, len(opened), all(flags & os.O_PATH for flags in opened)]

    assert in_child(work) == [None, 1, True]


def test_a_directory_is_not_read(root: Path, root_fd: int) -> None:
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "passwd").mkdir()
    assert users.lookup_home(root_fd, 0) is None


def test_a_giant_file_is_read_to_the_limit_and_no_line_is_cut(
    root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "SIZE_LIMIT", PASSWD.index(b"/home/user") + 5)
    assert users.lookup_home(root_fd, 0) == "/root"
    assert users.lookup_home(root_fd, 1000) is None


def test_no_fd_is_left_open(root_fd: int) -> None:
    before = os.listdir("/proc/self/fd")
    users.lookup_home(root_fd, 0)
    assert len(os.listdir("/proc/self/fd")) == len(before)
