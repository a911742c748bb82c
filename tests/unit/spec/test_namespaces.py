"""ctr_common/spec/namespaces.py."""

from __future__ import annotations

import os

from ctr_common.spec import namespaces
from ctr_common.spec.types import Config

CONFIG: Config = {
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/netns/a"}, {"type": "mount", "path": ""}]
    }
}


def test_a_path_makes_a_namespace_a_joined_one() -> None:
    assert namespaces.path_of(CONFIG, "network") == "/run/netns/a"
    assert not namespaces.is_new(CONFIG, "network")
    assert namespaces.is_new(CONFIG, "pid")


def test_a_namespace_that_is_not_listed_is_the_hosts() -> None:
    assert not namespaces.has(CONFIG, "uts")
    assert namespaces.path_of(CONFIG, "uts") == ""
    assert not namespaces.is_new(CONFIG, "uts")


def test_only_new_namespaces_are_cloned() -> None:
    assert namespaces.clone_flags(CONFIG) == 0x20000000 | 0x20000


def test_no_linux_section_means_no_namespaces() -> None:
    assert namespaces.clone_flags({}) == 0


def test_the_names_are_those_of_proc() -> None:
    names = {name for _, name in namespaces.NAMESPACES.values()}
    assert names >= {name for name in os.listdir("/proc/self/ns") if "_for_" not in name}
    assert namespaces.paths_of_process(os.getpid())["mount"] == f"/proc/{os.getpid()}/ns/mnt"


def test_the_user_namespace_comes_first_and_the_mount_namespace_last() -> None:
    order = list(namespaces.NAMESPACES)
    assert (order[0], order[-1]) == ("user", "mount")
