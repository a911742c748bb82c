from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import hierarchies, manager

HYBRID = b"""22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mounts_of_a_hybrid_host_are_found():
    found = hierarchies.parse_mountinfo(HYBRID)
    assert found.mode == "hybrid"
    assert found.mounts == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
        "": "/sys/fs/cgroup/unified",
    }


def test_host_without_a_cgroup2_mount_is_legacy():
    found = hierarchies.parse_mountinfo(b"\n".join(HYBRID.splitlines()[:4]))
    assert found.mode == "legacy"
    assert "" not in found.mounts


def test_a_cgroup2_mount_that_another_one_hides_is_none(monkeypatch, tmp_path):
    """As in a container whose /sys is all of the host's, with its own cgroups mounted over it."""
    hidden = tmp_path / "unified"
    monkeypatch.setattr(hierarchies, "CGROUP_ROOT", str(tmp_path))
    monkeypatch.setattr(hierarchies, "HYBRID_ROOT", str(hidden))
    monkeypatch.setattr(hierarchies, "_read", lambda _: HYBRID.replace(b"/sys/fs/cgroup/unified", bytes(hidden)))
    hierarchies.forget()
    try:
        found = hierarchies.hierarchies()
    finally:
        hierarchies.forget()
    assert found.mode == "legacy"
    assert "" not in found.mounts
    assert "" not in found.roots


def test_mount_below_sys_fs_cgroup_wins_over_a_bind_mount():
    other = b"90 27 0:32 /docker/x /var/lib/x/memory ro - cgroup cgroup rw,memory\n"
    for text in (HYBRID + other, other + HYBRID):
        found = hierarchies.parse_mountinfo(text)
        assert (found.mounts["memory"], found.roots["memory"]) == ("/sys/fs/cgroup/memory", "/")


def test_spaces_in_mount_points_are_decoded():
    found = hierarchies.parse_mountinfo(b"32 31 0:29 / /my\\040cgroups/cpu rw - cgroup cgroup rw,cpu\n")
    assert found.mounts == {"cpu": "/my cgroups/cpu"}


def test_proc_cgroup_is_split_by_controller():
    found = hierarchies.parse_cgroup_file(b"4:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d e\n")
    assert found == {"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b:c", "": "/d e"}


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("/a/b", "/a/b"),
        ("a/b", "a/b"),
        ("../../x", "x"),
        ("/../../x/../z", "/z"),
        ("//a//b/", "/a/b"),
        ("a/../../b", "b"),
        ("/", "/"),
        ("..", ""),
        ("system.slice:docker:x", "system.slice:docker:x"),
    ],
)
def test_path_can_not_leave_its_hierarchy(path, cleaned):
    assert hierarchies.clean(path) == cleaned


def test_path_with_a_nul_byte_is_an_error_with_its_place():
    with pytest.raises(CgroupError) as caught:
        hierarchies.clean("a\0b")
    assert caught.value.json_path == ".linux.cgroupsPath"


@pytest.mark.parametrize(
    ("cgroup", "root", "below"),
    [
        ("/a/b", "/", "/a/b"),
        ("/a/b", "/a", "/b"),
        ("/a", "/a", "/"),
        ("/ab", "/a", "/ab"),
    ],
)
def test_own_cgroup_is_told_relative_to_the_mount(cgroup, root, below):
    assert hierarchies.below_mount(cgroup, root) == below


def test_relative_path_is_below_the_own_cgroup_of_each_v1_hierarchy(monkeypatch):
    found = hierarchies.parse_mountinfo(HYBRID)
    monkeypatch.setattr(manager, "parse_proc_cgroup", lambda: {"memory": "/mine", "cpu": "/", "": "/other"})
    paths = manager.v1_paths("x/y", found)
    assert paths["memory"] == "/sys/fs/cgroup/memory/mine/x/y"
    assert paths["cpu"] == "/sys/fs/cgroup/cpu,cpuacct/x/y"
    assert paths[""] == "/sys/fs/cgroup/unified/x/y"


def test_absolute_path_starts_at_the_top_of_each_v1_hierarchy():
    paths = manager.v1_paths("/x", hierarchies.parse_mountinfo(HYBRID))
    assert paths["memory"] == "/sys/fs/cgroup/memory/x"
    assert list(paths) == ["memory", "cpu", "cpuacct", "name=systemd", ""]


@pytest.mark.parametrize(
    ("asked", "path"),
    [(None, "/sys/fs/cgroup/a/id1"), ("r/s", "/sys/fs/cgroup/a/r/s"), ("/r", "/sys/fs/cgroup/r")],
)
def test_relative_path_is_beside_the_own_cgroup_on_v2(monkeypatch, asked, path):
    unified = hierarchies.Hierarchies("unified", {"": "/sys/fs/cgroup"}, {"": "/"})
    monkeypatch.setattr(manager, "hierarchies", lambda: unified)
    monkeypatch.setattr(manager, "parse_proc_cgroup", lambda: {"": "/a/b"})
    config = {"linux": {"cgroupsPath": asked} if asked else {}}
    assert manager.for_container(config, "id1", rootless_cgroups=False).paths == {"": path}


def test_recorded_path_must_be_absolute():
    with pytest.raises(CgroupError, match="expected an absolute one"):
        manager.from_paths({"cpu": "x"}, rootless_cgroups=False)
