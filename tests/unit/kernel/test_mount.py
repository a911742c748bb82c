"""Paths and mounts: the wrappers of c/kernel/mount.c on the real kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import in_child, is_cloexec, open_fds

NOWHERE = "/nowhere/at/all"


def private_mounts() -> None:
    _kernel.unshare(k.CLONE_NEWNS)
    _kernel.mount(None, "/", None, k.MS_REC | k.MS_PRIVATE, None)


def new_tmpfs(size: str = "1m") -> int:
    context = _kernel.fsopen("tmpfs")
    try:
        _kernel.fsconfig(context, k.FSCONFIG_SET_STRING, "size", size)
        _kernel.fsconfig(context, k.FSCONFIG_CMD_CREATE)
        return _kernel.fsmount(context, 0, k.MOUNT_ATTR_NOEXEC)
    finally:
        os.close(context)


def test_openat2_adds_close_on_exec() -> None:
    fd = _kernel.openat2(k.AT_FDCWD, "/", os.O_PATH)
    try:
        assert is_cloexec(fd)
    finally:
        os.close(fd)


def test_openat2_in_root_does_not_leave_it_by_dotdot_or_absolute_links(directory: Path) -> None:
    (directory / "inside").write_text("inside")
    (directory / "link").symlink_to("/inside")
    root = os.open(directory, os.O_PATH)
    try:
        for path in ("link", "../../../inside", b"/inside"):
            fd = _kernel.openat2(root, path, os.O_RDONLY, resolve=k.RESOLVE_IN_ROOT)
            assert os.read(fd, 100) == b"inside"
            os.close(fd)
    finally:
        os.close(root)


def test_openat2_creates_with_the_given_mode(directory: Path) -> None:
    os.close(_kernel.openat2(k.AT_FDCWD, f"{directory}/new", os.O_CREAT | os.O_WRONLY, 0o640))

    assert (directory / "new").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("syscall", "arguments"),
    [
        ("openat2", (k.AT_FDCWD, NOWHERE, os.O_RDONLY)),
        ("open_tree", (k.AT_FDCWD, NOWHERE, 0)),
        ("fspick", (k.AT_FDCWD, NOWHERE, 0)),
        ("mount_setattr", (k.AT_FDCWD, NOWHERE, 0, k.MOUNT_ATTR_RDONLY)),
        ("mount", (None, NOWHERE, "tmpfs", 0, None)),
        ("umount2", (NOWHERE, 0)),
        ("pivot_root", (NOWHERE, NOWHERE)),
    ],
)
@pytest.mark.needs_root
def test_a_failure_carries_syscall_errno_and_path(syscall: str, arguments: tuple[Any, ...]) -> None:
    before = open_fds()
    with pytest.raises(FileNotFoundError) as raised:
        getattr(_kernel, syscall)(*arguments)

    assert raised.value.syscall == syscall  # type: ignore[attr-defined]  # of c/kernel/error.c
    assert raised.value.errno == errno.ENOENT
    assert raised.value.filename == NOWHERE
    assert open_fds() == before


def test_a_path_with_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="null byte"):
        _kernel.openat2(k.AT_FDCWD, "a\0b", os.O_RDONLY)


def test_fsopen_names_an_unknown_file_system() -> None:
    with pytest.raises(OSError, match="nosuchfs") as raised:
        _kernel.fsopen("nosuchfs")

    assert raised.value.errno in (errno.ENODEV, errno.EPERM)


@pytest.mark.needs_root
def test_fsconfig_failures_carry_the_message_of_the_kernel() -> None:
    context = _kernel.fsopen("tmpfs")
    try:
        with pytest.raises(OSError, match="nosuchoption") as raised:
            _kernel.fsconfig(context, k.FSCONFIG_SET_STRING, "nosuchoption", "1")
    finally:
        os.close(context)

    assert raised.value.errno == errno.EINVAL
    assert raised.value.syscall == "fsconfig"  # type: ignore[attr-defined]


def test_fsconfig_on_another_kind_of_fd_does_not_read_from_it() -> None:
    here, there = _kernel.socketpair()
    try:
        _kernel.sendmsg(there, b"kept")
        with pytest.raises(OSError, match="Invalid"):
            _kernel.fsconfig(here, k.FSCONFIG_SET_FLAG, "ro")
        assert _kernel.recvmsg(here, 10)[0] == b"kept"
    finally:
        os.close(here)
        os.close(there)


@pytest.mark.needs_root
def test_a_tmpfs_is_made_attached_changed_and_unmounted_by_fd(directory: Path) -> None:
    def work() -> list[Any]:
        private_mounts()
        mount = new_tmpfs()
        seen: list[Any] = [is_cloexec(mount), _kernel.fstatfs_type(mount) == k.TMPFS_MAGIC]
        target = os.open(directory, os.O_PATH)
        _kernel.move_mount(mount, "", target, "", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH)
        seen.append(_kernel.is_mount_root(k.AT_FDCWD, str(directory)))
        seen.append(_kernel.is_mount_root(mount, ""))
        seen.append(_kernel.statx_mnt_id(mount) != _kernel.statx_mnt_id(target))
        (directory / "file").write_text("x")
        _kernel.mount_setattr(mount, "", k.AT_EMPTY_PATH, k.MOUNT_ATTR_RDONLY)
        seen.append(bool(os.fstatvfs(mount).f_flag & os.ST_RDONLY and os.fstatvfs(mount).f_flag & os.ST_NOEXEC))
        _kernel.mount_setattr(mount, "", k.AT_EMPTY_PATH, attr_clr=k.MOUNT_ATTR_RDONLY)
        seen.append(not os.fstatvfs(mount).f_flag & os.ST_RDONLY)
        _kernel.umount2(directory, k.MNT_DETACH)  # type: ignore[arg-type]  # os.PathLike works as well
        seen.append(_kernel.is_mount_root(k.AT_FDCWD, str(directory)))
        return seen

    assert in_child(work) == [True, True, True, True, True, True, True, False]


@pytest.mark.needs_root
def test_open_tree_clones_a_detached_mount(directory: Path) -> None:
    (directory / "file").write_text("x")
    (directory / "target").mkdir()

    def work() -> list[Any]:
        private_mounts()
        tree = _kernel.open_tree(k.AT_FDCWD, str(directory), k.OPEN_TREE_CLONE)
        _kernel.move_mount(tree, "", k.AT_FDCWD, f"{directory}/target", k.MOVE_MOUNT_F_EMPTY_PATH)
        return [is_cloexec(tree), (directory / "target/file").read_text()]

    assert in_child(work) == [True, "x"]


@pytest.mark.needs_root
def test_fspick_reconfigures_a_mounted_file_system(directory: Path) -> None:
    def work() -> list[Any]:
        private_mounts()
        _kernel.mount("none", str(directory), "tmpfs", k.MS_NOSUID, "size=64k")
        before = os.statvfs(directory).f_blocks
        context = _kernel.fspick(k.AT_FDCWD, str(directory), 0)
        _kernel.fsconfig(context, k.FSCONFIG_SET_STRING, "size", "128k")
        _kernel.fsconfig(context, k.FSCONFIG_CMD_RECONFIGURE)
        return [is_cloexec(context), os.statvfs(directory).f_blocks // before]

    assert in_child(work) == [True, 2]


@pytest.mark.needs_root
def test_pivot_root_moves_the_root(directory: Path) -> None:
    def work() -> list[str]:
        private_mounts()
        _kernel.mount("none", str(directory), "tmpfs", 0, None)
        (directory / "marker").write_text("")
        os.chdir(directory)
        _kernel.pivot_root(".", ".")
        _kernel.umount2(".", k.MNT_DETACH)
        return os.listdir("/")

    assert in_child(work) == ["marker"]


def test_procfs_is_known_by_its_type() -> None:
    fd = os.open("/proc", os.O_PATH)
    try:
        assert _kernel.fstatfs_type(fd) == k.PROC_SUPER_MAGIC
    finally:
        os.close(fd)


def test_a_file_is_no_mount_root() -> None:
    assert _kernel.is_mount_root(k.AT_FDCWD, "/proc")
    assert not _kernel.is_mount_root(k.AT_FDCWD, "/proc/version")


@pytest.mark.needs_root
def test_many_opens_and_mounts_leave_no_fd_and_no_reference_behind() -> None:
    before = open_fds()
    for _ in range(50):
        os.close(new_tmpfs())
        with pytest.raises(OSError, match="Invalid"):
            new_tmpfs("not a size")

    assert open_fds() == before
