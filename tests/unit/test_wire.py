"""Messages of the long-lived programs: what JSON can say passes, or comes near."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest

from ctr_common.errors import ProtocolError
from ctr_common.kernel import _kernel
from ctr_common.wire import MESSAGE_MAX, Wire, decode, encode


def passed(value: Any) -> Any:
    return decode(encode({"type": "x", "value": value}))["value"]


@pytest.mark.parametrize(
    "value", [0, -(2**63), 2**64 - 1, 1.5, "text", "x\udce9", ["a", {"b": [None, True]}], b"bytes"]
)
def test_what_both_know_passes_unchanged(value: Any) -> None:
    assert passed(value) == value


@pytest.mark.parametrize(
    ("value", "near"),
    [
        (10**30, 1e30),
        (-(2**63) - 1, -(2.0**63)),
        ("a\ud800b", "a\ufffdb"),
        ("\ud800\udce9", "\ufffd\udce9"),
        ({"list": [10**30], "\udfff": "x"}, {"list": [1e30], "\ufffd": "x"}),
    ],
)
def test_what_has_no_place_in_a_message_comes_near(value: Any, near: Any) -> None:
    assert passed(value) == near


def deep(levels: int) -> Any:
    made: Any = []
    for _ in range(levels):
        made = [made]
    return made


@pytest.mark.parametrize("value", [deep(2000), [deep(2000), 10**30], 10**400, object(), {1, 2}])
def test_what_can_not_be_sent_at_all_is_told(value: Any) -> None:
    with pytest.raises(ProtocolError, match="x can't be sent") as told:
        encode({"type": "x", "value": value})
    assert told.value.errno == errno.EINVAL


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    ours, theirs = (Wire(fd, "peer") for fd in _kernel.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_what_is_too_large_is_told_and_nothing_is_sent(wires: tuple[Wire, Wire]) -> None:
    with pytest.raises(ProtocolError, match="is more than") as told:
        wires[0].send("x", None, filler=b"x" * MESSAGE_MAX)
    assert told.value.errno == errno.EMSGSIZE
    wires[0].send("y")
    with wires[1].expect("y"):
        pass
