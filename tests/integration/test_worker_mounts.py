"""What the setup worker mounts, held against what runc mounts for the same bundle."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CtrError
from tests.support.bundles import Bundles
from tests.support.cgroups import Sandbox, in_v2_view
from tests.support.waiting_container import Mount, WaitingContainer, parse_mountinfo

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_busybox]

Config = dict[str, Any]
Mutator = Callable[[Config], None]


def hierarchies() -> dict[str, tuple[str, str]]:
    """The v1 hierarchies: name to mount point and our own cgroup in it."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0":
            own[controllers.removeprefix("name=")] = path
    points = {}
    for mount in parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        name = os.path.basename(mount.point)
        # CRIU mounts them once more for itself, elsewhere
        if mount.type == "cgroup" and name in own and mount.point.startswith("/sys/fs/cgroup/"):
            points[name] = (mount.point, own[name])
    return points


@pytest.fixture
def cgroups() -> Iterator[dict[str, str]]:
    """A cgroup in each v1 hierarchy, with the name that runc will use."""
    made = {}
    for name, (point, path) in hierarchies().items():
        directory = Path(f"{point}/{path}/ctrtest-worker-{os.getpid()}")
        directory.mkdir()
        made[name] = str(directory)
    yield made
    for path in made.values():
        os.rmdir(path)


