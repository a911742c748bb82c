"""Fixtures for all tests, the markers that say what a test needs, and the count of skips."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.bundles import Bundles, make_rootfs
from tests.support.leaks import LeakCheck
from tests.support.needs import lacking
from tests.support.runtime import Runtime, runtime_under_test

# the guest of tests/vm has what this host may lack, so it has a list of its own
ALLOWED_SKIPS = Path(os.environ.get("CTR_TEST_ALLOWED_SKIPS") or Path(__file__).with_name("allowed_skips.txt"))
# containers of this run, and of no other that shares the machine
PREFIX = f"ctrtest-{os.getpid()}-"

serial = itertools.count(1)

unexpected_skips: list[str] = []


def pytest_configure() -> None:
    """Lets a run that is told to end clean up as one that is interrupted from the keyboard.

    Whoever runs the tests in the background of a shell ignores Ctrl-C, and so would every program that they start.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose needs the host does not meet."""
    for mark in item.iter_markers():
        if mark.name.startswith("needs_"):
            reason = lacking(mark.name, *mark.args)
            if reason:
                pytest.skip(reason)


def _allowed(reason: str) -> bool:
    lines = ALLOWED_SKIPS.read_text().splitlines()
    return any(reason.startswith(line) for line in lines if line and not line.startswith("#"))


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not _allowed(reason):
            unexpected_skips.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes skips that are not on the list."""
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Notes skips of whole files that are not on the list."""
    _note_skip(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run in CI that skipped what CI should have run."""
    if os.environ.get("CI") and unexpected_skips and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists the skips that are not on the list."""
    if os.environ.get("CI") and unexpected_skips:
        terminalreporter.section(f"{len(unexpected_skips)} unexpected skips (tests/allowed_skips.txt)", red=True)
        for line in sorted(unexpected_skips):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A directory for the whole run that every user may enter; its path is short enough for unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="ctrtest-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def directory(run_directory: Path) -> Iterator[Path]:
    """A directory for one test that every user may enter, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="t", dir=run_directory))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def busybox_rootfs(run_directory: Path) -> Iterator[Path]:
    """A busybox root file system that nobody changes: whoever does, even by a mount point, spoils the copies."""
    rootfs = run_directory / "busybox"
    make_rootfs(rootfs)
    before = set(rootfs.rglob("*"))
    yield rootfs
    assert set(rootfs.rglob("*")) == before, "a test has changed the root file system that others copy"


@pytest.fixture
def bundle(directory: Path, busybox_rootfs: Path) -> Bundles:
    """Factory of bundles: `bundle(mutate, args=[…])` returns the directory of a new one."""
    return Bundles(directory, busybox_rootfs)


@pytest.fixture
def ctrun() -> Runtime:
    """The runtime under test: `ctrun("run", "-b", bundle, container_id)` returns a Result."""
    return Runtime(runtime_under_test())


@pytest.fixture
def runc(directory: Path) -> Runtime:
    """The reference to compare with, with states of its own."""
    return Runtime(Path(shutil.which("runc") or "runc"), directory / "runc-states")


@pytest.fixture
def new_container_id(ctrun: Runtime, runc: Runtime) -> Iterator[Callable[[], str]]:
    """Factory of unused container ids; what is made under them is deleted at the end of the test."""
    made: list[str] = []

    def new() -> str:
        made.append(f"{PREFIX}{next(serial)}")
        return made[-1]

    yield new
    for container in made:
        ctrun.remove(container)
        runc.remove(container)


@pytest.fixture
def container_id(new_container_id: Callable[[], str]) -> str:
    """An unused container id; what is made under it is deleted at the end of the test."""
    return new_container_id()


@pytest.fixture
def no_leaks(
    run_directory: Path, directory: Path, ctrun: Runtime, new_container_id: Callable[[], str]
) -> Iterator[None]:
    """Fails a test that leaves mounts, cgroups, processes or state behind.

    It looks before the other fixtures clean up (it depends on them, so it ends first): the test itself deletes what it
    created. For a whole file: `pytestmark = pytest.mark.usefixtures("no_leaks")`.
    """
    check = LeakCheck([run_directory, ctrun.state_root], [ctrun.state_root], PREFIX)
    yield
    check.check()
