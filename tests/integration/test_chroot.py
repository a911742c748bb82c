"""A caller in a chroot gets its own files, not those of the host around it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]


def test_rootfs_and_bind_sources_are_those_of_the_chroot(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    # A chroot that shows all of the host, and another /srv. Symlinks in it start at its own root.
    chroot = directory / "chroot"
    inside = directory / "inside"
    (inside / "data").mkdir(parents=True)
    (inside / "data/word").write_text("chroot\n")
    (inside / "link").symlink_to("/srv/data")
    chroot.mkdir()

    def volume(config: dict[str, object]) -> None:
        mounts = config["mounts"]
        assert isinstance(mounts, list)
        mounts.append({"destination": "/volume", "type": "bind", "source": "/srv/link", "options": ["rbind", "ro"]})

    made = bundle(volume, args=["cat", "/volume/word"], writable=True)
    os.rename(made, inside / "bundle")
    script = (
        f"mount --rbind / {chroot} && mount --bind {inside} {chroot}/srv && "
        f'exec chroot {chroot} "$1" run -b /srv/bundle "$2"'
    )
    run = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", ctrun.path, container_id],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (0, "chroot\n"), run.stderr
