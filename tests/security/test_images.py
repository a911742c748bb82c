"""Images and configurations that lead the runtime astray, with nobody racing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.security import racing
from tests.security.hostile import changed, plain, with_mount, with_user_namespace, without_mounts
from tests.support.bundles import Bundles, Config, Mutator
from tests.support.runtime import Runtime
from tests.support.waiting_container import parse_mountinfo

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def outside(directory: Path) -> Path:
    """A directory of the host that no container has to do with."""
    path = directory / "outside"
    path.mkdir()
    (path / "secret").write_text("secret")
    return path


def untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["secret"] and (outside / "secret").is_file()


def with_everything(config: Config) -> None:
    """Something for each step that comes after the change of the root."""
    config["process"]["terminal"] = True
    config["process"]["consoleSize"] = {"width": 80, "height": 25}
    config["process"]["cwd"] = "/made/for/it"
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    config["linux"]["rootfsPropagation"] = "shared"
    config["domainname"] = "example"


def failing(mutate: Mutator) -> Mutator:
    """With a sysctl that the kernel refuses, after the change of the root."""

    def with_bad_sysctl(config: Config) -> None:
        config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "no number"}

    return changed(mutate, with_bad_sysctl)


# CVE-2019-14271 was this in another program: a library or module loaded from the image, by a process of the host.
@pytest.mark.parametrize("how", ["all", "fails", "no pivot", "user namespace"])
@pytest.mark.needs_direct
def test_the_runtime_loads_nothing_once_the_root_is_the_images(
    ctrun: Runtime, bundle: Bundles, container_id: str, how: str
):
    after: dict[int, list[str]] = {}
    own = Path("/proc/self/ns/mnt").readlink()

    def at_stop(_: int, stop: racing.Stop) -> None:
        if stop.name == "pivot_root" or (stop.name == "move_mount" and stop.path == "/"):
            after[stop.pid] = []
        elif stop.pid in after and Path(f"/proc/{stop.pid}/ns/mnt").readlink() != own:
            # an engine that has come back from there may import again
            after[stop.pid].append(stop.path)

    mutate = {
        "all": with_everything,
        "fails": failing(with_everything),
        "no pivot": with_everything,
        "user namespace": changed(plain, with_user_namespace),
    }[how]
    made = bundle(mutate, writable=True)
    flags = ["--no-pivot"] if how == "no pivot" else []
    words = [ctrun.path, *ctrun.globals, "run", *flags, "-b", made, container_id]
    outcome = racing.run(words, at_stop, looks=True)
    assert (outcome.code == 0) == (how != "fails"), repr(outcome)
    assert after
    assert all(len(paths) > 2 for paths in after.values()), after
    ours = [path for paths in after.values() for path in paths if path.startswith(("/usr", "/lib")) or ".py" in path]
    ours += [path for paths in after.values() for path in paths if str(ctrun.path.resolve().parents[1]) in path]
    assert not ours


def test_the_runtime_loads_nothing_in_the_containers_user_namespace(ctrun: Runtime, bundle: Bundles, container_id: str):
    """Its files may be closed to the container's root."""
    own = Path("/proc/self/ns/user").readlink()
    inside: list[str] = []

    def at_stop(_: int, stop: racing.Stop) -> None:
        if ".py" in stop.path and Path(f"/proc/{stop.pid}/ns/user").readlink() != own:
            inside.append(stop.path)

    made = bundle(changed(plain, with_user_namespace, with_mount("/tmp", "tmpfs", "tmpfs", "tmpcopyup")))
    outcome = racing.run([ctrun.path, *ctrun.globals, "run", "-b", made, container_id], at_stop)
    assert outcome.code == 0, repr(outcome)
    assert inside == []


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("directory", "absolute"),
        ("directory", "relative"),
        ("file", "relative"),
        ("tmpfs", "absolute"),
        ("cgroup", "absolute"),
        ("mqueue", "relative"),
        ("device", "absolute"),
        ("device", "relative"),
    ],
)
def test_a_destination_that_is_a_symlink_stays_in_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path, target: str, kind: str
):
    shown = outside.parent / "shown"
    if kind == "directory":
        shown.mkdir()
    else:
        shown.write_text("")
    mutate = {
        "directory": with_mount("/way/below", shown),
        "file": with_mount("/way/below", shown),
        "tmpfs": with_mount("/way/below", "tmpfs", "tmpfs"),
        "cgroup": with_mount("/way/below", "cgroup", "cgroup", "ro"),
        "mqueue": with_mount("/way/below", "mqueue", "mqueue"),
        "device": with_device("/way/below"),
    }[kind]
    made = bundle(changed(plain, mutate), args=["test", "-e", f"{outside}/below"], writable=True)
    way = "../" * 40 + str(outside)[1:] if target == "relative" else outside
    (made / "rootfs/way").symlink_to(way)
    ctrun("run", "-b", made, container_id).ok()
    assert untouched(outside)


