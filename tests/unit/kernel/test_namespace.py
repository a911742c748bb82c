"""Namespaces: the wrappers of c/kernel/namespace.c on the real kernel."""

from __future__ import annotations

import os
import socket

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import in_child

pytestmark = pytest.mark.needs_root


def test_names_are_set_in_an_unshared_uts_namespace() -> None:
    def work() -> list[str]:
        _kernel.unshare(k.CLONE_NEWUTS)
        _kernel.sethostname("höst")
        _kernel.setdomainname(b"domain")
        with open("/proc/sys/kernel/domainname") as file:
            return [os.uname().nodename, file.read().strip()]

    here = socket.gethostname()
    assert in_child(work) == ["höst", "domain"]
    assert socket.gethostname() == here


def test_a_namespace_is_joined_by_its_fd() -> None:
    def work() -> list[bool]:
        mine = os.open("/proc/self/ns/uts", os.O_RDONLY)
        before = os.readlink("/proc/self/ns/uts")
        _kernel.unshare(k.CLONE_NEWUTS)
        apart = os.readlink("/proc/self/ns/uts")
        _kernel.setns(mine, k.CLONE_NEWUTS)
        return [apart != before, os.readlink("/proc/self/ns/uts") == before]

    assert in_child(work) == [True, True]


def test_several_namespaces_are_joined_at_once_by_a_pidfd() -> None:
    def work() -> bool:
        mine = _kernel.pidfd_open(os.getppid())
        _kernel.unshare(k.CLONE_NEWUTS | k.CLONE_NEWIPC | k.CLONE_NEWNS)
        _kernel.setns(mine, k.CLONE_NEWUTS | k.CLONE_NEWIPC | k.CLONE_NEWNS)
        return all(
            os.readlink(f"/proc/self/ns/{name}") == os.readlink(f"/proc/{os.getppid()}/ns/{name}")
            for name in ("uts", "ipc", "mnt")
        )

    assert in_child(work) is True


@pytest.mark.parametrize(
    ("syscall", "arguments"), [("setns", (-1, 0)), ("unshare", (1,)), ("sethostname", ("x" * 65,))]
)
def test_a_failure_names_its_syscall(syscall: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        getattr(_kernel, syscall)(*arguments)

    assert raised.value.syscall == syscall  # type: ignore[attr-defined]
