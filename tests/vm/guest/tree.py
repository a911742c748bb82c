"""The project in the guest: a copy of this checkout, built in the guest's root file system at the host's speed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PLACE = "/ctrun"
BUILD_LIMIT = 600

# In a mount namespace of its own, so that nothing stays mounted. pip finds no index and Debian's packages serve.
BUILD = """
set -e
mount --bind "$1" "$2/ctrun"
mount -t proc proc "$2/proc"
exec chroot "$2" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PIP_NO_INDEX=1 /ctrun/dev build
"""


# What is made in a checkout, and made anew in the guest's.
MADE = {".git", ".venv", "build", "dist", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}


def _files(checkout: Path) -> list[str]:
    """Every file of the checkout that git knows or would take; of a tree without git, all that was not made in it."""
    if not (checkout / ".git").exists():
        found = []
        for directory, below, names in os.walk(checkout):
            below[:] = [each for each in below if each not in MADE]
            found += [os.path.relpath(f"{directory}/{name}", checkout) for name in names if not name.endswith(".so")]
        return found
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return [name for name in listed.split("\0") if name and os.path.lexists(checkout / name)]


def _copy(checkout: Path, to: Path) -> None:
    """Brings the copy up to date; what was built in it stays, and what the checkout has no more goes."""
    wanted = set(_files(checkout))
    listing = to.with_name("tree.files")
    before = listing.read_text().split("\0") if listing.exists() and to.exists() else []
    for name in set(before) - wanted:
        (to / name).unlink(missing_ok=True)
    for name in wanted:
        source, target = checkout / name, to / name
        if not source.is_symlink() and target.exists() and source.stat().st_mtime_ns == target.stat().st_mtime_ns:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    listing.write_text("\0".join(sorted(wanted)))


def build(checkout: Path, root: Path, directory: Path, key: str) -> Path:
    """A built copy of the checkout, for the guest to have at PLACE.

    Args:
        checkout: the working tree.
        root: the guest's root file system, as a directory.
        directory: where what was built is kept.
        key: names the root file system; one that changes means building all anew.
    """
    tree, stamp = directory / "tree", directory / "tree.key"
    if not stamp.exists() or stamp.read_text() != key:
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        stamp.write_text(key)
    _copy(checkout, tree)
    log = directory / "tree.log"
    with log.open("w") as file:
        status = subprocess.run(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", BUILD, "sh", tree, root],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            timeout=BUILD_LIMIT,
            check=False,
        ).returncode
    if status:
        raise SystemExit("test-vm: the build failed:\n" + "\n".join(log.read_text().splitlines()[-20:]))
    return tree
