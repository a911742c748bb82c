"""CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: a /proc that is not what it seems.

The runtime and the security modules say through procfs what a process may do. A procfs that the image or a neighbour
made up, hid or redirected turns these words into nothing, or into writes to other files.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.hostile import (
    FOREVER,
    changed,
    plain,
    running,
    with_all_capabilities,
    with_hook,
    with_mount,
    without_mounts,
)
from tests.support.bundles import Bundles, Config
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def decoy(directory: Path) -> Path:
    """A directory that looks like a procfs from afar."""
    path = directory / "decoy"
    for name in ("self/attr", "thread-self/attr/apparmor", "1/attr", "sys/kernel"):
        (path / name).mkdir(parents=True)
    return path


# CVE-2019-16884: a volume over /proc, where the runtime then wrote the AppArmor profile into a file of the image.
@pytest.mark.parametrize(
    "destination", ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys/kernel", "//proc/./self/"]
)
def test_a_volume_hides_no_part_of_proc(
    ctrun: Runtime, bundle: Bundles, container_id: str, decoy: Path, destination: str
):
    result = ctrun("run", "-b", bundle(changed(plain, with_mount(destination, decoy))), container_id)
    assert result.code != 0, repr(result)
    assert "cannot be mounted because it is" in result.err


# The same by way of a symlink that the image has ready.
@pytest.mark.parametrize("target", ["/proc/self", "/proc/self/attr", "../../../proc/sys", "/proc"])
def test_a_volume_hides_no_part_of_proc_through_a_symlink_of_the_image(
    ctrun: Runtime, bundle: Bundles, container_id: str, decoy: Path, target: str
):
    made = bundle(changed(plain, with_mount("/data", decoy)))
    (made / "rootfs/data").symlink_to(target)
    result = ctrun("run", "-b", made, container_id)
    assert result.code != 0, repr(result)
    assert "cannot be mounted because it is" in result.err


# CVE-2019-19921, and CVE-2023-27561 when the check of the former went lost.
@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["/decoy", "decoy", "/volume/decoy", "/tmp/../decoy/."])
def test_proc_and_sys_of_an_image_are_no_symlinks(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, name: str, target: str
):
    volume = directory / "volume"
    (volume / "decoy").mkdir(parents=True)

    def volume_first(config: Config) -> None:
        config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = []
        shared = {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind"]}
        config["mounts"].insert(0, shared)

    made = bundle(volume_first)
    rootfs = made / "rootfs"
    (rootfs / "decoy").mkdir()
    (rootfs / name).rmdir()
    (rootfs / name).symlink_to(target)
    result = ctrun("run", "-b", made, container_id)
    assert result.code != 0, repr(result)
    assert "must be mounted on ordinary directory" in result.err


# CVE-2025-52881: while the container was made, a neighbour put something else where the runtime was about to write.
def test_a_sysctl_goes_to_the_kernel_whatever_a_neighbour_mounts_over_it(
    ctrun: Runtime, bundle: Bundles, container_id: str
):
    """The hook runs in the container's mount namespace, where a mount of a neighbour would have spread to."""

    def with_sysctl(config: Config) -> None:
        config["linux"]["sysctl"] = {"net.ipv4.ip_default_ttl": "77"}

    cover = "mount --bind tmp/cover proc/sys/net/ipv4/ip_default_ttl"
    script = "umount /proc/sys/net/ipv4/ip_default_ttl && cat /proc/sys/net/ipv4/ip_default_ttl"
    # the capabilities are for looking under the cover
    mutate = changed(plain, with_sysctl, with_all_capabilities, with_hook("createContainer", cover))
    made = bundle(mutate, args=["sh", "-c", script])
    (made / "rootfs/tmp/cover").write_text("untouched")
    result = ctrun("run", "-b", made, container_id)
    assert (made / "rootfs/tmp/cover").read_text() == "untouched"
    assert result.code != 0 or result.text == "77", repr(result)


def test_a_sysctl_does_not_go_to_a_filesystem_over_proc(ctrun: Runtime, bundle: Bundles, container_id: str):
    def with_sysctl(config: Config) -> None:
        config["linux"]["sysctl"] = {"net.ipv4.ip_default_ttl": "77"}

    cover = "mount --bind tmp/cover proc"
    made = bundle(changed(plain, with_sysctl, with_hook("createContainer", cover)))
    file = made / "rootfs/tmp/cover/sys/net/ipv4/ip_default_ttl"
    file.parent.mkdir(parents=True)
    file.write_text("untouched")
    ctrun("run", "-b", made, container_id)
    assert file.read_text() == "untouched"


# That labels are never written to a false /proc either: tests/nsexec/test_security.py, which needs no security module.
def test_a_container_without_a_procfs_starts_and_is_entered(ctrun: Runtime, bundle: Bundles, container_id: str):
    """The fifo is opened anew through a procfs, and so are other fds: never through the container's."""
    made = bundle(changed(plain, without_mounts("/proc")), args=FOREVER, writable=True)
    (made / "rootfs/proc/self").symlink_to("/decoy")
    (made / "rootfs/decoy/fd").mkdir(parents=True)
    for number in range(3, 12):
        (made / f"rootfs/decoy/fd/{number}").write_text("untouched")
    with running(ctrun, made, container_id):
        assert ctrun("exec", container_id, "echo", "in").text == "in"
    assert {path.read_text() for path in (made / "rootfs/decoy/fd").iterdir()} == {"untouched"}
