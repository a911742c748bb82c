"""scripts/own_root.py: how the tests come to run in a chroot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
OWN_ROOT = [sys.executable, "-I", "-S", SOURCE / "scripts/own_root.py"]

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_user_namespaces]


def in_a_chroot(directory: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a chroot that shows all of this host."""
    script = 'mount --rbind / "$1" && exec chroot "$@"'
    return subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", directory, *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_command_in_a_chroot_can_make_user_namespaces(directory: Path) -> None:
    assert in_a_chroot(directory, "unshare", "--user", "true").returncode != 0
    done = in_a_chroot(directory, *OWN_ROOT, "unshare", "--user", "pwd")
    assert (done.returncode, done.stdout) == (0, "/\n"), done.stderr


def test_the_root_of_a_command_in_a_chroot_is_a_mount(directory: Path) -> None:
    done = in_a_chroot(directory, *OWN_ROOT, "mount", "--make-rprivate", "/")
    assert done.returncode == 0, done.stderr


def test_elsewhere_a_command_keeps_its_mount_namespace() -> None:
    where = Path("/proc/self/ns/mnt").readlink()
    done = subprocess.run(
        [*OWN_ROOT, "readlink", "/proc/self/ns/mnt"], check=True, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == (f"{where}\n", "")
