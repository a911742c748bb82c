"""What the container process is told to set."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ctr_common.errors import ConfigError
from ctr_common.kernel import _kernel
from ctr_supervisor.engine import settings


def variables(env: list[str], home: str | None) -> list[str]:
    """The environment that the process gets."""
    process: Any = {"args": ["x"], "cwd": "/", "env": env}
    attributes = [*settings.process_attributes(process, {}), *settings.home_attributes(process, home)]
    return [value.rstrip(b"\0").decode() for number, value in attributes if number == _kernel.ATTR_ENV]


def test_home_is_added_only_where_it_is_missing() -> None:
    assert variables(["A=1"], "/home/u") == ["A=1", "HOME=/home/u"]
    assert variables(["HOME=/x"], "/home/u") == ["HOME=/x"]
    assert variables(["HOME=", "A=1"], "/home/u") == ["A=1", "HOME=/home/u"]
    assert variables([], None) == ["HOME=/"]


def test_the_last_definition_of_a_variable_wins() -> None:
    assert variables(["A=1", "B=2", "A=3", "HOME=/"], None) == ["B=2", "A=3", "HOME=/"]


@pytest.mark.parametrize(
    ("text", "align", "mask"),
    [("0", 1, b"\1"), ("0-3,7", 1, b"\x8f"), ("8", 1, b"\0\1"), ("1", 8, b"\2" + bytes(7)), ("", 8, bytes(8))],
)
def test_lists_become_masks(text: str, align: int, mask: bytes) -> None:
    assert settings.bit_mask(text, ".x", align) == mask


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "0-4294967295", "1-2-3"])
def test_a_list_that_is_none_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.bit_mask(text, ".process.execCPUAffinity.final", 1)
    assert caught.value.json_path == ".process.execCPUAffinity.final"


def payloads(process: Any, config: Any = None) -> dict[int, bytes]:
    return dict(settings.process_attributes({"args": ["x"], "cwd": "/", **process}, config or {}))


def test_a_process_without_capabilities_gets_none() -> None:
    found = payloads({})
    assert found[_kernel.ATTR_CAP_BOUNDING] == bytes(8)
    assert found[_kernel.ATTR_CAP_EFFECTIVE] == bytes(8)


def test_limits_keep_their_number_and_order_of_values() -> None:
    found = payloads({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]})
    assert struct.unpack("=IIQQ", found[_kernel.ATTR_RLIMIT]) == (7, 0, 10, 20)


def test_io_priority_is_class_and_level() -> None:
    found = payloads({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5}})
    assert struct.unpack("=I", found[_kernel.ATTR_IO_PRIORITY]) == (2 << 13 | 5,)


def test_unset_things_are_left_alone() -> None:
    found = payloads({})
    for attribute in (_kernel.ATTR_SCHEDULER, _kernel.ATTR_NO_NEW_PRIVS, _kernel.ATTR_PERSONALITY):
        assert attribute not in found
