"""Containers that are checkpointed and restored."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from tests.support import criu
from tests.support.bundles import Bundles, Config, Mutator
from tests.support.command import Result, run
from tests.support.needs import lacking
from tests.support.runtime import ROOT, Runtime
from tests.support.waiting import until

# A bridge, two or three starts of CRIU, and a tenth of a second that CRIU waits for the freezer of v1.
LIMIT = 90


class Restorable:
    """A container that counts, or does something else, and its way through checkpoint and restore.

    Args:
        ctrun: the runtime.
        bundles: makes its bundle.
        directory: for images and logs.
        new_container_id: makes its id.
    """

    def __init__(self, ctrun: Runtime, bundles: Bundles, directory: Path, new_container_id: Callable[[], str]) -> None:
        self.ctrun = ctrun
        self.bundles = bundles
        self.directory = directory
        self.images = directory / "images"
        self.work = directory / "work"
        self.container_id = new_container_id()
        self.bundle = Path()
        self.criu = ["--criu", str(criu.find())]

    def run(self, script: str, mutate: Mutator | None = None, *, flags: tuple[str | Path, ...] = ()) -> Restorable:
        """Starts it, detached, with /dev/null as its stdio."""
        self.bundle = self.bundles(mutate, args=["sh", "-c", script])
        run_detached(self.ctrun, "run", "-d", *flags, "-b", self.bundle, self.container_id).ok()
        return self

    def count(self, mutate: Mutator | None = None) -> Restorable:
        """Starts one that writes a growing number into /dev/shm/count."""
        return self.run(
            "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; mv /dev/shm/new /dev/shm/count; done", mutate
        )

    def inside(self, *command: str) -> str:
        """Output of a command in it."""
        return self.ctrun("exec", self.container_id, *command).text

    def counted(self) -> int:
        """How far it has counted, 0 before it has begun."""
        result = self.ctrun("exec", self.container_id, "cat", "/dev/shm/count")
        return int(result.out) if result.code == 0 and result.out.strip() else 0

    def counts(self) -> int:
        """Waits until it goes on counting; how far it is then."""
        before = self.counted()
        until("it counts", lambda: self.counted() > before)
        return before

    def checkpoint(self, *flags: str | Path) -> Result:
        """`ctrun checkpoint`."""
        where = ["--image-path", self.images, "--work-path", self.work]
        return self.ctrun(*self.criu, "checkpoint", *where, *flags, self.container_id, timeout=LIMIT)

    def restore(self, *flags: str | Path) -> Result:
        """`ctrun restore -d`."""
        where = ["--image-path", self.images, "--work-path", self.work, "-b", self.bundle]
        return run_detached(self.ctrun, *self.criu, "restore", "-d", *where, *flags, self.container_id)

    @property
    def status(self) -> str:
        """Its status, "" when there is none of that id."""
        return self.ctrun.status(self.container_id)

    @property
    def pid(self) -> int:
        """Pid of its init process."""
        return int(self.ctrun.state(self.container_id)["pid"])

    def end(self) -> None:
        """Deletes it."""
        self.ctrun("delete", "--force", self.container_id).ok()


def run_detached(runtime: Runtime, *arguments: str | Path, stdout: IO[str] | int = subprocess.DEVNULL) -> Result:
    """A verb whose process stays, with /dev/null as its stdio: of a pipe to us the other end would have to be kept.

    What it says is in its log.
    """
    with tempfile.TemporaryDirectory(prefix="ctrtest-") as directory:
        log = Path(directory, "log")
        argv = [runtime.path, *runtime.globals, "--log", log, *arguments]
        done = subprocess.run(
            list(map(str, argv)),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            timeout=LIMIT,
            check=False,
        )
        text = log.read_text() if log.exists() else ""
    return Result(list(map(str, argv)), done.returncode, "", text)


@pytest.fixture
def restorable(
    ctrun: Runtime, bundle: Bundles, directory: Path, new_container_id: Callable[[], str]
) -> Callable[[], Restorable]:
    """Factory of containers to checkpoint; each has folders of its own."""
    made = 0

    def new() -> Restorable:
        nonlocal made
        made += 1
        place = directory / f"criu{made}"
        place.mkdir()
        return Restorable(ctrun, bundle, place, new_container_id)

    return new


@pytest.fixture
def box(restorable: Callable[[], Restorable]) -> Restorable:
    """A container to checkpoint."""
    return restorable()


@pytest.fixture(scope="session")
def holder(run_directory: Path) -> Path:
    """A static program that holds on to something: see its source."""
    reason = lacking("needs_command", "musl-gcc")
    if reason:
        pytest.skip(reason)
    source = ROOT / "tests/support/holder.c"
    program = run_directory / "holder"
    argv = ["musl-gcc", "-std=gnu11", "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, source]
    run(*argv, timeout=60).ok()
    return program


@pytest.fixture
def holding(holder: Path, box: Restorable) -> Callable[..., Restorable]:
    """Starts the container with the holder: `holding("lock", "/dev/shm/file")`."""

    def start(*arguments: str, mutate: Mutator | None = None) -> Restorable:
        def with_holder(config: Config) -> None:
            mounts = config["mounts"]
            mounts.append({"destination": "/holder", "type": "bind", "source": str(holder), "options": ["bind", "ro"]})
            if mutate is not None:
                mutate(config)

        box.run(f"exec /holder {' '.join(arguments)}", with_holder)
        until("the holder holds", lambda: box.ctrun("exec", box.container_id, "test", "-e", "/dev/shm/ready").code == 0)
        return box

    return start
