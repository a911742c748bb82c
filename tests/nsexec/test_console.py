"""Terminals."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.nsexec.driver import CLONE_NEWNS, TIMEOUT, Driver, Failed, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

SIZE = struct.pack("=II", 91, 33)

Ready = Callable[..., Driver]


def read_terminal(master: int) -> str:
    data = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # EIO: the last slave was closed
            return data.decode()
        if not part:
            return data.decode()
        data += part


def with_devpts(driver: Driver, script: str = "true") -> None:
    """Gives the process's mount namespace a devpts of its own; then the script runs in there."""
    mount = "mount --make-rprivate / && mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts"
    subprocess.run(
        ["nsenter", f"--mount=/proc/{driver.pid}/ns/mnt", "sh", "-ec", f"{mount}; {script}"],
        check=True,
        timeout=TIMEOUT,
    )


def test_a_pty_of_the_container_becomes_stdio_and_the_controlling_terminal(ready: Ready) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWNS))
    with_devpts(driver)
    facts = "os.ttyname(0), os.get_terminal_size(), os.tcgetpgrp(0) == os.getpid()"
    script = f"import os; print({facts}, file=open('/dev/tty', 'w'))"
    pairs = [("ARG", sys.executable), ("ARG", "-c"), ("ARG", script)]
    driver.send("SETTINGS", [*pairs, ("NEW_SESSION", 1), ("CONSOLE_ALLOCATE", 1), ("CONSOLE_SIZE", SIZE)])
    _, (master,) = driver.expect("CONSOLE")
    driver.send("ACKNOWLEDGED")
    driver.expect("PREPARED")
    assert read_terminal(master).strip() == "/dev/pts/0 os.terminal_size(columns=91, lines=33) True"


def test_a_slave_that_was_given_is_used(ready: Ready) -> None:
    master, slave = os.openpty()
    driver = ready()
    driver.settings(
        *shell("tty >/dev/null && stty size"),
        ("NEW_SESSION", 1),
        ("CONSOLE_SLAVE_FD", 0),
        ("CONSOLE_SIZE", SIZE),
        fds=[slave],
    )
    os.close(slave)
    assert read_terminal(master).strip() == "33 91"
    os.close(master)


def test_the_slave_belongs_to_the_user(ready: Ready) -> None:
    master, slave = os.openpty()
    driver = ready()
    pairs = [("NEW_SESSION", 1), ("CONSOLE_SLAVE_FD", 0), ("UID", 65534), ("GID", 65534)]
    driver.settings(*shell("true"), *pairs, fds=[slave])
    driver.executed()
    assert os.fstat(slave).st_uid == 65534
    os.close(slave)
    os.close(master)


TMPFS = "umount /dev/pts; mount -t tmpfs none /dev/pts; "


@pytest.mark.parametrize(
    ("attack", "number"),
    [
        ("mount --bind /dev/null /dev/pts/ptmx", None),
        (TMPFS + "mknod /dev/pts/ptmx c 5 2", None),
        (TMPFS + "echo >/dev/pts/ptmx", None),
        (TMPFS + "mkfifo /dev/pts/ptmx", None),
        (TMPFS + "ln -s /dev/ptmx /dev/pts/ptmx", None),
        (TMPFS, errno.ENOENT),
    ],
    ids=["another device", "a ptmx outside devpts", "a file", "a fifo", "a symlink", "nothing"],
)
def test_what_is_no_devpts_multiplexer_is_not_opened_cve_2025_52565(
    ready: Ready, attack: str, number: int | None
) -> None:
    driver = ready(("CLONE_FLAGS", CLONE_NEWNS))
    with_devpts(driver, attack)
    driver.send("SETTINGS", [*shell("true"), ("NEW_SESSION", 1), ("CONSOLE_ALLOCATE", 1)])
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["STEP"] == "allocate console"
    assert failure.value["PATH"] == "/dev/pts/ptmx"
    assert failure.value["ERRNO"] == number
    if not number:
        assert failure.value["MESSAGE"] == "/dev/pts/ptmx is not the multiplexer of a devpts"


def test_without_a_session_of_its_own_there_is_no_controlling_terminal(ready: Ready) -> None:
    master, slave = os.openpty()
    driver = ready()
    driver.send("SETTINGS", [*shell("true"), ("CONSOLE_SLAVE_FD", 0)], [slave])
    os.close(slave)
    with pytest.raises(Failed, match="set controlling terminal"):
        driver.receive()
    os.close(master)


def test_an_unacknowledged_console_ends_with_the_engine(ready: Ready) -> None:
    driver = ready()
    driver.send("SETTINGS", [*shell("true"), ("NEW_SESSION", 1), ("CONSOLE_ALLOCATE", 1)])
    driver.expect("CONSOLE")
    driver.socket.close()
    assert driver.wait() == 1