def mounts_by_runc(bundle: Path) -> list[Mount]:
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"]["args"] = ["/bin/cat", "/proc/self/mountinfo"]
    path.write_text(json.dumps(config))
    done = subprocess.run(
        ["runc", "run", "--bundle", bundle, f"ctrtest-worker-{os.getpid()}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return parse_mountinfo(done.stdout)


def comparable(mounts: list[Mount]) -> list[tuple[object, ...]]:
    """All but the options of tmpfs instances: the worker gives masks a limit, and a mode from the directory below."""
    keys = []
    for mount in mounts:
        key = mount.key()
        keys.append(key[:-1] if mount.type == "tmpfs" else key)
    return sorted(keys, key=str)


def with_cgroup_namespace(config: Config) -> None:
    config["linux"]["namespaces"].append({"type": "cgroup"})


def with_user_namespace(config: Config) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]


def with_tmpfs(*options: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": list(options)})

    return mutate


def with_bind(source: str, *options: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["mounts"].append({"destination": "/opt/x", "type": "bind", "source": source, "options": list(options)})

    return mutate


def with_propagation(name: str) -> Mutator:
    def mutate(config: Config) -> None:
        config["linux"]["rootfsPropagation"] = name

    return mutate


def writable(config: Config) -> None:
    config["root"]["readonly"] = False


@pytest.mark.needs_runc
@pytest.mark.needs_cgroup_v1
@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(lambda config: None, id="default"),
        pytest.param(writable, id="writable root"),
        pytest.param(with_cgroup_namespace, id="cgroup namespace"),
        pytest.param(with_user_namespace, id="user namespace"),
        pytest.param(with_propagation("rprivate"), id="rprivate root"),
        pytest.param(with_propagation("rslave"), id="rslave root"),
        pytest.param(with_tmpfs("ro", "nodev", "size=64k"), id="read-only tmpfs"),
        pytest.param(with_tmpfs("noatime", "nosuid", "mode=1700"), id="noatime tmpfs"),
        pytest.param(with_tmpfs("nodiratime", "strictatime"), id="nodiratime tmpfs"),
        pytest.param(with_tmpfs("rshared"), id="shared tmpfs"),
        pytest.param(with_bind("/etc", "rbind"), id="bind as it is"),
        pytest.param(with_bind("/etc", "bind", "ro"), id="read-only bind"),
        pytest.param(with_bind("/etc/passwd", "bind", "ro"), id="file bind"),
        pytest.param(with_bind("/dev/shm", "rbind", "nosuid", "noexec", "rslave"), id="slave bind"),
        pytest.param(with_bind("/dev", "rbind", "rprivate"), id="recursive bind"),
        pytest.param(with_bind("/dev", "rbind", "rro", "rprivate"), id="rro"),
        pytest.param(with_bind("/dev", "rbind", "rnosuid", "rnoexec", "rnodev"), id="rnosuid rnoexec rnodev"),
        pytest.param(with_bind("/dev", "rbind", "rnoatime", "rnodiratime"), id="rnoatime"),
        pytest.param(with_bind("/etc", "bind", "noatime"), id="noatime bind"),
        pytest.param(with_bind("/etc", "bind", "nodiratime", "rw"), id="nodiratime bind"),
        pytest.param(with_bind("/proc", "rbind", "ro"), id="bound procfs"),
    ],
)
def test_the_mounts_are_those_that_runc_makes(bundle: Bundles, cgroups: dict[str, str], mutate: Mutator):
    directory = bundle(mutate, writable=False)
    with WaitingContainer(directory, cgroup_paths=cgroups) as container:
        ours = container.set_up().mountinfo()
    for path in cgroups.values():
        os.rmdir(path)
    try:
        theirs = mounts_by_runc(directory)
    finally:
        for path in cgroups.values():
            os.mkdir(path)
    assert comparable(ours) == comparable(theirs)


def one(mounts: list[Mount], point: str) -> Mount:
    found = [mount for mount in mounts if mount.point == point]
    assert len(found) == 1, [mount.line for mount in mounts]
    return found[0]


def test_a_file_is_made_for_a_file_and_a_directory_for_a_directory(bundle: Bundles, directory: Path):
    (directory / "file").write_text("from the host")

    def mutate(config: Config) -> None:
        config["mounts"] += [
            {"destination": "/new/dir", "type": "bind", "source": str(directory), "options": ["bind"]},
            {"destination": "/other/file", "type": "bind", "source": str(directory / "file"), "options": ["bind"]},
        ]

    with WaitingContainer(bundle(mutate)) as container:
        assert container.set_up().shell("cat /new/dir/file /other/file") == "from the hostfrom the host"


def test_a_dangling_symlink_as_a_destination_is_completed_inside_the_root(bundle: Bundles, directory: Path):
    (directory / "resolv").write_text("nameserver")

    def mutate(config: Config) -> None:
        config["mounts"].append(
            {
                "destination": "/etc/resolv.conf",
                "type": "bind",
                "source": str(directory / "resolv"),
                "options": ["bind"],
            }
        )

    made = bundle(mutate)
    (made / "rootfs/etc/resolv.conf").unlink(missing_ok=True)
    (made / "rootfs/etc/resolv.conf").symlink_to("../run/systemd/stub")
    with WaitingContainer(made) as container:
        assert container.set_up().shell("cat /run/systemd/stub") == "nameserver"


def test_a_relative_source_starts_at_the_bundle(bundle: Bundles):
    made = bundle(with_bind("data", "bind"))
    (made / "data").mkdir()
    (made / "data/here").touch()
    with WaitingContainer(made) as container:
        assert container.set_up().shell("ls /opt/x") == "here\n"


def test_a_missing_source_is_named_with_its_place(bundle: Bundles):
    with (
        WaitingContainer(bundle(with_bind("/does/not/exist", "bind"))) as container,
        pytest.raises(CtrError) as failure,
    ):
        container.set_up()
    assert failure.value.json_path == ".mounts[7]"
    assert 'error mounting "/does/not/exist" to rootfs at "/opt/x"' in str(failure.value)
    assert str(failure.value).endswith("no such file or directory")


def test_a_destination_that_cannot_be_made_is_named(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["mounts"].append({"destination": "/proc/no/such", "type": "tmpfs", "source": "tmpfs"})

    with WaitingContainer(bundle(mutate)) as container, pytest.raises(CtrError) as failure:
        container.set_up()
    assert str(failure.value).endswith('rootfs at "/proc/no/such": mkdir /proc/no: no such file or directory')
    assert failure.value.syscall == "mkdir"


def test_a_directory_is_not_mounted_on_a_file(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["mounts"].append({"destination": "/bin/busybox", "type": "bind", "source": "/etc", "options": ["bind"]})

    with (
        WaitingContainer(bundle(mutate)) as container,
        pytest.raises(CtrError, match="source is a directory and destination is not a directory"),
    ):
        container.set_up()


def test_a_filesystem_says_which_option_it_does_not_know(bundle: Bundles):
    with WaitingContainer(bundle(with_tmpfs("nonsense=1"))) as container, pytest.raises(CtrError) as failure:
        container.set_up()
    text = str(failure.value)
    assert "nonsense" in text
    assert "type=tmpfs" in text
    assert failure.value.json_path == ".mounts[7]"


def test_an_unknown_filesystem_is_named(bundle: Bundles):
    def mutate(config: Config) -> None:
        config["mounts"].append({"destination": "/tmp", "type": "nosuchfs", "source": "none"})

    with WaitingContainer(bundle(mutate)) as container, pytest.raises(CtrError, match="type=nosuchfs") as failure:
        container.set_up()
    assert str(failure.value).endswith("no such device")


def test_tmpcopyup_starts_with_the_contents_below(bundle: Bundles):
    made = bundle(with_tmpfs("tmpcopyup", "ro"))
    below = made / "rootfs/tmp"
    (below / "d/e").mkdir(parents=True)
    (below / "d").chmod(0o2750)
    (below / "d/e/file").write_text("x" * 70000)
    os.chown(below / "d/e/file", 12, 34)
    (below / "d/e/file").chmod(0o4711)
    (below / "link").symlink_to("/etc/passwd")
    os.mkfifo(below / "fifo", 0o600)
    with WaitingContainer(made) as container:
        out = container.set_up().shell(
            "cd /tmp; stat -c '%A %u %g %s' d/e/file; stat -c %a d; readlink link; stat -c %F fifo; touch /tmp/y 2>&1"
        )
    assert out.splitlines()[:4] == ["-rws--x--x 12 34 70000", "2750", "/etc/passwd", "fifo"]
    assert "Read-only file system" in out
    assert not (below / "y").exists()


def test_a_tmpfs_has_the_mode_of_the_directory_that_it_hides(bundle: Bundles):
    made = bundle(with_tmpfs("nodev"))
    (made / "rootfs/tmp").chmod(0o1750)
    with WaitingContainer(made) as container:
        assert container.set_up().shell("stat -c %a /tmp") == "1750\n"


def test_a_mode_option_decides_over_the_directory(bundle: Bundles):
    made = bundle(with_tmpfs("mode=711"))
    (made / "rootfs/tmp").chmod(0o1750)
    with WaitingContainer(made) as container:
        assert container.set_up().shell("stat -c %a /tmp") == "711\n"


def test_options_longer_than_fsconfig_takes_still_mount(bundle: Bundles, directory: Path):
    lower = []
    for index in range(12):
        path = directory / f"lower-{index}-{'x' * 20}"
        path.mkdir()
        (path / f"file{index}").touch()
        lower.append(str(path))
    assert len(":".join(lower)) > 255

    def mutate(config: Config) -> None:
        config["mounts"].append(
            {
                "destination": "/opt/merged",
                "type": "overlay",
                "source": "overlay",
                "options": ["nosuid", f"lowerdir={':'.join(lower)}"],
            }
        )

    with WaitingContainer(bundle(mutate)) as container:
        out = container.set_up().shell("ls /opt/merged | wc -l; grep /opt/merged /proc/self/mountinfo")
    assert out.splitlines()[0] == "12"
    assert "nosuid" in out


def test_a_mount_over_the_root_becomes_the_root(bundle: Bundles, directory: Path, busybox_rootfs: Path):
    def mutate(config: Config) -> None:
        config["mounts"].insert(
            0, {"destination": "/", "type": "bind", "source": str(busybox_rootfs), "options": ["rbind", "ro"]}
        )

    made = bundle(mutate)
    (made / "rootfs/marker").touch()
    with WaitingContainer(made) as container:
        out = container.set_up().shell("ls /marker; cat /proc/self/comm")
    assert "No such file" in out
    assert out.endswith("cat\n")


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_the_root_may_be_on_another_filesystem(bundle: Bundles, directory: Path, kind: str):
    made = bundle()
    lower = made / "rootfs"
    rootfs = directory / "merged"
    rootfs.mkdir()
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "ctrtest", rootfs], check=True, timeout=10)
        subprocess.run(["cp", "-a", f"{lower}/.", rootfs], check=True, timeout=10)
    else:
        # upper and work are on a tmpfs, since the test directory itself may be on an overlay
        layers = directory / "layers"
        layers.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "ctrtest", layers], check=True, timeout=10)
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        options = f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "ctrtest", rootfs], check=True, timeout=10)
    try:
        with WaitingContainer(made, rootfs=str(rootfs)) as container:
            mounts = container.set_up().mountinfo()
        assert one(mounts, "/").type == kind
    finally:
        subprocess.run(["umount", rootfs], check=True, timeout=10)
        if kind == "overlay":
            subprocess.run(["umount", directory / "layers"], check=True, timeout=10)