def with_device(path: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["linux"]["devices"] = [{"path": path, "type": "c", "major": 1, "minor": 3}]

    return mutate


def test_a_working_directory_that_is_a_symlink_is_made_in_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path
):
    def mutate(config: Config) -> None:
        plain(config)
        config["process"]["cwd"] = "/way/made"

    made = bundle(mutate, args=["pwd"], writable=True)
    (made / "rootfs/way").symlink_to(outside)
    assert ctrun("run", "-b", made, container_id).text == f"{outside}/made"
    assert untouched(outside)


@pytest.mark.parametrize("destination", ["/..", "/proc/../..", "/../../way", "/./way/.././way"])
def test_dots_in_a_destination_do_not_lead_out(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path, destination: str
):
    made = bundle(changed(plain, with_mount(destination, "tmpfs", "tmpfs")), args=["true"], writable=True)
    outcome = racing.run(
        [ctrun.path, *ctrun.globals, "run", "-b", made, container_id], watch := Points(made / "rootfs")
    )
    assert watch.outside == set(), repr(outcome)


class Points:
    """Mount points outside of a directory that were not there in the beginning."""

    def __init__(self, rootfs: Path) -> None:
        self.rootfs = str(rootfs)
        self.before = {mount.point for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text())}
        self.outside: set[str] = set()

    def __call__(self, _: int, stop: racing.Stop) -> None:
        if stop.name in ("move_mount", "pivot_root") and Path(f"/proc/{stop.pid}/root").readlink() == Path("/"):
            points = {point for point in stop.mount_points() if not point.startswith(self.rootfs)}
            if str(self.rootfs) in stop.mount_points():
                self.outside.update(points - self.before)


@pytest.mark.parametrize("path", ["/way/secret", "/way"])
@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_a_mask_that_is_a_symlink_covers_what_the_container_sees_there(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path, path: str, key: str
):
    def mutate(config: Config) -> None:
        plain(config)
        config["linux"][key] = [path]

    made = bundle(mutate, args=["cat", "/proc/self/mountinfo"], writable=True)
    rootfs = made / "rootfs"
    inside = rootfs / str(outside)[1:]
    inside.mkdir(parents=True)
    (inside / "secret").write_text("of the image")
    (rootfs / "way").symlink_to(outside)
    points = [mount.point for mount in parse_mountinfo(ctrun("run", "-b", made, container_id).ok().out)]
    assert str(outside) + path.removeprefix("/way") in points
    assert untouched(outside)


def test_tmpcopyup_copies_symlinks_and_devices_as_what_they_are(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path
):
    script = "readlink /data/file /data/directory; readlink /data/directory; cat /data/file; ls /data/directory/; true"
    made = bundle(changed(plain, with_mount("/data", "tmpfs", "tmpfs", "tmpcopyup")), args=["sh", "-c", script])
    data = made / "rootfs/data"
    data.mkdir()
    (data / "file").symlink_to(outside / "secret")
    (data / "directory").symlink_to(outside)
    os.mkfifo(data / "fifo")
    result = ctrun("run", "-b", made, container_id, timeout=10)
    assert str(outside) in result.lines
    assert "secret" not in result.lines


def test_tmpcopyup_of_a_symlink_copies_from_inside(ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path):
    mutate = changed(plain, with_mount("/data", "tmpfs", "tmpfs", "tmpcopyup"))
    made = bundle(mutate, args=["cat", "/data/secret"], writable=True)
    (made / "rootfs/data").symlink_to(outside)
    assert ctrun("run", "-b", made, container_id).code != 0
    inside = made / "rootfs" / str(outside)[1:]
    inside.mkdir(parents=True, exist_ok=True)
    (inside / "secret").write_text("of the image")
    assert ctrun("run", "-b", made, container_id).text == "of the image"


@pytest.mark.parametrize("name", ["null", "urandom", "tty"])
def test_a_devices_place_that_is_taken_by_a_symlink_makes_nothing_elsewhere(
    ctrun: Runtime, bundle: Bundles, container_id: str, outside: Path, name: str
):
    """The image brings a /dev of its own, and no tmpfs hides it."""
    made = bundle(changed(plain, without_mounts("/dev")), writable=True)
    (made / "rootfs/dev" / name).symlink_to(outside / "made")
    ctrun("run", "-b", made, container_id)
    assert untouched(outside)
    assert stat.S_ISLNK((made / "rootfs/dev" / name).lstat().st_mode)
