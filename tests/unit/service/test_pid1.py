"""Process number 1: what can be told without being one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from ctr_supervisor.service import pid1
from tests.support.forked import in_child


@pytest.mark.parametrize(
    ("stuck", "second", "status"),
    [(False, 0, 0), (True, 0, 1), (False, signal.SIGTERM, 143), (True, signal.SIGINT, 130)],
)
def test_the_exit_status_tells_how_it_ended(stuck: bool, second: int, status: int) -> None:
    assert pid1.exit_status(stuck, second) == status


def test_this_is_neither_process_one_nor_the_machines() -> None:
    assert not pid1.is_first()
    assert not pid1.is_machine()


@pytest.mark.needs_root
def test_only_what_is_empty_and_no_mount_is_mounted_on(directory: Path) -> None:
    def work() -> list[bool]:
        _kernel.unshare(k.CLONE_NEWNS)
        _kernel.mount(None, "/", None, k.MS_REC | k.MS_PRIVATE, None)
        full = directory / "full"
        full.mkdir()
        (full / "file").touch()
        names = [directory / "new", directory / "new", full]
        return [pid1.mount_missing(str(name), "tmpfs", 0, "mode=0700") for name in names]

    assert in_child(work) == [True, False, False]


@pytest.mark.needs_root
def test_the_end_of_all_reaps_whoever_obeys_and_kills_the_others() -> None:
    def work() -> int:
        _kernel.unshare(k.CLONE_NEWPID)
        first = os.fork()
        if first == 0:
            pid1.LAST_GRACE = 0.2
            _kernel.sigprocmask(0, [signal.SIGCHLD])
            os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsigmask=())
            os.posix_spawn("/bin/sh", ["sh", "-c", "trap '' TERM; while :; do :; done"], {}, setsigmask=())
            pid1.end_all()
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(7)
            os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])

    assert in_child(work) == 7