@pytest.mark.parametrize("name", ["shared", "rshared", "private", "slave", "unbindable"])
def test_the_root_has_the_propagation_that_is_asked_for(bundle: Bundles, name: str):
    with WaitingContainer(bundle(with_propagation(name))) as container:
        root = one(container.set_up().mountinfo(), "/")
    expected = {"shared": ["shared"], "rshared": ["shared"], "unbindable": ["unbindable"]}
    assert root.propagation == expected.get(name, [])


def test_a_mount_made_in_a_shared_root_does_not_reach_the_host(bundle: Bundles):
    made = bundle(with_propagation("rshared"))
    with WaitingContainer(made) as container:
        container.set_up()
        assert str(made) not in Path("/proc/self/mountinfo").read_text()


def test_idmapped_mounts_translate_owners(bundle: Bundles, directory: Path):
    (directory / "data").mkdir()
    (directory / "data/file").touch()
    os.chown(directory / "data/file", 1000, 1001)

    def mutate(config: Config) -> None:
        config["mounts"].append(
            {
                "destination": "/opt/x",
                "type": "bind",
                "source": str(directory / "data"),
                "options": ["bind", "idmap"],
                "uidMappings": [{"containerID": 1000, "hostID": 5000, "size": 10}],
                "gidMappings": [{"containerID": 1001, "hostID": 6000, "size": 10}],
            }
        )

    with WaitingContainer(bundle(mutate)) as container:
        assert container.set_up().shell("stat -c '%u %g' /opt/x/file") == "5000 6000\n"


