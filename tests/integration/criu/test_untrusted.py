"""A folder of images is somebody else's: what comes from the bundle, and what is never followed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.criu.conftest import Restorable
from tests.support.bundles import Config
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_criu, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def saved(box: Restorable) -> Restorable:
    """A container that was checkpointed."""
    box.count().counts()
    box.checkpoint().ok()
    return box


def refused(box: Restorable, text: str) -> None:
    """The restore fails and says this; nothing of the container is there."""
    result = box.restore()
    assert result.code == 1
    assert text in result.err
    assert not (box.ctrun.state_root / box.container_id).exists()


@pytest.mark.parametrize("name", ["core-1.img", "new.img", "restore.log", "descriptors.json"])
def test_symlinks_among_the_images_are_refused(saved: Restorable, directory: Path, name: str) -> None:
    victim = directory / "victim"
    victim.write_text("untouched")
    (saved.images / name).unlink(missing_ok=True)
    (saved.images / name).symlink_to(victim)
    refused(
        saved, f"the image path has a symlink, which no checkpoint makes: {saved.images / name}".replace(": /", " /")
    )
    assert victim.read_text() == "untouched"


def test_a_log_that_is_a_link_leads_nowhere(saved: Restorable, directory: Path) -> None:
    victim = directory / "victim"
    victim.write_text("untouched")
    (saved.work / "restore.log").unlink(missing_ok=True)
    (saved.work / "restore.log").symlink_to(victim)
    assert saved.restore().code == 1
    assert victim.read_text() == "untouched"
    (saved.work / "restore.log").unlink()
    saved.restore().ok()
    saved.end()


@pytest.mark.parametrize("name", ["descriptors.json", "dump.log", "inventory.img"])
def test_a_dump_into_a_folder_with_links_leads_nowhere(box: Restorable, directory: Path, name: str) -> None:
    box.count().counts()
    victim = directory / "victim"
    victim.write_text("untouched")
    box.images.mkdir()
    box.work = box.images
    (box.images / name).symlink_to(victim)
    box.checkpoint()
    assert victim.read_text() == "untouched"
    box.end()


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_could_hang_a_reader_is_no_image(saved: Restorable, kind: str) -> None:
    path = saved.images / "descriptors.json"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
        refused(saved, "the image path has something other than files")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
        refused(saved, "cannot read descriptors.json")


@pytest.mark.parametrize(
    "text", ["{}", '["a", "b", "c", "d"]', "[1]", "not json", '["pipe:[1]"', "[" * 100000], ids=range(6)
)
def test_descriptors_that_are_none_are_refused(saved: Restorable, text: str) -> None:
    (saved.images / "descriptors.json").write_text(text)
    refused(saved, "descriptors.json")


def test_no_fd_of_the_runtime_can_be_named(saved: Restorable) -> None:
    # A key that is no pipe would have CRIU give one of our files to the container.
    (saved.images / "descriptors.json").write_text('["extRootNetNS", "file[1:2]", "pipe:[x]"]')
    saved.restore().ok()
    saved.counts()
    saved.end()


def test_parent_links_must_lead_to_a_sibling_with_images_alone(saved: Restorable, directory: Path) -> None:
    parent = saved.images / "parent"
    parent.symlink_to("/etc")
    refused(saved, "the link to the parent image is absolute: /etc")
    parent.unlink()
    (directory / "link").symlink_to("/etc")
    parent.symlink_to(os.path.relpath(directory / "link", saved.images))
    refused(saved, "the link to the parent image leads through other links")
    parent.unlink()
    parent.symlink_to(".")
    refused(saved, "more than 1024 parent images")


def test_mounts_devices_and_annotations_are_the_bundles(
    box: Restorable, directory: Path, new_container_id: Callable[[], str]
) -> None:
    first, second = directory / "first", directory / "second"
    for place in (first, second):
        place.mkdir()
        (place / "name").write_text(place.name)

    def bind(source: Path) -> Callable[[Config], None]:
        def mutate(config: Config) -> None:
            config["annotations"] = {"whose": source.name}
            mount = {"destination": "/shown", "type": "bind", "source": str(source), "options": ["bind", "ro"]}
            config["mounts"].append(mount)

        return mutate

    # Not a lone sleep: restored, the call ends early (restart_syscall(2)), and newer busyboxes' sleep with it.
    box.run("while :; do sleep 1; done", bind(first))
    assert box.inside("cat", "/shown/name") == "first"
    box.checkpoint().ok()
    # Another host, where the same mount comes from another place, and a root file system that nothing ran in yet.
    box.bundle = box.bundles(bind(second), args=["sleep", "1000"])
    box.container_id = new_container_id()
    box.restore().ok()
    assert box.inside("cat", "/shown/name") == "second"
    assert box.ctrun.state(box.container_id)["annotations"] == {"whose": "second"}
    box.end()


def test_a_mount_that_the_bundle_has_not_is_not_made(box: Restorable, directory: Path) -> None:
    def bind(config: Config) -> None:
        mount = {"destination": "/shown", "type": "bind", "source": str(directory), "options": ["bind", "ro"]}
        config["mounts"].append(mount)

    box.run("sleep 1000", bind)
    box.checkpoint().ok()
    box.bundle = box.bundles(args=["sleep", "1000"])
    refused(box, "criu failed: type RESTORE")


def test_hooks_are_those_of_the_bundle_and_get_the_pid(saved: Restorable, directory: Path) -> None:
    config = json.loads((saved.bundle / "config.json").read_text())
    config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {directory}/{kind}"]}]
        for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststop")
    }
    (saved.bundle / "config.json").write_text(json.dumps(config))
    saved.restore().ok()
    pid = saved.pid
    for kind in ("prestart", "createRuntime"):
        state = json.loads((directory / kind).read_text())
        assert (state["pid"], state["id"]) == (pid, saved.container_id)
    # The process has been made long ago.
    assert not (directory / "createContainer").exists()
    saved.end()
    until("the hook has run", (directory / "poststop").exists)
