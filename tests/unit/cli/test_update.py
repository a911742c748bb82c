"""From the command line of `update` to resources."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import ConfigError, UsageError
from ctr_supervisor.cli import parser, update


def changes(*arguments: str) -> dict[str, Any]:
    """The resources that the flags ask for, less what is empty."""
    given = parser.parse([*arguments, "id"], update.VERB.flags)
    return {name: kept for name, values in update.from_flags(given).items() if (kept := _set(values))}


def _set(values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--memory", "64m"], {"memory": {"limit": 64 << 20}}),
        (["--memory=-1"], {"memory": {"limit": -1}}),
        (["--memory-swap", "1g"], {"memory": {"swap": 1 << 30}}),
        (["--memory-swap", "-1"], {"memory": {"swap": -1}}),
        (["--memory-reservation", "10kb"], {"memory": {"reservation": 10240}}),
        (["--kernel-memory", "1m", "--kernel-memory-tcp", "2m"], {"memory": {"kernel": 1 << 20, "kernelTCP": 2 << 20}}),
        (["--cpu-period", "50000", "--cpu-quota", "-1"], {"cpu": {"period": 50000, "quota": -1}}),
        (["--cpu-share", "18446744073709551615"], {"cpu": {"shares": 2**64 - 1}}),
        (["--cpu-burst", "5"], {"cpu": {"burst": 5}}),
        (["--cpu-idle", "1"], {"cpu": {"idle": 1}}),
        (["--cpu-rt-period", "7", "--cpu-rt-runtime", "-1"], {"cpu": {"realtimePeriod": 7, "realtimeRuntime": -1}}),
        (["--cpuset-cpus", "0-1", "--cpuset-mems", "0"], {"cpu": {"cpus": "0-1", "mems": "0"}}),
        (["--pids-limit", "-1"], {"pids": {"limit": -1}}),
        (["--blkio-weight", "0x10"], {"blockIO": {"weight": 16}}),
        (["--memory", "", "--cpu-quota", ""], {}),
        ([], {}),
    ],
    ids=str,
)
def test_flags_become_resources(arguments: list[str], expected: dict[str, Any]):
    assert changes(*arguments) == expected


def test_a_zero_that_is_a_value_is_handed_on():
    given = parser.parse(["--cpu-idle", "0", "--cpu-burst", "0", "id"], update.VERB.flags)
    assert update.from_flags(given)["cpu"] == {"cpus": "", "mems": "", "burst": 0, "idle": 0}


@pytest.mark.parametrize(
    ("flag", "text", "message"),
    [
        ("memory", "10x", "invalid value for memory: invalid size: '10x'"),
        ("memory-swap", "-2", "invalid value for memory-swap: invalid size: '-2'"),
        ("cpu-quota", "abc", 'invalid value for cpu-quota: strconv.ParseInt: parsing "abc": invalid syntax'),
        ("cpu-period", "-5", 'invalid value for cpu-period: strconv.ParseUint: parsing "-5": invalid syntax'),
        (
            "cpu-share",
            "18446744073709551616",
            'invalid value for cpu-share: strconv.ParseUint: parsing "18446744073709551616": value out of range',
        ),
        ("cpu-idle", "1.5", 'invalid value for cpu-idle: strconv.ParseInt: parsing "1.5": invalid syntax'),
    ],
)
def test_a_value_that_is_none_is_told_as_runc_does(flag: str, text: str, message: str):
    with pytest.raises(UsageError) as caught:
        changes(f"--{flag}", text)
    assert str(caught.value) == message


def test_a_file_holds_resources(directory: Path):
    path = directory / "r.json"
    path.write_text(json.dumps({"memory": {"limit": 5, "swap": None}, "unified": {"a.b": "c"}, "odd": 1}))
    assert update.read(str(path)) == {"memory": {"limit": 5}, "unified": {"a.b": "c"}, "odd": 1}


def test_standard_input_holds_resources(standard_input: Callable[[bytes], None]):
    standard_input(b'{"pids": {"limit": 7}}')
    assert update.read("-") == {"pids": {"limit": 7}}


@pytest.fixture
def standard_input() -> Any:
    """Gives this process another standard input."""
    kept = os.dup(0)

    def give(data: bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)

    yield give
    os.dup2(kept, 0)
    os.close(kept)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"memory": {"limit": "5"}}', ".memory.limit: expected an integer, got string"),
        ('{"cpu": {"shares": -1}}', ".cpu.shares: expected an integer from 0 to 18446744073709551615, got -1"),
        ("[]", "expected an object, got array"),
        ("root:x", "line 1 column 1: expected a value, found 'r'"),
    ],
)
def test_a_file_with_something_else_is_refused_with_the_place(directory: Path, text: str, message: str):
    path = directory / "r.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        update.read(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_told_as_runc_does():
    with pytest.raises(ConfigError) as caught:
        update.read("/nope")
    assert str(caught.value) == "open /nope: no such file or directory"


def test_flags_that_nobody_should_use_are_not_in_the_help():
    from ctr_supervisor.cli import help as help_text

    assert "kernel" not in help_text.verb(update.VERB)