def test_an_idmapped_mount_without_mappings_takes_those_of_the_container(bundle: Bundles, directory: Path):
    (directory / "data").mkdir()
    (directory / "data/file").touch()

    def mutate(config: Config) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        for name in ("uidMappings", "gidMappings"):
            config["linux"][name] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
        config["mounts"].append(
            {
                "destination": "/opt/x",
                "type": "bind",
                "source": str(directory / "data"),
                "options": ["rbind", "ridmap"],
            }
        )

    made = bundle(mutate)
    subprocess.run(["chown", "-R", "100000:100000", made / "rootfs"], check=True, timeout=30)
    with WaitingContainer(made) as container:
        assert container.set_up().shell("stat -c '%u %g' /opt/x/file") == "0 0\n"


def test_an_idmapped_mount_needs_mappings_from_somewhere(bundle: Bundles):
    with (
        WaitingContainer(bundle(with_bind("/etc", "bind", "idmap"))) as container,
        pytest.raises(CtrError, match="needs a container with a user namespace"),
    ):
        container.set_up()


def in_mapped_user_namespace(config: Config) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    for name in ("uidMappings", "gidMappings"):
        config["linux"][name] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]


def test_a_user_namespace_gets_sources_and_a_root_that_only_the_host_may_open(bundle: Bundles, directory: Path):
    (directory / "secret/data").mkdir(parents=True)
    (directory / "secret/data/file").write_text("seen")
    (directory / "secret").chmod(0o700)

    def mutate(config: Config) -> None:
        in_mapped_user_namespace(config)
        with_bind(str(directory / "secret/data"), "rbind")(config)

    made = bundle(mutate)
    subprocess.run(["chown", "-R", "100000:100000", made / "rootfs"], check=True, timeout=30)
    made.chmod(0o700)
    with WaitingContainer(made) as container:
        out = container.set_up().shell("cat /opt/x/file; stat -c ' %u' /dev/shm; id -u; echo > /dev/null && echo ok")
    assert out.split() == ["seen", "0", "0", "ok"]


