"""The one structure of failures."""

from __future__ import annotations

import errno

import pytest

from ctr_common import errors


def test_an_error_crosses_processes_whole() -> None:
    error = errors.SetupError(
        "mount failed",
        step="mount /proc",
        syscall="fsmount",
        errno=errno.EPERM,
        path="/proc",
        json_path=".mounts[0]",
        hint="try it as root",
    )
    back = errors.from_dict(error.as_dict())
    assert type(back) is errors.SetupError
    assert back.as_dict() == error.as_dict()
    assert str(back) == ".mounts[0]: mount /proc: mount failed: operation not permitted"


@pytest.mark.parametrize("kind", errors.KINDS.values(), ids=errors.KINDS)
def test_every_kind_keeps_its_class(kind: type[errors.CtrError]) -> None:
    assert type(errors.from_dict(kind("x").as_dict())) is kind


def test_data_from_a_broken_peer_is_still_an_error() -> None:
    error = errors.from_dict({"kind": "Nonsense", "errno": "nine", "path": 7})
    assert type(error) is errors.CtrError
    assert str(error) == "7"


def test_a_path_that_the_message_names_is_not_repeated() -> None:
    assert str(errors.StateError("cannot open /x", path="/x", errno=errno.ENOENT)) == (
        "cannot open /x: no such file or directory"
    )


def test_context_comes_first() -> None:
    error = errors.InitError("refused", step="uid map").within("unable to start container process")
    assert str(error) == "unable to start container process: uid map: refused"


def test_an_os_error_keeps_syscall_errno_and_file() -> None:
    cause = OSError(errno.ENOENT, "No such file", "/missing")
    cause.syscall = "openat2"  # type: ignore[attr-defined]
    error = errors.SetupError.from_os_error(cause, step="open rootfs")
    assert (error.syscall, error.errno, error.path) == ("openat2", errno.ENOENT, "/missing")
