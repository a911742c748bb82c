"""The start-up protocol's encoding: netlink-like frames of type-length-value attributes with 32-bit lengths.

Spoken between the engine, `ctr-init` (C) and the setup worker. The numbers have one source, `c/nsexec/protocol.def`,
whose head describes the framing; `_kernel` exports them to Python.
"""

import struct

from ctr_common.errors import ProtocolError
from ctr_common.kernel._kernel import PROTOCOL_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Attributes = Iterable[tuple[int, bytes]]

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=II")
U32 = struct.Struct("=I")
U64 = struct.Struct("=Q")

PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def u32(value: int) -> bytes:
    """Payload of an attribute of kind `u32` or `fd`."""
    return U32.pack(value)


def u64(value: int) -> bytes:
    """Payload of an attribute of kind `u64`."""
    return U64.pack(value)


def boolean(value: bool) -> bytes:
    """Payload of an attribute of kind `bool`."""
    return b"\1" if value else b"\0"


def text(value: str) -> bytes:
    """Payload of an attribute of kind `str`.

    Raises:
        ProtocolError: the text has a NUL inside, which C could not see.
    """
    data = value.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ProtocolError(f"text with a NUL byte: {value!r}")
    return data


def u32s(values: "Iterable[int]") -> bytes:
    """Payload of an attribute of kind `u32s`."""
    return b"".join(map(U32.pack, values))


def nest(attributes: "Attributes") -> bytes:
    """Payload of an attribute of kind `nest`; also the body of a message."""
    parts = []
    for number, payload in attributes:
        length = ATTRIBUTE.size + len(payload)
        parts.append(ATTRIBUTE.pack(length, number))
        parts.append(payload)
        parts.append(PADDING[length % 4])
    return b"".join(parts)


def encode(message: int, attributes: "Attributes", sequence: int = 0) -> bytes:
    """One whole message.

    Args:
        message: a MSG_* number.
        attributes: (ATTR_* number, payload) in the order in which they shall stand.
        sequence: a number that an answer would repeat.
    """
    body = nest(attributes)
    return HEADER.pack(HEADER.size + len(body), message, PROTOCOL_VERSION, sequence, 0) + body


def attributes_of(data: bytes) -> "list[tuple[int, bytes]]":
    """The attributes of a body or of a nest.

    Raises:
        ProtocolError: a length is short of its header or beyond the data.
    """
    found = []
    position = 0
    end = len(data)
    while position < end:
        if end - position < ATTRIBUTE.size:
            raise ProtocolError(f"attribute header cut off at byte {position} of {end}")
        length, number = ATTRIBUTE.unpack_from(data, position)
        if length < ATTRIBUTE.size or length > end - position:
            raise ProtocolError(f"attribute {number} at byte {position} claims {length} of {end - position} bytes")
        found.append((number, data[position + ATTRIBUTE.size : position + length]))
        position += (length + 3) & ~3
    return found


def decode(data: bytes) -> "tuple[int, list[tuple[int, bytes]]]":
    """Type and attributes of one message.

    Raises:
        ProtocolError: truncated, of another protocol version, or malformed.
    """
    if len(data) < HEADER.size:
        raise ProtocolError(f"message of {len(data)} bytes has no whole header")
    length, message, version, _, _ = HEADER.unpack_from(data)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"message of protocol version {version}, expected {PROTOCOL_VERSION}")
    if length != len(data):
        raise ProtocolError(f"message claims {length} bytes and has {len(data)}")
    return message, attributes_of(data[HEADER.size :])
