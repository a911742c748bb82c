"""Where one run of a guest keeps its files, and what has to be there before it boots."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.vm.guest import image as images
from tests.vm.guest import tree

CHECKOUT = Path(__file__).resolve().parents[3]
# where images are kept
DIRECTORY = CHECKOUT / "build/vm"


def say(text: str) -> None:
    """Tells whoever waits for the run."""
    print(f"test-vm: {text}", flush=True)


def own_directory(directory: Path) -> tuple[Path, int]:
    """A new directory for this run and the lock on it; those of runs that were killed are removed."""
    for old in directory.glob("run-*"):
        try:
            with (old / "lock").open() as theirs:
                fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            continue
        shutil.rmtree(old, ignore_errors=True)
    run = Path(tempfile.mkdtemp(prefix="run-", dir=directory))
    lock = os.open(run / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return run, lock


def build(directory: Path, run: Path) -> tuple[list[str], images.Image]:
    """Makes what is missing, and the disk with the project, `tree.img`, for this run.

    Args:
        directory: where images are kept.
        run: directory of this run.

    Returns:
        The command of the emulator, and what it boots.
    """
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        emulator = images.emulator(directory)
        image = images.image(directory)
        began = time.monotonic()
        source = tree.build(CHECKOUT, image.root, directory, (directory / "image.key").read_text())
        images.make_disk(source, run / "tree.img", "1G")
        say(f"built the project for the guest in {time.monotonic() - began:.0f} s")
    return emulator, image
