"""CVE-2021-43784: a length of 16 bits wrapped, and the rest of a long value was read as settings of its own.

The message that names the namespaces was the one: what stood behind the first 64 KiB could turn them off.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import pytest

from ctr_common.kernel import _kernel
from tests.security.hostile import FOREVER, plain, running
from tests.support.bundles import Bundles, Config
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

# around what 16 bits hold, with headers of 8 bytes and paddings to 4
SIZES = [65527, 65528, 65529, 65536, 65544, 131000]
SHOW = "echo $$ $(id -u) ${#LONG}; readlink /proc/self/ns/pid"


@pytest.mark.parametrize("size", SIZES)
def test_a_long_value_arrives_whole_and_changes_nothing_else(
    ctrun: Runtime, bundle: Bundles, container_id: str, size: int
):
    def mutate(config: Config) -> None:
        plain(config)
        config["process"]["env"].append("LONG=" + "x" * (size - 5))
        config["process"]["user"] = {"uid": 1000, "gid": 1000}

    result = ctrun("run", "-b", bundle(mutate, args=["sh", "-c", SHOW]), container_id)
    first, namespace = result.lines
    assert first == f"1 1000 {size - 5}"
    assert namespace != os.readlink("/proc/self/ns/pid")


@pytest.mark.parametrize("size", [65528, 70000])
def test_a_long_hook_changes_nothing_else(ctrun: Runtime, bundle: Bundles, container_id: str, size: int):
    """A hook is an attribute of attributes: cut off at 64 KiB, the ones behind would become those of the process."""

    def mutate(config: Config) -> None:
        plain(config)
        config["process"]["user"] = {"uid": 1000, "gid": 1000}
        environment = ["PATH=/bin", f"FILL={'x' * (size // 2)}", f"LONG={'x' * (size // 2)}"]
        script = "echo ${#FILL} ${#LONG} >/tmp/hook"
        config["hooks"] = {
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": environment}],
        }

    made = bundle(mutate, args=["sh", "-c", SHOW], writable=True)
    assert ctrun("run", "-b", made, container_id).lines[0] == "1 1000 0"
    assert (made / "rootfs/tmp/hook").read_text().split() == [str(size // 2)] * 2


def test_a_path_of_a_namespace_beyond_64_kilobytes_is_refused(ctrun: Runtime, bundle: Bundles, container_id: str):
    """The way of the original: the tail of the path would say CLONE_FLAGS 0."""
    tail = struct.pack("=IIQ", 16, _kernel.ATTR_CLONE_FLAGS, 0).decode("latin-1")

    def mutate(config: Config) -> None:
        plain(config)
        for entry in config["linux"]["namespaces"]:
            if entry["type"] == "network":
                entry["path"] = "/proc/self/ns/net" + "/." * 32768 + tail

    result = ctrun("run", "-b", bundle(mutate, args=["sh", "-c", SHOW]), container_id)
    assert result.code != 0, repr(result)
    assert result.out == ""


def test_many_long_values_make_a_message_of_any_size(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str]
):
    def mutate(config: Config) -> None:
        plain(config)
        config["process"]["env"] += [f"V{number}={'y' * 60000}" for number in range(20)]

    container = new_container_id()
    made = bundle(mutate, args=["sh", "-c", "echo ${#V0} ${#V19} $$"])
    assert ctrun("run", "-b", made, container).text == "60000 60000 1"
    made = bundle(plain, args=FOREVER)
    with running(ctrun, made, container):
        words = [f"--env=V{number}={'y' * 60000}" for number in range(20)]
        assert ctrun("exec", *words, container, "sh", "-c", "echo ${#V0} ${#V19}").text == "60000 60000"
