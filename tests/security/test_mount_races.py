"""CVE-2021-30465, CVE-2024-45310 and the race of CVE-2019-19921: a neighbour exchanges what a mount is to go to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security import racing
from tests.security.hostile import Race, changed, plain, with_mount, without_mounts
from tests.support.bundles import Bundles
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def outside(directory: Path) -> Path:
    """A directory of the host that no container has to do with."""
    path = directory / "outside"
    (path / "below").mkdir(parents=True)
    return path


@pytest.fixture
def volume(directory: Path, outside: Path) -> Path:
    """A volume that two containers share; `swapped` stands for an entry that the other one has ready."""
    path = directory / "volume"
    (path / "racy" / "below").mkdir(parents=True)
    (path / "swapped").symlink_to(outside)
    return path


def touches_racy(path: str) -> bool:
    return "racy" in path


def touches_proc(path: str) -> bool:
    return path == "/proc" or path.endswith("/rootfs/proc")


# CVE-2021-30465: the destination was checked as a path and then mounted on as a path.
@pytest.mark.parametrize("first", ["directory", "symlink"])
@pytest.mark.needs_direct
def test_a_mount_does_not_land_outside_when_a_neighbour_swaps_its_destination(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], volume: Path, outside: Path, first: str
):
    if first == "symlink":
        racing.exchange(volume / "racy", volume / "swapped")
    mounts = changed(
        plain, with_mount("/volume", volume), with_mount("/volume/racy/below", "tmpfs", "tmpfs", "size=64k")
    )
    made = bundle(mounts)
    race = Race(ctrun, made, new_container_id, volume / "racy", volume / "swapped", touches_racy)
    for outcome in race.outcomes():
        assert not [point for point in race.mount_points if point.startswith(str(outside))], repr(outcome)
        assert [path.name for path in outside.rglob("*")] == ["below"], repr(outcome)


# CVE-2024-45310: missing parts of the destination were made as a path, and so on the host.
@pytest.mark.parametrize("source", ["directory", "file"])
@pytest.mark.needs_direct
def test_nothing_is_made_outside_when_a_neighbour_swaps_a_parent_of_a_missing_destination(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], volume: Path, outside: Path, source: str
):
    shown = volume.parent / "shown"
    if source == "directory":
        shown.mkdir()
    else:
        shown.write_text("")
    made = bundle(changed(plain, with_mount("/volume", volume), with_mount("/volume/racy/new/place", shown)))
    race = Race(ctrun, made, new_container_id, volume / "racy", volume / "swapped", touches_racy)
    for outcome in race.outcomes():
        assert sorted(path.name for path in outside.rglob("*")) == ["below"], repr(outcome)
        assert not [point for point in race.mount_points if point.startswith(str(outside))], repr(outcome)


# CVE-2019-19921: two containers share a root filesystem, and one of them swaps /proc while the other starts.
@pytest.mark.parametrize("first", ["directory", "symlink"])
def test_proc_is_a_procfs_or_the_container_does_not_start_when_a_neighbour_swaps_it(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], first: str
):
    # Only looks at /proc if that is a mount of its own.
    made = bundle(
        changed(plain, without_mounts("/dev")),
        args=["sh", "-c", "[ -e /proc/self/stat ] && ls -ldi /proc"],
        writable=True,
    )
    rootfs = made / "rootfs"
    (rootfs / "decoy").mkdir()
    (rootfs / "swapped").symlink_to("/decoy")
    if first == "symlink":
        racing.exchange(rootfs / "proc", rootfs / "swapped")
    race = Race(ctrun, made, new_container_id, rootfs / "proc", rootfs / "swapped", touches_proc)
    for outcome in race.outcomes():
        assert not [point for point in race.mount_points if point.endswith("/rootfs/decoy")], repr(outcome)
        # 1 is the inode of a procfs's root
        assert outcome.code != 0 or outcome.out.split()[0] == "1", repr(outcome)
