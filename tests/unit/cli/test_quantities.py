"""Sizes and durations."""

from __future__ import annotations

import pytest

from ctr_supervisor.cli import quantities


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("5s", 5 * 10**9),
        ("500ms", 500 * 10**6),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        (".5s", 5 * 10**8),
        ("1.s", 10**9),
        ("-2us", -2000),
        ("+3\u00b5s", 3000),
        ("3\u03bcs", 3000),
        ("7ns", 7),
        ("1.9ns", 1),
        ("0", 0),
        ("-0", 0),
        ("2562047h", 2562047 * 3600 * 10**9),
    ],
)
def test_durations_are_those_of_go(text: str, nanoseconds: int):
    assert quantities.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 s", "1.5", "1x", ".s", "+", "1s2", "--1s", "٣s", "2562048h", "9" * 400 + "s"]
)
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="invalid syntax"):
        quantities.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1k", 1024),
        ("1K", 1024),
        ("2kb", 2048),
        ("2KiB", 2048),
        ("3 m", 3 << 20),
        ("1.5g", 3 << 29),
        ("1t", 1 << 40),
        ("1p", 1 << 50),
        ("7b", 7),
        ("0", 0),
        ("1.7", 1),
    ],
)
def test_sizes_are_those_of_docker(text: str, size: int):
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "-1m",
        "-2",
        "10x",
        "0x10",
        "1 1",
        "1  k",
        "1ki",
        "1kbb",
        "1ib",
        "1_0",
        "nan",
        "inf",
        "1e999",
        "٣",
        "9e9p",
    ],
)
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match="invalid size: "):
        quantities.parse_size(text)
