"""A caller in a chroot gets its own files, not those of the host around it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]


class Chroot:
    """A chroot that shows all of the host, but another /media. Symlinks in it start at its own root.

    Args:
        directory: of the test.
        ctrun: the runtime.
    """

    def __init__(self, directory: Path, ctrun: Runtime) -> None:
        self.root = directory / "chroot"
        self.media = directory / "inside"
        self.ctrun = ctrun
        self.root.mkdir()
        self.media.mkdir()

    def run(self, bundle: Path, container_id: str) -> str:
        """What a container prints whose bundle is moved there."""
        os.rename(bundle, self.media / "bundle")
        script = (
            f"mount --rbind / {self.root} && mount --bind {self.media} {self.root}/media && "
            f'exec chroot {self.root} "$1" run -b /media/bundle "$2"'
        )
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", self.ctrun.path, container_id],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def chroot(directory: Path, ctrun: Runtime) -> Chroot:
    return Chroot(directory, ctrun)


def test_rootfs_and_bind_sources_are_those_of_the_chroot(chroot: Chroot, bundle: Bundles, container_id: str) -> None:
    (chroot.media / "data").mkdir()
    (chroot.media / "data/word").write_text("chroot\n")
    (chroot.media / "link").symlink_to("/media/data")

    def volume(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/volume", "type": "bind", "source": "/media/link", "options": ["rbind", "ro"]}
        )

    made = bundle(volume, args=["cat", "/volume/word"], writable=True)
    assert chroot.run(made, container_id) == "chroot\n"


@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_hooks_are_those_of_the_chroot(stage: str, chroot: Chroot, bundle: Bundles, container_id: str) -> None:
    hook = chroot.media / "hook"
    hook.write_text("#!/bin/sh\necho found >/media/report\n")
    hook.chmod(0o755)

    def change(config: dict[str, Any]) -> None:
        config["hooks"] = {stage: [{"path": "/media/hook"}]}

    made = bundle(change, args=["echo", "ended"], writable=True)
    assert chroot.run(made, container_id) == "ended\n"
    assert (chroot.media / "report").read_text() == "found\n"
