from __future__ import annotations

import pytest

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups.systemd_annotations import parse, properties


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", ("i", 5)),
        ("-5", ("i", -5)),
        ("0x10", ("i", 16)),
        ("010", ("i", 8)),
        ("1.5", ("d", 1.5)),
        ("2e3", ("d", 2000.0)),
        ("uint64 5", ("t", 5)),
        ("@t 18446744073709551615", ("t", (1 << 64) - 1)),
        ("byte 255", ("y", 255)),
        ("int64 -1", ("x", -1)),
        ("double 3", ("d", 3.0)),
        ("true", ("b", True)),
        ("boolean false", ("b", False)),
        ("'it'", ("s", "it")),
        ('"it\'s"', ("s", "it's")),
        (r"'a\n\u00e9\'\\'", ("s", "a\né'\\")),
        ("objectpath '/a/b_1'", ("o", "/a/b_1")),
        ("signature 'a{sv}as'", ("g", "a{sv}as")),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[1, uint64 2]", ("at", [1, 2])),
        ("[1, 2.5]", ("ad", [1.0, 2.5])),
        ("@as []", ("as", [])),
        ("[byte 1, 2]", ("ay", b"\1\2")),
        (r"b'a\101'", ("ay", b"aA\0")),
        ("{'a': 1, 'b': 2}", ("a{si}", {"a": 1, "b": 2})),
        ("@a{sv} {}", ("a{sv}", {})),
        ("<uint32 7>", ("v", ("u", 7))),
        ("{'a': <'x'>}", ("a{sv}", {"a": ("s", "x")})),
        ("  'x'  ", ("s", "x")),
    ],
)
def test_value_has_the_type_that_its_text_gives_it(text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "'open", "[1", "[1 2]", "[]", "{}", "{'a'}", "{'a': 1", "<1", "1 2", "true true", "trueish", "uint64",
        "uint64 uint64 1", "uint64 'x'", "uint64 -1", "uint64 18446744073709551616", "byte 256", "2147483648",
        "uint32 1.5", "09", "@q", "@(ss) 'x'", "@a 1", "@h 1", "@a{vs} {}", "[1, 'a']", "['a', true]", "('a', 'b')",
        r"'\u00zz'", r"'\ud800'", r"'\u0000'", r"b'\777'", "objectpath 'a'", "objectpath '/a//b'", "signature 'a'",
        "boolean 1", "1x", "--1", "[" * 100, "1.5.5",
    ],
)  # fmt: skip
def test_text_that_is_no_value_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


def test_only_annotations_with_the_prefix_are_properties():
    found = properties({"org.systemd.property.CollectMode": "'inactive-or-failed'", "org.example": "nonsense"})
    assert found == [("CollectMode", ("s", "inactive-or-failed"))]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", ("t", 5000000))),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", ("t", 1500000))),
        ("TimeoutStopSec", "byte 2", ("TimeoutStopUSec", ("t", 2000000))),
        ("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", ("t", 5))),
        ("CPUQuotaPerSec", "uint64 1", ("CPUQuotaPerUSec", ("t", 1000000))),
        ("Sec", "1", ("Sec", ("i", 1))),
        ("ABCSec", "1", ("ABCSec", ("i", 1))),
    ],
)
def test_seconds_become_the_microseconds_of_the_bus(name, text, found):
    assert properties({f"org.systemd.property.{name}": text}) == [found]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("ab", "1", "too short"),
        ("Memory-Max", "1", "non-alphabetic"),
        ("MémoryMax", "1", "non-alphabetic"),
        ("MemoryMax", "uint64", "value parse error"),
        ("TimeoutStopSec", "'x'", "not a number"),
        ("TimeoutStopSec", "-1", "out of range"),
        ("TimeoutStopSec", "1e300", "out of range"),
    ],
)
def test_annotation_that_can_be_no_property_is_named(name, text, complaint):
    with pytest.raises(CgroupError, match=complaint) as caught:
        properties({f"org.systemd.property.{name}": text})
    assert caught.value.json_path == f'.annotations["org.systemd.property.{name}"]'
