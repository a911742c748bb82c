"""Images and neighbours that try to lead the setup worker astray: one test for each known way."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CtrError
from tests.support.bundles import Bundles
from tests.support.waiting_container import WaitingContainer, parse_mountinfo

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_busybox]

Config = dict[str, Any]
Mutator = Callable[[Config], None]


@pytest.fixture
def outside(directory: Path) -> Path:
    """A directory of the host that no container may touch."""
    path = directory / "outside"
    path.mkdir()
    return path


def with_mount(destination: str, source: Path | str, fstype: str = "bind", *options: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["mounts"].append(
            {
                "destination": destination,
                "type": fstype,
                "source": str(source),
                "options": [*options, *(["bind"] if fstype == "bind" else [])],
            }
        )

    return mutate


def without_mounts(*destinations: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith(destinations)]
        config["root"]["readonly"] = False

    return mutate


def refused(bundle: Path, text: str, **plan: Any) -> CtrError:
    with WaitingContainer(bundle, **plan) as container, pytest.raises(CtrError, match=text) as failure:
        container.set_up()
    return failure.value


# CVE-2019-16884, CVE-2019-19921: a volume in the place of /proc, or of a part of it


@pytest.mark.parametrize("destination", ["/proc", "/proc/", "/etc/../proc"])
def test_a_volume_cannot_take_the_place_of_proc(bundle: Bundles, outside: Path, destination: str):
    error = refused(bundle(with_mount(destination, outside)), "not of type proc")
    assert error.json_path == ".mounts[7]"


def test_a_tmpfs_cannot_take_the_place_of_proc(bundle: Bundles):
    refused(bundle(with_mount("/proc", "tmpfs", "tmpfs")), "not of type proc")


@pytest.mark.parametrize("destination", ["/proc/self/attr", "/proc/sys/kernel", "/proc/1/../1"])
def test_a_volume_cannot_hide_a_part_of_proc(bundle: Bundles, outside: Path, destination: str):
    refused(bundle(with_mount(destination, outside)), "inside /proc")


def test_a_volume_cannot_reach_proc_through_a_symlink_of_the_image(bundle: Bundles, outside: Path):
    made = bundle(with_mount("/innocent/self/attr", outside))
    (made / "rootfs/innocent").symlink_to("proc")
    refused(made, "inside /proc")
    made = bundle(with_mount("/innocent", outside))
    (made / "rootfs/innocent").symlink_to("/proc")
    refused(made, "not of type proc")


def test_what_lxcfs_emulates_may_be_mounted_in_proc(bundle: Bundles, outside: Path):
    (outside / "uptime").write_text("1.00 1.00\n")
    with WaitingContainer(bundle(with_mount("/proc/uptime", outside / "uptime"))) as container:
        assert container.set_up().shell("cat /proc/uptime") == "1.00 1.00\n"


# CVE-2019-19921, CVE-2023-27561: /proc or /sys is a symlink in the image


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["elsewhere", "/elsewhere", "../../../../../.."])
def test_proc_and_sys_are_mounted_on_real_directories_only(bundle: Bundles, name: str, target: str):
    made = bundle()
    (made / "rootfs/elsewhere").mkdir()
    shutil.rmtree(made / "rootfs" / name, ignore_errors=True)
    (made / "rootfs" / name).symlink_to(target)
    refused(made, "must be mounted on ordinary directory")


def test_a_symlink_above_a_procfs_is_no_way_either(bundle: Bundles):
    made = bundle(with_mount("/a/proc", "proc", "proc"))
    (made / "rootfs/b/proc").mkdir(parents=True)
    (made / "rootfs/a").symlink_to("b")
    refused(made, "must be mounted on ordinary directory")


# CVE-2021-30465, CVE-2024-45310: a destination that is, or becomes, a symlink to the host


@pytest.mark.parametrize("form", ["{}", "../../../../../../../../..{}"])
@pytest.mark.parametrize(
    ("fstype", "source"), [("tmpfs", "tmpfs"), ("bind", "/etc"), ("bind", "/etc/passwd"), ("mqueue", "mqueue")]
)
def test_a_symlinked_destination_stays_in_the_root(bundle: Bundles, outside: Path, form: str, fstype: str, source: str):
    made = bundle(with_mount("/trap/below/it", source, fstype))
    (made / "rootfs/trap").symlink_to(form.format(outside))
    with WaitingContainer(made) as container:
        points = [mount.point for mount in container.set_up().mountinfo()]
    assert f"{outside}/below/it" in points
    assert os.listdir(outside) == []


def test_a_cgroup_destination_stays_in_the_root(bundle: Bundles, outside: Path):
    def mutate(config: Config) -> None:
        without_mounts("/sys")(config)
        with_mount("/sys/fs/cgroup", "cgroup", "cgroup")(config)
        config["linux"]["maskedPaths"] = []

    made = bundle(mutate)
    shutil.rmtree(made / "rootfs/sys", ignore_errors=True)
    (made / "rootfs/sys").symlink_to(outside)
    with WaitingContainer(made) as container:
        points = [mount.point for mount in container.set_up().mountinfo()]
    assert f"{outside}/fs/cgroup" in points
    assert os.listdir(outside) == []


# Exchanges the names with renameat2(2), RENAME_EXCHANGE.
SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
first, second = (os.fsencode(path) for path in sys.argv[1:])
print("swapping", flush=True)
while True:
    libc.renameat2(-100, first, -100, second, 2)
"""


