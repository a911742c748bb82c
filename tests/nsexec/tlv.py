"""The start-up protocol's framing, written against protocol.def alone so that it shares no mistake with the code."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROTOCOL = Path(__file__).resolve().parents[2] / "c/nsexec/protocol.def"
VERSION = 1
INLINE_MAX = 65536

_text = PROTOCOL.read_text()
MESSAGES = {name: int(number) for name, number in re.findall(r"^CTR_MESSAGE\((\w+), (\d+),", _text, re.M)}
ATTRIBUTES = {
    name: (int(number), kind) for name, number, kind in re.findall(r"^CTR_ATTRIBUTE\((\w+), (\d+), (\w+),", _text, re.M)
}
_message_names = {number: name for name, number in MESSAGES.items()}
_attribute_names = {number: (name, kind) for name, (number, kind) in ATTRIBUTES.items()}

Pairs = Iterable[tuple[str, Any]]


def _payload(kind: str, value: Any) -> bytes:
    if kind in {"u32", "fd"}:
        return struct.pack("=I", value)
    if kind == "u64":
        return struct.pack("=Q", value)
    if kind in {"u8", "bool"}:
        return struct.pack("=B", value)
    if kind == "str":
        return value.encode() if isinstance(value, str) else bytes(value)
    if kind == "u32s":
        return struct.pack(f"={len(value)}I", *value)
    if kind == "nest":
        return attributes(value)
    return bytes(value)


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=II", 8 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def attributes(pairs: Pairs) -> bytes:
    return b"".join(attribute(ATTRIBUTES[name][0], _payload(ATTRIBUTES[name][1], value)) for name, value in pairs)


def raw_message(number: int, body: bytes, *, version: int = VERSION, length: int = -1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body) if length < 0 else length, number, version, 7, 0) + body


def message(name: str, pairs: Pairs = ()) -> bytes:
    return raw_message(MESSAGES[name], attributes(pairs))


def _value(kind: str, payload: bytes) -> Any:
    if kind in {"u32", "fd"}:
        return struct.unpack("=I", payload)[0]
    if kind == "u64":
        return struct.unpack("=Q", payload)[0]
    if kind in {"u8", "bool"}:
        return payload[0]
    return payload.decode(errors="surrogateescape") if kind == "str" else payload


def parse(data: bytes) -> tuple[str, dict[str, Any]]:
    """Name and attributes of one message; of a repeated attribute the last."""
    length, number, version, _, reserved = struct.unpack_from("=IHHII", data)
    assert (length, version, reserved) == (len(data), VERSION, 0)
    found: dict[str, Any] = {}
    at = 16
    while at < len(data):
        size, kind_number = struct.unpack_from("=II", data, at)
        name, kind = _attribute_names[kind_number]
        found[name] = _value(kind, data[at + 8 : at + size])
        at += size + -size % 4
    return _message_names[number], found
