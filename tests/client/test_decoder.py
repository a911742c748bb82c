"""The decoder of messages, alone, under sanitizers: what is whole is read, and nothing else does any harm."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.support.slowness import SLOWNESS

pytestmark = [pytest.mark.needs_cc]

VALID, INVALID = 0, 3
MESSAGE = {
    "type": "spawn",
    "argv": ["a", "b" * 40, "c" * 300, "d" * 70000],
    "numbers": [
        0,
        1,
        127,
        128,
        255,
        256,
        65535,
        65536,
        2**32,
        2**63 - 1,
        -1,
        -32,
        -33,
        -128,
        -129,
        -32769,
        -(2**31) - 1,
    ],
    "truth": [True, False, None, 1.5],
    "bytes": [b"", b"x" * 300, b"y" * 70000],
    "deep": {"map": {"list": [[[[{}]]]]}},
    "long": list(range(20)),
    "wide": {str(number): number for number in range(20)},
    "extension": msgpack.ExtType(5, b"1234"),
}


def decode(decoder: Path, data: bytes) -> tuple[int, list[str]]:
    """Exit status and lines of the decoder; a sanitizer that complains makes it another status, and an error text."""
    done = subprocess.run([decoder], input=data, capture_output=True, timeout=20 * SLOWNESS, check=False)
    assert done.returncode in (VALID, INVALID), done.stderr.decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace").splitlines()


def pack(value: Any) -> bytes:
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def test_every_kind_of_value_is_read(decoder: Path):
    status, lines = decode(decoder, pack(MESSAGE))
    assert status == VALID
    assert [int(line.split()[1]) for line in lines if line.startswith("number")][:17] == MESSAGE["numbers"]
    assert {"boolean 1", "boolean 0", "bytes 70000", "array 20", "map 20", "found type"} <= set(lines)


def test_a_message_that_is_cut_off_anywhere_is_none(decoder: Path):
    data = pack({**MESSAGE, "argv": ["a", "b" * 40], "bytes": [b"x" * 300]})
    wrong = [size for size in range(len(data)) if size % 7 == 0 and decode(decoder, data[:size])[0] == VALID]
    assert wrong == []


@pytest.mark.parametrize(
    "data",
    [
        pack([1]),
        pack({1: 2}),
        pack({"type": "x"}) + b"\0",
        b"",
        b"\xc1",
        b"\x81\xa1a\xc1",
        # counts and sizes beyond all reason
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xffxx",
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
        b"\x81\xa1a" + b"\xdd\x40\x00\x00\x00" * 1000,
        b"\x81\xdb\xff\xff\xff\xfe",
        b"\xcf\xff",
    ],
)
def test_what_is_no_message_is_refused(decoder: Path, data: bytes):
    assert decode(decoder, data)[0] == INVALID


def test_depth_costs_nothing(decoder: Path):
    assert decode(decoder, b"\x81\xa1a" + b"\x91" * 1_000_000 + b"\xc0")[0] == VALID


def test_garbage_does_no_harm(decoder: Path):
    chance = random.Random(4)
    good = pack({**MESSAGE, "argv": ["a", "b" * 40], "bytes": [b"x" * 300]})
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        decode(decoder, bytes(damaged))
        decode(decoder, chance.randbytes(chance.randint(1, 64)))