def test_in_a_user_namespace_a_read_only_bind_keeps_the_flags_that_the_host_locked(bundle: Bundles, directory: Path):
    source = directory / "locked"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec", "ctrtest", source], check=True, timeout=10)
    try:

        def mutate(config: Config) -> None:
            in_mapped_user_namespace(config)
            with_bind(str(source), "bind", "ro")(config)

        made = bundle(mutate)
        subprocess.run(["chown", "-R", "100000:100000", made / "rootfs"], check=True, timeout=30)
        with WaitingContainer(made) as container:
            mount = one(container.set_up().mountinfo(), "/opt/x")
        assert {"ro", "nosuid", "nodev", "noexec"} <= mount.options
    finally:
        subprocess.run(["umount", source], check=True, timeout=10)


def test_on_a_unified_hierarchy_cgroup2_is_mounted(bundle: Bundles):
    with WaitingContainer(bundle(with_cgroup_namespace), cgroup_mode="unified") as container:
        found = one(container.set_up().mountinfo(), "/sys/fs/cgroup")
    assert found.type == "cgroup2"
    assert {"ro", "nosuid", "nodev", "noexec"} <= found.options


def test_in_the_hosts_cgroup_namespace_no_cgroup2_is_mounted_whose_options_would_be_the_hosts(bundle: Bundles):
    directory = bundle()

    def test(_: Sandbox) -> None:
        with WaitingContainer(directory, cgroup_mode="unified") as container:
            found = one(container.set_up().mountinfo(), "/sys/fs/cgroup")
        assert (found.type, found.source) == ("cgroup2", "none")
        assert {"ro", "nosuid", "nodev", "noexec"} <= found.options

    in_v2_view(test)


def test_where_cgroup2_may_not_be_mounted_the_containers_cgroup_is_bound(bundle: Bundles):
    points = [m.point for m in parse_mountinfo(Path("/proc/self/mountinfo").read_text()) if m.type == "cgroup2"]
    plan: dict[str, Any] = {"cgroup_mode": "unified", "own_cgroup_ns": True, "cgroup_paths": {"": points[-1]}}
    with WaitingContainer(bundle(with_user_namespace), **plan) as container:
        found = one(container.set_up().mountinfo(), "/sys/fs/cgroup")
    assert found.type == "cgroup2"
    assert "ro" in found.options


@pytest.mark.parametrize("mode", ["hybrid", "unified"])
def test_cgroups_are_not_mounted_over_proc(bundle: Bundles, mode: str):
    def mutate(config: Config) -> None:
        config["mounts"][-1]["destination"] = "/proc"

    with WaitingContainer(bundle(mutate), cgroup_mode=mode) as container, pytest.raises(CtrError, match="of type proc"):
        container.set_up()


def test_sysfs_is_bound_where_it_may_not_be_mounted(bundle: Bundles):
    def mutate(config: Config) -> None:
        in_mapped_user_namespace(config)
        namespaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [entry for entry in namespaces if entry["type"] != "network"]

    made = bundle(mutate)
    subprocess.run(["chown", "-R", "100000:100000", made / "rootfs"], check=True, timeout=30)
    with WaitingContainer(made) as container:
        mounts = container.set_up().mountinfo()
    found = one(mounts, "/sys")
    assert found.type == "sysfs"
    assert "ro" in found.options
