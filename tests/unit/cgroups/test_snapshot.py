"""Limits put back: files in a directory that passes for a cgroup."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files
from ctr_supervisor.cgroups.snapshot import Snapshot

Cgroup = dict[str, str]


@pytest.fixture
def cgroup(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose files are cgroup files: a write replaces the contents."""
    monkeypatch.setattr(files, "verify", lambda fd, path: None)
    return directory


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is written from now on, file and value."""
    made: list[tuple[str, str]] = []
    plain = files.Directory.write_each

    def write_each(self: files.Directory, name: str, values: Iterable[int | str], json_path: str = "") -> None:
        kept = [str(value) for value in values]
        made.extend((name, value) for value in kept)
        plain(self, name, kept, json_path)

    monkeypatch.setattr(files.Directory, "write_each", write_each)
    return made


def put(cgroup: Path, **contents: str) -> None:
    for name, text in contents.items():
        (cgroup / name.replace("__", ".")).write_text(text)


def test_what_changed_is_written_and_nothing_else(cgroup: Path, writes: list[tuple[str, str]]):
    put(cgroup, cpu__max="max 100000\n", pids__max="max\n", memory__max="max\n")
    before = Snapshot({"": str(cgroup)}, {})
    put(cgroup, cpu__max="5000 50000\n", memory__max="4096\n")
    before.restore()
    assert writes == [("memory.max", "max"), ("cpu.max", "max 100000")]


def test_an_empty_value_is_written_so_that_the_kernel_sees_it(cgroup: Path, writes: list[tuple[str, str]]):
    put(cgroup, cpuset__cpus="\n")
    before = Snapshot({"": str(cgroup)}, {})
    put(cgroup, cpuset__cpus="0\n")
    before.restore()
    assert writes == [("cpuset.cpus", "\n")]


def test_lines_of_devices_are_put_back_and_new_ones_taken_away(cgroup: Path, writes: list[tuple[str, str]]):
    put(cgroup, io__max="8:0 rbps=1 wbps=max riops=max wiops=max\n8:1 rbps=2\n")
    before = Snapshot({"": str(cgroup)}, {})
    put(cgroup, io__max="8:0 rbps=9 wbps=max riops=max wiops=max\n8:1 rbps=2\n8:2 rbps=3\n")
    before.restore()
    assert writes == [
        ("io.max", "8:2 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max"),
    ]


def test_what_the_kernel_refuses_at_first_is_tried_again_after_the_rest(cgroup: Path, monkeypatch: pytest.MonkeyPatch):
    put(cgroup, memory__limit_in_bytes="200\n", memory__memsw__limit_in_bytes="300\n")
    before = Snapshot({"memory": str(cgroup)}, {})
    put(cgroup, memory__limit_in_bytes="50\n", memory__memsw__limit_in_bytes="60\n")
    plain = files.Directory.write

    def write(self: files.Directory, name: str, value: int | str, json_path: str = "") -> None:
        both = int((cgroup / "memory.memsw.limit_in_bytes").read_text())
        if name == "memory.limit_in_bytes" and int(value) > both:
            raise CgroupError("write", errno=errno.EINVAL)
        plain(self, name, value, json_path)

    monkeypatch.setattr(files.Directory, "write", write)
    before.restore()
    assert (cgroup / "memory.limit_in_bytes").read_text().split()[0] == "200"
    assert (cgroup / "memory.memsw.limit_in_bytes").read_text().split()[0] == "300"


def test_what_can_not_be_put_back_is_an_error_and_the_rest_is(cgroup: Path, monkeypatch: pytest.MonkeyPatch):
    put(cgroup, memory__max="1\n", pids__max="2\n")
    before = Snapshot({"": str(cgroup)}, {})
    put(cgroup, memory__max="9\n", pids__max="9\n")
    plain = files.Directory.write

    def write(self: files.Directory, name: str, value: int | str, json_path: str = "") -> None:
        if name == "memory.max":
            raise CgroupError("no", errno=errno.EBUSY)
        plain(self, name, value, json_path)

    monkeypatch.setattr(files.Directory, "write", write)
    with pytest.raises(CgroupError, match="no"):
        before.restore()
    assert (cgroup / "pids.max").read_text().strip() == "2"


@pytest.mark.parametrize(
    ("update", "name"),
    [
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}, "hugetlb.2MB.rsvd.max"),
        ({"unified": {"memory.high": "1"}}, "memory.high"),
    ],
)
def test_files_that_only_the_update_names_are_kept_too(
    cgroup: Path, writes: list[tuple[str, str]], update: Any, name: str
):
    (cgroup / name).write_text("max\n")
    before = Snapshot({"": str(cgroup)}, update)
    (cgroup / name).write_text("1\n")
    before.restore()
    assert writes == [(name, "max")]


def test_the_switch_of_the_oom_killer_is_written_as_a_number(cgroup: Path, writes: list[tuple[str, str]]):
    put(cgroup, memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    before = Snapshot({"memory": str(cgroup)}, {})
    put(cgroup, memory__oom_control="oom_kill_disable 1\nunder_oom 0\noom_kill 3\n")
    before.restore()
    assert writes == [("memory.oom_control", "0")]


def test_a_cgroup_that_is_gone_has_nothing_to_put_back():
    Snapshot({"": "/no/such/cgroup"}, {}).restore()
