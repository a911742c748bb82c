"""What the root of a user namespace gets to see and to change of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.security.hostile import changed, plain, with_mount, with_user_namespace
from tests.support.bundles import Bundles, Config
from tests.support.runtime import Runtime
from tests.support.waiting_container import parse_mountinfo

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]


def with_host_network(config: Config) -> None:
    config["linux"]["namespaces"] = [space for space in config["linux"]["namespaces"] if space["type"] != "network"]


def with_sysfs_alone(config: Config) -> None:
    plain(config)
    config["mounts"].append(
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        }
    )


def test_the_hosts_sys_is_as_read_only_as_the_sysfs_that_was_asked_for(
    ctrun: Runtime, bundle: Bundles, container_id: str
):
    """Without a network namespace of its own it may not mount a sysfs and gets the host's, with all that is below."""
    mutate = changed(with_sysfs_alone, with_host_network, with_user_namespace)
    made = bundle(mutate, args=["cat", "/proc/self/mountinfo"])
    mounts = [
        mount
        for mount in parse_mountinfo(ctrun("run", "-b", made, container_id).ok().out)
        if mount.point == "/sys" or mount.point.startswith("/sys/")
    ]
    assert mounts
    for mount in mounts:
        assert mount.options >= {"ro", "nosuid", "nodev", "noexec"}, mount.line


def test_nothing_of_the_host_is_left_in_the_mounts(ctrun: Runtime, bundle: Bundles, container_id: str):
    made = bundle(changed(plain, with_user_namespace), args=["cat", "/proc/self/mountinfo"])
    mounts = parse_mountinfo(ctrun("run", "-b", made, container_id).ok().out)
    devices = {f"/dev/{name}" for name in ("null", "random", "full", "tty", "zero", "urandom")}
    assert {mount.point for mount in mounts} == {"/", "/proc", "/dev", *devices}
    assert {mount.root for mount in mounts if mount.point in devices} == {path.removeprefix("/dev") for path in devices}


def test_root_of_the_container_is_nobody_on_the_host(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
):
    volume = directory / "volume"
    volume.mkdir()
    (volume / "secret").write_text("secret")
    (volume / "secret").chmod(0o600)
    (volume / "open").mkdir()
    (volume / "open").chmod(0o777)
    script = "cat /volume/secret; touch /volume/new; touch /volume/open/new; id -u"
    made = bundle(changed(plain, with_user_namespace, with_mount("/volume", volume)), args=["sh", "-c", script])
    (made / "rootfs/volume").mkdir()
    result = ctrun("run", "-b", made, container_id)
    assert "secret\n" not in result.out
    assert not (volume / "new").exists()
    assert (volume / "open/new").stat().st_uid == 300000
    assert result.lines[-1] == "0"


def test_a_parent_directory_that_is_closed_to_the_container_does_not_open_to_it(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
):
    """The runtime reaches the source as the host's root; the container gets what is mounted, and no way up."""
    closed = directory / "closed"
    (closed / "shown").mkdir(parents=True)
    (closed / "secret").write_text("secret")
    os.chmod(closed, 0o700)
    (closed / "shown").chmod(0o777)
    script = "cd /shown && ls; ls ..; cat ../secret /shown/../secret"
    made = bundle(
        changed(plain, with_user_namespace, with_mount("/shown", closed / "shown")), args=["sh", "-c", script]
    )
    (made / "rootfs/shown").mkdir()
    result = ctrun("run", "-b", made, container_id)
    assert "proc" in result.out
    assert "secret\n" not in result.out
