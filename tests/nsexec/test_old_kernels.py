"""The ways around system calls that an older kernel, or a seccomp profile around the engine, does not have."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nsexec.driver import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, Driver, Failed, command, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

WITHOUT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("old_kernel.py"))]
ENOSYS = [*WITHOUT, str(errno.ENOSYS)]

Ready = Callable[..., Driver]


def test_a_container_process_is_made_with_the_old_clone(ready: Ready) -> None:
    maps = [("UIDMAP", "0 100000 10"), ("GIDMAP", "0 100000 10"), ("BECOME_ROOT", 1)]
    driver = ready(("CLONE_FLAGS", CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWNS), *maps, prefix=ENOSYS)
    assert driver.run(["/bin/sh", "-c", "echo $$ $(id -u)"], ("UID", 0), ("GID", 0)) == "1 0\n"


def test_the_old_clone_cannot_enter_a_cgroup_and_says_so(ready: Ready, directory: Path) -> None:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    driver = ready(("CGROUP_FD", 0), fds=[fd], prefix=ENOSYS)
    os.close(fd)
    assert driver.child["IN_CGROUP"] == 0


@pytest.mark.parametrize("preserved", [0, 1, 2])
def test_fds_are_closed_one_by_one(ready: Ready, preserved: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    driver = ready(preserve=[null, null], prefix=ENOSYS)
    os.close(null)
    output = driver.run(["/bin/ls", "/proc/self/fd"], ("PRESERVE_FDS", preserved))
    assert output.split() == [str(fd) for fd in range(3 + preserved + 1)]  # the last is the directory that ls reads


def test_proc_is_written_to_with_the_old_open(ready: Ready) -> None:
    driver = ready(("OOM_SCORE_ADJ", "77"), prefix=ENOSYS)
    assert Path(f"/proc/{driver.pid}/oom_score_adj").read_text() == "77\n"


def test_a_console_is_allocated_with_the_old_open(ready: Ready) -> None:
    driver = ready(prefix=ENOSYS)
    driver.send("SETTINGS", [*shell("true"), ("NEW_SESSION", 1), ("CONSOLE_ALLOCATE", 1)])
    driver.expect("CONSOLE")
    driver.send("ACKNOWLEDGED")
    driver.expect("PREPARED")
    driver.executed()
    assert driver.wait() == 0


def test_the_mode_decides_what_is_executable(ready: Ready) -> None:
    driver = ready(prefix=ENOSYS)
    driver.send("SETTINGS", command("/etc/passwd"))
    with pytest.raises(Failed, match="exec:") as failure:
        driver.receive()
    assert failure.value["ERRNO"] == errno.EACCES
