"""The start-up protocol's encoding."""

from __future__ import annotations

import struct

import pytest

from ctr_common import bootstrap
from ctr_common.errors import ProtocolError
from ctr_common.kernel import _kernel


def test_a_message_comes_back_as_it_was_encoded() -> None:
    attributes = [
        (_kernel.ATTR_ARG, b"sh"),
        (_kernel.ATTR_ARG, b""),
        (_kernel.ATTR_UID, bootstrap.u32(1000)),
        (_kernel.ATTR_CAP_BOUNDING, bootstrap.u64(2**41 - 1)),
    ]
    assert bootstrap.decode(bootstrap.encode(_kernel.MSG_SETTINGS, attributes)) == (_kernel.MSG_SETTINGS, attributes)


def test_an_attribute_longer_than_16_bits_keeps_its_length() -> None:
    # CVE-2021-43784: a 16-bit length wrapped, and the payload was read as further attributes.
    payload = b"x" * 70000
    assert bootstrap.decode(bootstrap.encode(_kernel.MSG_BOOTSTRAP, [(_kernel.ATTR_UIDMAP, payload)]))[1] == [
        (_kernel.ATTR_UIDMAP, payload)
    ]


@pytest.mark.parametrize("cut", range(16, 27))
def test_a_message_that_was_cut_off_is_refused(cut: int) -> None:
    data = bootstrap.encode(_kernel.MSG_GO, [(_kernel.ATTR_CWD, b"/x")])
    with pytest.raises(ProtocolError):
        bootstrap.decode(data[:cut])


@pytest.mark.parametrize("claimed", [0, 7, 13, 2**31, 2**32 - 1])
def test_an_attribute_that_claims_a_wrong_length_is_refused(claimed: int) -> None:
    body = struct.pack("=II", claimed, _kernel.ATTR_CWD) + b"abcd"
    data = struct.pack("=IHHII", 16 + len(body), _kernel.MSG_GO, _kernel.PROTOCOL_VERSION, 0, 0) + body
    with pytest.raises(ProtocolError, match="claims"):
        bootstrap.decode(data)


def test_another_protocol_version_is_refused_by_number() -> None:
    data = struct.pack("=IHHII", 16, _kernel.MSG_GO, _kernel.PROTOCOL_VERSION + 1, 0, 0)
    with pytest.raises(ProtocolError, match=f"version {_kernel.PROTOCOL_VERSION + 1}"):
        bootstrap.decode(data)


def test_text_with_a_nul_is_refused() -> None:
    with pytest.raises(ProtocolError, match="NUL"):
        bootstrap.text("a\0b")


def test_text_that_is_not_utf8_keeps_its_bytes() -> None:
    assert bootstrap.text(b"\xff\xfe".decode("utf-8", "surrogateescape")) == b"\xff\xfe"
