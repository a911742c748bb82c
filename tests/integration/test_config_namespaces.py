"""Namespaces, id maps, time offsets, names, root and paths of config.json, looked at from inside and from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Config, copy_rootfs
from tests.support.command import run
from tests.support.inside import Inside, as_root_of_the_host, changed, held_namespaces, mount, namespaces, with_mounts
from tests.support.waiting_container import parse_mountinfo

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

covers = pytest.mark.covers

DEFAULT = ("pid", "network", "ipc", "uts", "mount")
# as the specification and as /proc call them, and the flag of unshare(1)
KINDS = [
    ("mount", "mnt", "--mount"),
    ("pid", "pid", "--pid"),
    ("network", "net", "--net"),
    ("uts", "uts", "--uts"),
    ("ipc", "ipc", "--ipc"),
    ("user", "user", "--user"),
    ("cgroup", "cgroup", "--cgroup"),
    ("time", "time", "--time"),
]
WHOLE_MAP = [{"containerID": 0, "hostID": 0, "size": 65536}]


def with_namespace(kind: str, path: str | None = None) -> list[Any]:
    """Changes that give the container a namespace of a kind, new or by its path, beside the usual ones."""
    entry = {"type": kind} if path is None else {"type": kind, "path": path}
    others = [other for other in DEFAULT if other != kind]
    linux: dict[str, Any] = {"namespaces": namespaces(*others, entry)}
    if kind == "user" and path is None:
        linux.update(uidMappings=WHOLE_MAP, gidMappings=WHOLE_MAP)
    return [{"linux": linux}]


def without_namespace(kind: str) -> list[Any]:
    """Changes that leave a container without a namespace of a kind."""
    linux: dict[str, Any] = {"namespaces": namespaces(*(other for other in DEFAULT if other != kind))}
    if kind == "mount":
        linux.update(maskedPaths=None, readonlyPaths=None)
    return [{"linux": linux}, {"hostname": None} if kind == "uts" else None]


ROW = "namespace {kind}"
TYPE = ".linux.namespaces[].type"


@covers(f"{ROW} new", TYPE, TYPE + "={kind}")
@pytest.mark.parametrize(("kind", "name", "flag"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_a_new_namespace_is_neither_the_caller_s_nor_anybody_else_s(inside: Inside, kind: str, name: str, flag: str):
    with inside.running(change=with_namespace(kind)) as first, inside.running(change=with_namespace(kind)) as second:
        found = {first.namespace(name), second.namespace(name), os.readlink(f"/proc/self/ns/{name}")}
    assert len(found) == 3


@covers(f"{ROW} absent", TYPE)
@pytest.mark.parametrize(("kind", "name", "flag"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_without_a_namespace_of_a_kind_the_container_has_the_caller_s(inside: Inside, kind: str, name: str, flag: str):
    with inside.running(change=without_namespace(kind)) as container:
        assert container.namespace(name) == os.readlink(f"/proc/self/ns/{name}")


@contextmanager
def held(kind: str, flag: str) -> Iterator[int]:
    """Pid of a process in a new namespace of a kind, a user namespace with all ids mapped."""
    with held_namespaces(flag) as pid:
        if kind == "user":
            for file in ("uid_map", "gid_map"):
                Path(f"/proc/{pid}/{file}").write_text("0 0 65536\n")
        yield pid


@covers(f"{ROW} joined", ".linux.namespaces[].path")
@pytest.mark.parametrize(("kind", "name", "flag"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_a_namespace_is_joined_by_its_path_and_by_exec_too(inside: Inside, kind: str, name: str, flag: str):
    with held(kind, flag) as pid:
        path = f"/proc/{pid}/ns/{name}"
        with inside.running(change=with_namespace(kind, path)) as container:
            assert container.namespace(name) == os.readlink(path)
            assert container.exec("readlink", f"/proc/self/ns/{name}").text == os.readlink(path)


@covers(".linux.namespaces[].path")
def test_a_path_of_another_type_is_refused(inside: Inside):
    assert "is a uts namespace, expected a ipc namespace" in inside.refused(with_namespace("ipc", "/proc/self/ns/uts"))


@covers("namespace pid new")
def test_the_process_is_the_first_of_its_pid_namespace(inside: Inside):
    # and the shell that looks is the only one
    assert inside.shell("echo $$; echo /proc/[0-9]*", runc=True) == "1\n/proc/1"


@covers("namespace network new")
def test_a_new_network_namespace_has_loopback_alone_and_up(inside: Inside):
    script = "ls /sys/class/net; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo up"
    names = ["CAP_NET_RAW"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names)
    assert inside.shell(script, {"process": {"capabilities": sets}}).split() == ["lo", "up"]


@covers("namespace cgroup new")
def test_a_cgroup_namespace_begins_at_the_container_s_cgroup(inside: Inside):
    lines = inside("cat", "/proc/self/cgroup", change=with_namespace("cgroup"), runc=True).splitlines()
    assert {line.split(":", 2)[2] for line in lines} == {"/"}


# -- ids

UID_MAP = [
    {"containerID": 0, "hostID": 100000, "size": 10},
    {"containerID": 1000, "hostID": 200000, "size": 5},
    {"containerID": 3000, "hostID": 150000, "size": 1},
]
GID_MAP = [{"containerID": 0, "hostID": 300000, "size": 20}, {"containerID": 2000, "hostID": 400000, "size": 7}]
MAPPINGS = [
    f".linux.{name}[].{key}" for name in ("uidMappings", "gidMappings") for key in ("containerID", "hostID", "size")
]


def with_user_namespace(config: Config) -> None:
    config["linux"].update(
        namespaces=namespaces(*DEFAULT, "user"), uidMappings=list(UID_MAP), gidMappings=list(GID_MAP)
    )


@covers(*MAPPINGS)
def test_a_user_namespace_has_the_mappings_asked_for(inside: Inside):
    change = [with_user_namespace, {"process": {"user": {"uid": 1003, "gid": 2006, "additionalGids": [4]}}}]
    with inside.running(change=change) as container:
        for file, mappings in (("uid_map", UID_MAP), ("gid_map", GID_MAP)):
            lines = container.exec("cat", f"/proc/self/{file}").lines
            assert [[int(word) for word in line.split()] for line in lines] == [list(m.values()) for m in mappings]
        status = container.status()
    assert status["Uid"].split() == ["200003"] * 4
    assert status["Gid"].split() == ["400006"] * 4
    assert status["Groups"].split() == ["300004"]


@covers(*MAPPINGS)
def test_root_of_a_user_namespace_owns_the_container_s_things_and_none_of_the_host_s(inside: Inside):
    script = "stat -c %u:%g /dev/pts /proc /bin; touch /root/x 2>&1; touch /dev/shm/x && echo may"
    seen = inside.shell(script, with_user_namespace).splitlines()
    assert (seen[0], seen[2]) == ("0:0", "65534:65534")
    assert "Read-only" in seen[3] or "Permission denied" in seen[3]
    assert seen[4] == "may"


@covers(".process.user.uid")
def test_an_id_that_is_not_mapped_is_refused_with_its_place(inside: Inside):
    error = inside.refused([with_user_namespace, {"process": {"user": {"uid": 20, "gid": 0}}}])
    assert ".process.user.uid" in error


# -- time

OFFSETS = [f".linux.timeOffsets.{clock}.{unit}" for clock in ("boottime", "monotonic") for unit in ("secs", "nanosecs")]


@covers(*OFFSETS)
def test_clocks_run_with_their_offsets(inside: Inside):
    offsets = {"boottime": {"secs": 7000, "nanosecs": 250000000}, "monotonic": {"secs": 5000, "nanosecs": 750000000}}
    change = [*with_namespace("time"), {"linux": {"timeOffsets": offsets}}]
    with inside.running(change=change) as container:
        lines = Path(f"/proc/{container.pid}/timens_offsets").read_text().splitlines()
        probe = container.bundle / "rootfs/bin/probe"
        before = clocks(run(probe, "clocks").text)
        seen = clocks(container.exec("probe", "clocks").text)
        after = clocks(run(probe, "clocks").text)
    assert {line.split()[0]: line.split()[1:] for line in lines} == {
        "boottime": ["7000", "250000000"],
        "monotonic": ["5000", "750000000"],
    }
    for clock, offset in (("boottime", 7000_250000000), ("monotonic", 5000_750000000)):
        assert before[clock] + offset <= seen[clock] <= after[clock] + offset


def clocks(text: str) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[1]) for line in text.splitlines()}


@covers(".linux.timeOffsets.boottime.secs")
def test_offsets_without_a_time_namespace_are_refused(inside: Inside):
    assert ".linux.timeOffsets" in inside.refused({"linux": {"timeOffsets": {"boottime": {"secs": 5}}}})


# -- names


@covers(".hostname")
def test_the_host_name_is_set_and_the_host_s_stays(inside: Inside):
    before = os.uname().nodename
    assert inside("hostname", change={"hostname": "of-the-container"}, runc=True) == "of-the-container"
    assert os.uname().nodename == before


@covers(".hostname")
def test_without_a_host_name_the_host_s_is_there(inside: Inside):
    assert inside("hostname", change={"hostname": None}, runc=True) == os.uname().nodename


@covers(".domainname")
def test_the_domain_name_is_set(inside: Inside):
    assert inside("cat", "/proc/sys/kernel/domainname", change={"domainname": "example.org"}) == "example.org"


@covers(".linux.sysctl")
def test_sysctls_are_set_in_the_container_alone(inside: Inside):
    keys = {"net.ipv4.ip_default_ttl": "77", "kernel.msgmax": "4321", "fs.mqueue.msg_max": "21"}
    files = ["/proc/sys/" + name.replace(".", "/") for name in keys]
    before = [Path(file).read_text() for file in files]
    assert inside("cat", *files, change={"linux": {"sysctl": keys}}, runc=True).split() == list(keys.values())
    assert [Path(file).read_text() for file in files] == before


@covers(".linux.sysctl")
@pytest.mark.parametrize(
    ("name", "kind"), [("net.ipv4.ip_default_ttl", "network"), ("kernel.msgmax", "ipc"), ("kernel.domainname", "uts")]
)
def test_a_sysctl_of_the_host_is_refused(inside: Inside, name: str, kind: str):
    change = [*without_namespace(kind), {"linux": {"sysctl": {name: "1"}}}]
    assert f'.linux.sysctl["{name}"]' in inside.refused(change).replace("\\", "")


# -- the root file system


@covers(".root.path")
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_the_root_is_at_its_path(inside: Inside, directory: Path, probing_rootfs: Path, form: str):
    other = directory / "other"
    copy_rootfs(probing_rootfs, other)
    (other / "etc/which").write_text("the other one\n")
    path = str(other) if form == "absolute" else "../other"
    assert inside("cat", "/etc/which", change={"root": {"path": path}}, runc=True) == "the other one"


@covers(".root.readonly")
@pytest.mark.parametrize(("value", "seen"), [(True, "ro"), (False, "rw"), (None, "rw")])
def test_the_root_is_read_only_or_not(inside: Inside, value: bool | None, seen: str):
    change = {"root": {"readonly": value}}
    assert seen in inside.mount_at("/", change, runc=True).options
    written = inside.shell("touch /tmp/x 2>/dev/null && echo rw || echo ro", change, runc=True)
    assert written == seen


def own_propagation(value: str | None) -> list[Any]:
    return [as_root_of_the_host, {"linux": {"rootfsPropagation": value}}]


@covers(".linux.rootfsPropagation", ".linux.rootfsPropagation={value}")
@pytest.mark.parametrize(
    ("value", "seen"), [("private", []), ("shared", ["shared"]), ("slave", []), ("unbindable", ["unbindable"])]
)
def test_the_root_mount_has_its_propagation(inside: Inside, value: str, seen: list[str]):
    assert [word for word in inside.mount_at("/", own_propagation(value)).propagation if word != "master"] == seen


@covers(".linux.rootfsPropagation")
@pytest.mark.parametrize(
    ("value", "arrives", "leaves"),
    [("private", False, False), ("slave", True, False), ("shared", True, True), (None, True, False)],
)
def test_mounts_travel_between_host_and_container_as_the_root_lets_them(
    inside: Inside, directory: Path, value: str | None, arrives: bool, leaves: bool
):
    source = directory / "source"
    source.mkdir()
    run("mount", "-t", "tmpfs", "ctrtest", source).ok()
    run("mount", "--make-shared", source).ok()
    for name in ("in", "out"):
        (source / name).mkdir()
    # a private or slave root makes the container's copy of all mounts so, and a bind mount is what its source is
    recursive = f"r{value}" if value in ("private", "slave") else value
    change = [*own_propagation(recursive), with_mounts(mount("/x", "none", source, "rbind"))]
    try:
        with inside.running(change=change) as container:
            run("mount", "-t", "tmpfs", "ctrtest", source / "in").ok()
            container.exec("mount", "-t", "tmpfs", "ctrtest", "/x/out").ok()
            seen = [entry.point for entry in parse_mountinfo(container.exec("cat", "/proc/self/mountinfo").text)]
            points = [entry.point for entry in parse_mountinfo(Path("/proc/self/mountinfo").read_text())]
        assert ("/x/in" in seen, str(source / "out") in points) == (arrives, leaves)
    finally:
        run("umount", "--recursive", source)


@covers(".linux.rootfsPropagation")
def test_a_propagation_that_there_is_not_is_refused(inside: Inside):
    assert ".linux.rootfsPropagation" in inside.refused(own_propagation("sideways"))


@covers(".linux.maskedPaths")
def test_masked_paths_show_nothing(inside: Inside):
    change = {"linux": {"maskedPaths": ["/proc/version", "/etc", "/no/such"]}}
    script = "wc -c </proc/version; ls -A /etc; touch /etc/x 2>&1; stat -c %F /proc/version"
    seen = inside.shell(script, [change, {"root": {"readonly": False}}], runc=True).splitlines()
    assert seen == ["0", "touch: /etc/x: Read-only file system", "character special file"]


@covers(".linux.maskedPaths")
def test_without_masked_paths_everything_shows(inside: Inside):
    assert inside("cat", "/proc/version", change={"linux": {"maskedPaths": None}}).startswith("Linux")


@covers(".linux.readonlyPaths")
@pytest.mark.parametrize(("paths", "seen"), [(["/tmp", "/no/such"], "read-only"), (None, "writable")])
def test_read_only_paths_can_not_be_written_to(inside: Inside, paths: list[str] | None, seen: str):
    change = [{"linux": {"readonlyPaths": paths}}, {"root": {"readonly": False}}]
    assert inside.shell("touch /tmp/x 2>/dev/null && echo writable || echo read-only", change, runc=True) == seen


# -- the rest


@covers(".ociVersion")
@pytest.mark.parametrize("version", ["2.0.0", "0.9.0", "one"])
def test_a_configuration_of_another_version_is_refused(inside: Inside, version: str):
    assert ".ociVersion" in inside.refused({"ociVersion": version})


@covers(".annotations")
def test_annotations_are_part_of_the_state(inside: Inside):
    annotations = {"org.example.one": "1", "org.example.two": "zwei"}
    with inside.created(change={"annotations": annotations}) as container:
        assert container.ctrun.state(container.name)["annotations"] == annotations
        listed = json.loads(container.ctrun("list", "-f", "json").text)
    assert next(entry for entry in listed if entry["id"] == container.name)["annotations"] == annotations


def test_the_changes_of_a_test_are_merged_in_their_order():
    config: Config = {"a": {"b": 1, "c": [1]}, "d": 2}
    changed({"a": {"b": 3}}, None, lambda config: config.update(e=5), {"d": None})(config)
    assert config == {"a": {"b": 3, "c": [1]}, "e": 5}
