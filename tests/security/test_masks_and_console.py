"""CVE-2025-31133 and CVE-2025-52565: what is mounted from, or over, /dev/null and /dev/console.

A createContainer hook plays the neighbour that wins the race: it runs in the container's mount namespace right between
the making of the devices and their use.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.hostile import changed, plain, with_hook, with_mount, without_mounts
from tests.support.bundles import Bundles, Config, Mutator
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]


def masking(path: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["linux"]["maskedPaths"] = [path]

    return mutate


def with_terminal(config: Config) -> None:
    config["process"]["terminal"] = True


# CVE-2025-31133: with a symlink as /dev/null a masked file became a way to the symlink's target.
@pytest.mark.covers(".linux.maskedPaths")
@pytest.mark.parametrize(
    "instead",
    [
        "ln -s /proc/sys/kernel/core_pattern dev/null",
        "ln -s ../secret dev/null",
        "echo text >dev/null",
        "mknod dev/null c 1 5",
        "mkdir dev/null",
        "mkfifo dev/null",
        "true",
    ],
)
def test_a_file_is_masked_by_the_real_null_device_or_the_container_does_not_start(
    ctrun: Runtime, bundle: Bundles, container_id: str, instead: str
):
    hook = with_hook("createContainer", f"rm dev/null; {instead}")
    made = bundle(changed(plain, masking("/proc/keys"), hook), args=["timeout", "1", "head", "-c", "100", "/proc/keys"])
    (made / "rootfs/secret").write_text("secret")
    result = ctrun("run", "-b", made, container_id)
    assert result.code != 0, repr(result)
    assert "null device" in result.err


# CVE-2025-52565: the terminal was mounted over whatever /dev/console led to.
@pytest.mark.parametrize("target", ["/etc/victim", "../etc/victim", "/proc/sys/kernel/hostname"])
def test_a_terminal_is_not_mounted_through_a_symlink(ctrun: Runtime, bundle: Bundles, container_id: str, target: str):
    hook = with_hook("createContainer", f"rm -f dev/console; ln -s {target} dev/console")
    made = bundle(changed(with_terminal, hook), args=["cat", "/proc/self/mountinfo"])
    (made / "rootfs/etc/victim").touch()
    result = ctrun("run", "-b", made, container_id)
    assert result.code != 0, repr(result)
    assert "/dev/console" in result.err


@pytest.mark.parametrize("ptmx", ["symlink", "file", "other device", "nothing"])
def test_a_terminal_comes_from_a_real_devpts(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, ptmx: str
):
    """A volume as /dev/pts, in which a neighbour has prepared a ptmx."""
    import os
    import stat

    volume = directory / "volume"
    volume.mkdir()
    if ptmx == "symlink":
        (volume / "ptmx").symlink_to("/etc/passwd")
    elif ptmx == "file":
        (volume / "ptmx").write_text("untouched")
    elif ptmx == "other device":
        os.mknod(volume / "ptmx", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    made = bundle(changed(with_terminal, without_mounts("/dev/pts"), with_mount("/dev/pts", volume)))
    result = ctrun("run", "-b", made, container_id)
    assert result.code != 0, repr(result)
    assert "devpts" in result.err
