"""The parent that stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nsexec.driver import CLONE_NEWNET, CLONE_NEWPID, Driver, Failed, command, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

Start = Callable[..., Driver]


@pytest.fixture
def status_fd(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def kept(start: Start, status_fd: int) -> Driver:
    driver = start()
    driver.bootstrap(("CLONE_FLAGS", CLONE_NEWPID | CLONE_NEWNET), ("KEEPER", 1), ("STATUS_FD", 0), fds=[status_fd])
    driver.go()
    return driver


def keeper_end(driver: Driver) -> int:
    """Exit code of the keeper, once it is there; the container process is its child, not ours."""
    pid, driver.stage_0, driver.pid = driver.stage_0, 0, 0
    return driver.reap(pid)


def test_the_exit_status_is_written_and_passed_on(kept: Driver, directory: Path) -> None:
    kept.settings(*shell("exit 42"))
    kept.executed()
    assert keeper_end(kept) == 42
    assert (directory / "exit-status").read_text() == f"{42 << 8}\n"
    assert [path.name for path in directory.iterdir()] == ["exit-status"]


def test_a_signal_is_written_and_passed_on_as_a_shell_does(kept: Driver, directory: Path) -> None:
    kept.settings(*command("/bin/sleep", "300"))
    kept.executed()
    signal.pidfd_send_signal(kept.pidfd, signal.SIGKILL)
    assert keeper_end(kept) == 137
    assert (directory / "exit-status").read_text() == "9\n"


def test_it_is_the_parent_of_the_container_process(kept: Driver) -> None:
    assert f"PPid:\t{kept.stage_0}\n" in Path(f"/proc/{kept.pid}/status").read_text()
    kept.settings(*shell("true"))
    keeper_end(kept)


def test_it_stays_in_the_namespaces_of_the_engine(kept: Driver) -> None:
    assert os.readlink(f"/proc/{kept.stage_0}/ns/net") == os.readlink("/proc/self/ns/net")
    kept.settings(*shell("true"))
    keeper_end(kept)


def test_it_holds_only_stdio_and_the_directory(kept: Driver, directory: Path) -> None:
    fds = sorted(path.name for path in Path(f"/proc/{kept.stage_0}/fd").iterdir())
    targets = {os.readlink(f"/proc/{kept.stage_0}/fd/{fd}") for fd in fds}
    assert len(fds) == 4
    assert str(directory) in targets
    kept.settings(*shell("true"))
    keeper_end(kept)


def test_it_survives_signals(kept: Driver, directory: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(kept.stage_0, number)
    kept.settings(*shell("exit 3"))
    assert keeper_end(kept) == 3
    assert (directory / "exit-status").exists()


def test_a_failed_setup_is_recorded_too(kept: Driver, directory: Path) -> None:
    kept.send("SETTINGS", command("/nonexistent"))
    with pytest.raises(Failed):
        kept.receive()
    assert keeper_end(kept) == 1
    assert (directory / "exit-status").read_text() == f"{1 << 8}\n"


def test_nothing_is_recorded_when_there_never_was_a_process(start: Start, status_fd: int, directory: Path) -> None:
    driver = start()
    with pytest.raises(Failed):
        driver.bootstrap(("NS_PATH", "net:/nonexistent"), ("KEEPER", 1), ("STATUS_FD", 0), fds=[status_fd])
    assert keeper_end(driver) == 1
    assert list(directory.iterdir()) == []


def test_it_ends_with_the_process_when_the_engine_dies(kept: Driver) -> None:
    kept.socket.close()
    assert keeper_end(kept) == 1