@pytest.fixture
def swap() -> Iterator[Callable[[Path, Path], None]]:
    """A neighbour that exchanges two entries of the image as fast as it can."""
    running = []

    def start(first: Path, second: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", SWAPPER, first, second], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "swapping\n"

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_a_neighbour_who_exchanges_directory_and_symlink_gets_nothing_out(
    bundle: Bundles, outside: Path, swap: Callable[[Path, Path], None]
):
    def mutate(config: Config) -> None:
        for index in range(12):
            with_mount(f"/volume/a/{index}", "tmpfs", "tmpfs")(config)

    made = bundle(mutate)
    (made / "rootfs/volume/a").mkdir(parents=True)
    (made / "rootfs/volume/b").symlink_to(outside)
    swap(made / "rootfs/volume/a", made / "rootfs/volume/b")
    for _ in range(8):
        with WaitingContainer(made) as container:
            try:
                container.set_up()
            except CtrError:
                continue  # what vanishes under the worker's hands may end the start
            mounts = [mount for mount in container.mountinfo() if mount.type == "tmpfs" and mount.source == "tmpfs"]
            # the 12, /dev, the cgroup tmpfs and at most two masks: nothing was mounted on the host's side
            assert len([mount for mount in mounts if mount.point[-1].isdigit()]) == 12
        assert os.listdir(outside) == []
    assert os.listdir(outside) == []


# CVE-2025-31133: the null device for masks


@pytest.mark.parametrize("target", ["/proc/uptime", "/etc/passwd", "zero"])
def test_a_symlink_is_not_taken_for_the_null_device(bundle: Bundles, target: str):
    made = bundle(without_mounts("/dev"))
    shutil.rmtree(made / "rootfs/dev")
    (made / "rootfs/dev").mkdir()
    (made / "rootfs/dev/null").symlink_to(target)
    assert refused(made, "null device").json_path.startswith(".linux.maskedPaths")


@pytest.mark.parametrize("device", [(1, 5), None])
def test_another_file_is_not_taken_for_the_null_device(bundle: Bundles, device: tuple[int, int] | None):
    made = bundle(without_mounts("/dev"))
    shutil.rmtree(made / "rootfs/dev")
    (made / "rootfs/dev").mkdir()
    if device:
        os.mknod(made / "rootfs/dev/null", 0o20666, os.makedev(*device))
    else:
        (made / "rootfs/dev/null").touch()
    refused(made, "null device")


def test_a_mask_does_not_follow_a_symlink_in_the_place_of_proc(bundle: Bundles, outside: Path):
    made = bundle(without_mounts("/proc"))
    shutil.rmtree(made / "rootfs/proc")
    (made / "rootfs/proc").symlink_to("/decoy")
    (made / "rootfs/decoy").mkdir()
    (made / "rootfs/decoy/bus").touch()
    error = refused(made, "symbolic links")
    assert error.json_path.startswith(".linux.")


# CVE-2025-52565: the terminal


@pytest.mark.parametrize("target", ["/etc/passwd", "../proc/uptime", "/proc/self/environ"])
def test_a_terminal_is_not_mounted_through_a_symlink_in_the_place_of_console(bundle: Bundles, target: str):
    made = bundle(without_mounts("/dev/mqueue"))
    script = made / "hook"
    # What a neighbour does between the mounts and the terminal.
    script.write_text(f"#!/bin/sh\nln -s {target} dev/console\n")
    script.chmod(0o755)
    with WaitingContainer(made, console=True) as container:
        container.plan.config["hooks"] = {"createContainer": [{"path": str(script)}]}
        with pytest.raises(CtrError, match="/dev/console"):
            container.set_up()


def test_a_terminal_comes_from_a_real_devpts_only(bundle: Bundles):
    made = bundle(without_mounts("/dev/pts"))
    (made / "rootfs/dev/pts").mkdir(parents=True, exist_ok=True)
    with WaitingContainer(made, console=True) as container:
        container.plan.config["mounts"].append(
            {"destination": "/dev/pts", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
        )
        with pytest.raises(CtrError, match="needs a devpts mount"):
            container.set_up()


def test_a_bound_directory_of_a_devpts_parent_is_no_devpts(bundle: Bundles, outside: Path):
    (outside / "ptmx").symlink_to("/dev/ptmx")
    made = bundle(without_mounts("/dev/pts"))
    with WaitingContainer(made, console=True) as container:
        with_mount("/dev/pts", outside)(container.plan.config)  # type: ignore[arg-type]
        with pytest.raises(CtrError, match="needs a devpts mount"):
            container.set_up()


# CVE-2025-52881: writes to procfs


def hooked(bundle: Path, script: str, **plan: Any) -> WaitingContainer:
    """A container with a createContainer hook that plays the neighbour, working in the root directory."""
    path = bundle / "hook"
    path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    path.chmod(0o755)
    container = WaitingContainer(bundle, **plan)
    container.plan.config["hooks"] = {
        "createContainer": [{"path": str(path), "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]
    }
    return container


def with_sysctl(config: Config) -> None:
    config["linux"]["sysctl"] = {"kernel.shmmni": "1234"}


def test_a_sysctl_is_written_to_a_procfs_that_nobody_can_have_changed(bundle: Bundles, outside: Path):
    (outside / "fake").touch()
    made = bundle(with_sysctl)
    with hooked(made, f"mount --bind {outside}/fake proc/sys/kernel/shmmni") as container:
        out = container.set_up().shell("umount /proc/sys/kernel/shmmni; cat /proc/sys/kernel/shmmni")
    assert out == "1234\n"
    assert (outside / "fake").read_text() == ""


def test_a_sysctl_is_written_even_if_something_hides_proc(bundle: Bundles, outside: Path):
    (outside / "sys/kernel").mkdir(parents=True)
    (outside / "sys/kernel/shmmni").write_text("")
    made = bundle(with_sysctl)
    with hooked(made, f"mount --bind {outside} proc") as container:
        container.plan.config["linux"]["maskedPaths"] = []
        container.plan.config["linux"]["readonlyPaths"] = []
        out = container.set_up().shell("umount /proc; cat /proc/sys/kernel/shmmni")
    assert out == "1234\n"
    assert (outside / "sys/kernel/shmmni").read_text() == ""


@pytest.mark.parametrize(
    "key", ["kernel/../../thread-self/comm", "net/../../self/comm", "../../etc/passwd", "/../../etc/passwd"]
)
def test_a_sysctl_cannot_leave_its_tree(bundle: Bundles, key: str):
    def mutate(config: Config) -> None:
        config["linux"]["sysctl"] = {key: "1"}

    assert refused(bundle(mutate), "sysctl").json_path == f".linux.sysctl.{key}"


# CVE-2026-41579: /dev is a symlink in the image


@pytest.mark.parametrize("form", ["{}", "../../../../../../../../..{}"])
def test_devices_of_a_symlinked_dev_are_made_in_the_root(bundle: Bundles, outside: Path, form: str):
    made = bundle(without_mounts("/dev"))
    shutil.rmtree(made / "rootfs/dev")
    (made / "rootfs/dev").symlink_to(form.format(outside))
    with WaitingContainer(made) as container:
        container.set_up()
        listing = container.shell(f"ls {outside}").split()
    assert {"null", "zero", "fd", "ptmx"} <= set(listing)
    assert os.listdir(outside) == []


def test_a_symlinked_dev_with_a_terminal_stays_in_the_root(bundle: Bundles, outside: Path):
    made = bundle()
    shutil.rmtree(made / "rootfs/dev")
    (made / "rootfs/dev").symlink_to(outside)
    with WaitingContainer(made, console=True) as container:
        points = [mount.point for mount in container.set_up().mountinfo()]
    assert {f"{outside}", f"{outside}/pts", f"{outside}/console"} <= set(points)
    assert os.listdir(outside) == []


def test_a_device_bound_in_a_user_namespace_is_not_mounted_through_a_symlink(bundle: Bundles, outside: Path):
    def mutate(config: Config) -> None:
        without_mounts("/dev", "/sys/fs/cgroup")(config)
        config["linux"]["namespaces"].append({"type": "user"})
        for name in ("uidMappings", "gidMappings"):
            config["linux"][name] = [{"containerID": 0, "hostID": 0, "size": 65536}]

    made = bundle(mutate)
    shutil.rmtree(made / "rootfs/dev")
    (made / "rootfs/dev").mkdir()
    (made / "rootfs/dev/full").symlink_to("/etc/passwd")
    refused(made, "symlink")


# The working directory (CVE-2024-21626 is about one of the host's)


def test_a_missing_working_directory_is_made_in_the_root(bundle: Bundles, outside: Path):
    def mutate(config: Config) -> None:
        config["process"]["cwd"] = "/trap/new/dir"

    made = bundle(mutate)
    (made / "rootfs/trap").symlink_to(outside)
    with WaitingContainer(made) as container:
        assert container.set_up().shell(f"stat -c %a {outside}/new/dir") == "755\n"
    assert os.listdir(outside) == []


# CVE-2016-9962, CVE-2019-5736, CVE-2024-21626: what the worker brings along


def test_the_worker_has_none_of_the_engines_fds(bundle: Bundles, outside: Path):
    leak = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leak, True)
    seen: list[str] = []
    try:
        with WaitingContainer(bundle()) as container:

            def look() -> None:
                for name in os.listdir(f"/proc/{container.worker_pid}/fd"):
                    if int(name) > 2:
                        seen.append(os.readlink(f"/proc/{container.worker_pid}/fd/{name}"))

            container.set_up(look)
    finally:
        os.close(leak)
    assert str(outside) not in seen
    # the socket, the pidfd, the root and a directory for devices
    assert len(seen) <= 4, seen


def test_the_worker_cannot_be_traced_from_the_container(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        for name in ("uidMappings", "gidMappings"):
            config["linux"][name] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]

    made = bundle(mutate)
    subprocess.run(["chown", "-R", "100000:100000", made / "rootfs"], check=True, timeout=30)
    seen: list[tuple[int, int]] = []
    with WaitingContainer(made) as container:

        def look() -> None:
            pid = container.worker_pid
            uid = next(
                int(line.split()[1])
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                if line.startswith("Uid:")
            )
            # /proc/PID belongs to the process's user only while the process may be dumped (proc(5))
            seen.append((uid, os.stat(f"/proc/{pid}/fd").st_uid))

        container.set_up(look)
    assert seen == [(100000, 0)]


def test_the_engine_keeps_its_own_pid_namespace_and_dumpability(bundle: Bundles):
    before = os.readlink("/proc/self/ns/pid_for_children")
    libc = ctypes.CDLL(None)
    with WaitingContainer(bundle()) as container:
        container.set_up()
    assert os.readlink("/proc/self/ns/pid_for_children") == before
    assert libc.prctl(3, 0, 0, 0, 0) == 1


# --no-pivot: what a mere chroot would leave within reach


def test_without_pivot_root_no_procfs_or_sysfs_of_the_host_stays(bundle: Bundles):
    with WaitingContainer(bundle(), no_pivot=True) as container:
        container.set_up()
        # The waiting process still has the old root, from where all mounts of the namespace can be seen.
        mounts = parse_mountinfo(Path(f"/proc/{container.pid}/mountinfo").read_text())
        assert [mount.point for mount in mounts if mount.type == "proc" and mount.root == "/"] == ["/proc"]
        assert [mount.point for mount in mounts if mount.type == "sysfs" and mount.root == "/"] == ["/sys"]
        assert container.shell("cat /proc/self/comm") == "cat\n"
