"""CVE-2026-41579: with `/dev` a symlink in the image, device nodes and links were made where it led: on the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security import racing
from tests.security.hostile import Race, changed, plain, with_user_namespace, without_mounts
from tests.support.bundles import Bundles, Config
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def outside(directory: Path) -> Path:
    """A directory of the host with files such as /dev has."""
    path = directory / "outside"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    (path / "ptmx").write_text("of the host")
    (path / "console").write_text("of the host")
    return path


def untouched(outside: Path) -> bool:
    """Whether no container made, removed or mounted anything there."""
    files = sorted(outside.iterdir())
    if [path.name for path in files] != ["console", "ptmx"] or not all(path.is_file() for path in files):
        return False  # what is there instead may be a device that never ends
    return all(path.read_text() == "of the host" for path in files)


def with_terminal(config: Config) -> None:
    config["process"]["terminal"] = True


def with_device(config: Config) -> None:
    config["linux"]["devices"] = [
        {"path": "/dev/made/zero", "type": "c", "major": 1, "minor": 5, "uid": 5, "gid": 5, "fileMode": 0o666}
    ]


def link_dev(rootfs: Path, target: str) -> None:
    (rootfs / "dev").rmdir()
    (rootfs / "dev").symlink_to(target)


@pytest.mark.parametrize("mount", ["no mount", "tmpfs"])
@pytest.mark.parametrize("form", ["absolute", "relative", "through proc"])
def test_devices_behind_a_symlinked_dev_are_made_in_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path, mount: str, form: str
):
    kept = () if mount == "tmpfs" else ("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    script = "test -c /dev/null && test -L /dev/fd && test -c /dev/made/zero && ls /dev/"
    made = bundle(changed(without_mounts(*kept), with_device), args=["sh", "-c", script], writable=True)
    up = "../" * len(made.parts)
    link_dev(
        made / "rootfs",
        {"absolute": str(outside), "relative": f"{up}{outside}", "through proc": f"/proc/1/root{outside}"}[form],
    )
    result = ctrun("run", "-b", made, container_id)
    assert untouched(outside), repr(result)
    if form != "through proc":
        assert "urandom" in result.lines


def test_a_terminal_behind_a_symlinked_dev_is_mounted_in_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path
):
    made = bundle(with_terminal, args=["test", "-c", "/dev/console"])
    link_dev(made / "rootfs", str(outside))
    result = ctrun("run", "-b", made, container_id)
    assert untouched(outside), repr(result)


@pytest.mark.needs_direct
def test_devices_in_a_user_namespace_are_not_mounted_outside(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path
):
    made = bundle(changed(plain, without_mounts("/dev"), with_user_namespace), writable=True)
    rootfs = made / "rootfs"
    link_dev(rootfs, str(outside))
    for path in (rootfs, rootfs / "proc", rootfs / "tmp"):
        os.chown(path, 300000, 300000)
    made.chmod(0o755)
    outcome = racing.run([ctrun.path, *ctrun.globals, "run", "-b", made, container_id], watch := MountWatch(outside))
    assert outcome.code == 0, repr(outcome)
    assert untouched(outside), repr(outcome)
    assert not watch.found, repr(outcome)
    # where they went instead
    assert any(path.endswith(f"/rootfs{outside}/null") for path in watch.all), repr(outcome)


class MountWatch:
    """Notes mounts at or below a directory that any process of the runtime sees at any stop."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.found: set[str] = set()
        self.all: set[str] = set()

    def __call__(self, _: int, stop: racing.Stop) -> None:
        if stop.name in ("mknodat", "move_mount", "pivot_root", "symlinkat"):
            points = stop.mount_points()
            self.all.update(points)
            self.found.update(point for point in points if point.startswith(self.directory))


@pytest.mark.needs_direct
def test_devices_are_made_in_the_container_when_a_neighbour_swaps_dev(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], outside: Path
):
    made = bundle(changed(plain, without_mounts("/dev")), args=["true"], writable=True)
    rootfs = made / "rootfs"
    (rootfs / "swapped").symlink_to(outside)

    def touches_dev(path: str) -> bool:
        return path in ("/dev", "dev") or path.endswith("/rootfs/dev")

    race = Race(ctrun, made, new_container_id, rootfs / "dev", rootfs / "swapped", touches_dev)
    for outcome in race.outcomes():
        assert untouched(outside), repr(outcome)
        assert not [point for point in race.mount_points if point.startswith(str(outside))], repr(outcome)
