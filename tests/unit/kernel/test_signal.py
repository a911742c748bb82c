"""Signals: the wrappers of c/kernel/signal.c."""

from __future__ import annotations

import os
import signal

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import in_child, is_cloexec


def test_sigprocmask_returns_the_mask_before() -> None:
    def work() -> list[list[int]]:
        _kernel.sigprocmask(k.SIG_SETMASK, [])
        return [
            sorted(_kernel.sigprocmask(k.SIG_BLOCK, [k.SIGTERM, k.SIGRTMAX])),
            sorted(_kernel.sigprocmask(k.SIG_UNBLOCK, {k.SIGTERM})),
            sorted(_kernel.sigprocmask(k.SIG_SETMASK, ())),
        ]

    assert in_child(work) == [[], [k.SIGTERM, k.SIGRTMAX], [k.SIGRTMAX]]


def test_unblocking_runs_the_handler_of_a_pending_signal() -> None:
    def work() -> list[int]:
        seen: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
        _kernel.sigprocmask(k.SIG_BLOCK, [k.SIGUSR1])
        os.kill(os.getpid(), k.SIGUSR1)
        before = len(seen)
        _kernel.sigprocmask(k.SIG_UNBLOCK, [k.SIGUSR1])
        return [before, *seen]

    assert in_child(work) == [0, k.SIGUSR1]


def test_signalfd_tells_which_child_ended_and_how() -> None:
    def work() -> bool:
        _kernel.sigprocmask(k.SIG_BLOCK, [k.SIGCHLD])
        fd = _kernel.signalfd([k.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            os._exit(9)
        return is_cloexec(fd) and _kernel.read_signalfd(fd) == (k.SIGCHLD, pid, 9)

    assert in_child(work) is True


def test_a_signalfd_that_does_not_block_says_so() -> None:
    fd = _kernel.signalfd([k.SIGUSR2], k.SFD_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError) as raised:
            _kernel.read_signalfd(fd)
    finally:
        os.close(fd)

    assert raised.value.syscall == "read"  # type: ignore[attr-defined]


def test_a_file_that_is_no_signalfd_is_an_error() -> None:
    fd = _kernel.memfd_sealed("short", b"1234")
    try:
        with pytest.raises(OSError, match="Input/output"):
            _kernel.read_signalfd(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("number", [0, -1, 65, 1 << 40])
def test_a_number_that_is_no_signal_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        _kernel.signalfd([number])
