"""Malformed, hostile and misplaced messages."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Callable

import pytest

from tests.nsexec import tlv
from tests.nsexec.driver import Driver, Failed, Gone, memfd, shell

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_root]

BOOTSTRAP = tlv.MESSAGES["BOOTSTRAP"]
CLONE_FLAGS = tlv.ATTRIBUTES["CLONE_FLAGS"][0]
UIDMAP = tlv.ATTRIBUTES["UIDMAP"][0]

Start = Callable[..., Driver]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"x", "truncated message header"),
        (b"\xff" * 64, "message length out of bounds"),
        (tlv.raw_message(BOOTSTRAP, b"", length=8), "message length out of bounds"),
        (tlv.raw_message(BOOTSTRAP, b"", length=0x10000), "message length out of bounds"),
        (tlv.raw_message(BOOTSTRAP, b"", length=0xFFFFFFFC), "message length out of bounds"),
        (tlv.raw_message(BOOTSTRAP, b"", version=2), "other version of the protocol"),
        (tlv.raw_message(99, b""), "unknown message"),
        (tlv.message("BOOTSTRAP") + b"\0\0\0\0", "bytes after the message"),
        (tlv.raw_message(BOOTSTRAP, b"\0\0\0\0"), "truncated attribute"),
        (tlv.raw_message(BOOTSTRAP, struct.pack("=II", 4, CLONE_FLAGS)), "attribute length out of bounds"),
        (tlv.raw_message(BOOTSTRAP, struct.pack("=II", 0, CLONE_FLAGS)), "attribute length out of bounds"),
        (tlv.raw_message(BOOTSTRAP, struct.pack("=II", 16, CLONE_FLAGS)), "attribute length out of bounds"),
        (
            tlv.raw_message(BOOTSTRAP, struct.pack("=II", 0xFFFFFFFF, UIDMAP) + b"abcd"),
            "attribute length out of bounds",
        ),
        (tlv.raw_message(BOOTSTRAP, tlv.attribute(9999, b"")), "unknown attribute"),
        (tlv.raw_message(BOOTSTRAP, tlv.attribute(CLONE_FLAGS, b"1234")), "attribute of a wrong size"),
        (tlv.message("BOOTSTRAP", [("SETGROUPS_DENY", 2)]), "attribute that is not a bool"),
        (tlv.message("BOOTSTRAP", [("UIDMAP", "0 0 1\0")]), "string with a NUL inside"),
        (tlv.message("BOOTSTRAP", [("NS_PIDFD_FD", 0)]), "fd that did not come with its message"),
        (tlv.message("BOOTSTRAP", [("CLONE_FLAGS", 0)] * 2), "attribute given twice"),
        (tlv.message("BOOTSTRAP", [("HOOK", [("HOOK", [("HOOK", [])])])]), "attributes nested too deep"),
        (tlv.message("BOOTSTRAP", [("ARG", "x")]), "ARG does not belong in BOOTSTRAP"),
        (tlv.message("BOOTSTRAP", [("CLONE_FLAGS", 0x100)]), "flags that are no namespaces"),
        (tlv.message("BOOTSTRAP", [("NS_PATH", "nonsense")]), '"nonsense" is not type:path of a namespace'),
        (tlv.message("BOOTSTRAP", [("NS_PATH", "moon:/x")]), 'unknown namespace type "moon"'),
        (tlv.message("BOOTSTRAP", [("UIDMAP", "0 0 1")]), "id maps without a new user namespace"),
        (tlv.message("BOOTSTRAP", [("KEEPER", 1)]), "KEEPER without STATUS_FD"),
        (tlv.message("GO"), "expected BOOTSTRAP, got GO"),
        (tlv.message("SETTINGS", [("ARG", "x")]), "expected BOOTSTRAP, got SETTINGS"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_a_malformed_message_is_refused_with_its_reason(start: Start, data: bytes, text: str) -> None:
    driver = start()
    driver.send_raw(data)
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["MESSAGE"] == text
    assert failure.value["KIND"] == "ProtocolError"


def test_a_datagram_beyond_the_inline_size_is_refused(start: Start) -> None:
    driver = start()
    driver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    driver.send_raw(tlv.message("BOOTSTRAP", [("UIDMAP", "0" * tlv.INLINE_MAX)]))
    with pytest.raises(Failed, match="datagram longer"):
        driver.receive()


def test_lengths_beyond_16_bits_do_not_wrap_cve_2021_43784(start: Start) -> None:
    # a 16-bit length would see 4 bytes of path here, and take the rest for attributes of the attacker's choice
    path = "/" + "a" * (0x10000 + 4 - 8 - len("network:/")) + "\x0c\x01\x02\x03"
    data = tlv.message("BOOTSTRAP", [("NS_PATH", f"network:{path}")])
    driver = start()
    driver.send_raw(tlv.raw_message(tlv.MESSAGES["INDIRECT"], b""), [fd := memfd(data)])
    os.close(fd)
    with pytest.raises(Failed) as failure:
        driver.receive()
    assert failure.value["PATH"] == path
    assert failure.value["STEP"] == "open network namespace"


def test_a_long_message_comes_in_a_sealed_memfd(ready: Callable[..., Driver]) -> None:
    driver = ready()
    pairs = [*shell("echo ${#LONG}"), ("ENV", "LONG=" + "x" * 100_000)]
    driver.send_raw(tlv.raw_message(tlv.MESSAGES["INDIRECT"], b""), [fd := memfd(tlv.message("SETTINGS", pairs))])
    os.close(fd)
    driver.expect("PREPARED")
    assert driver.read_output() == "100000\n"


@pytest.mark.parametrize(
    ("size", "sealed", "text"),
    [
        (16, False, "not sealed"),
        (8, True, "wrong size"),
        ((16 << 20) + 1, True, "wrong size"),
    ],
)
def test_an_indirect_message_is_checked_before_it_is_read(start: Start, size: int, sealed: bool, text: str) -> None:
    fd = memfd(bytes(size), sealed=sealed)
    driver = start()
    driver.send_raw(tlv.raw_message(tlv.MESSAGES["INDIRECT"], b""), [fd])
    os.close(fd)
    with pytest.raises(Failed, match=text):
        driver.receive()


def test_an_indirect_message_needs_a_memfd(start: Start) -> None:
    driver = start()
    driver.send_raw(tlv.raw_message(tlv.MESSAGES["INDIRECT"], b""))
    with pytest.raises(Failed, match="without a memfd"):
        driver.receive()


def test_more_fds_than_a_message_may_carry_are_refused(start: Start) -> None:
    driver = start()
    driver.send_raw(tlv.message("BOOTSTRAP"), [driver.null] * 40)
    with pytest.raises(Failed, match="more fds"):
        driver.receive()


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([], "no ARG"),
        ([("ARG", "x"), ("CWD", "relative")], "is not absolute"),
        ([("ARG", "x"), ("RLIMIT", b"short")], "RLIMIT of a wrong size"),
        ([("ARG", "x"), ("CONSOLE_SIZE", b"1234")], "CONSOLE_SIZE of a wrong size"),
        ([("ARG", "x"), ("SCHEDULER", b"1234")], "SCHEDULER of a wrong size"),
        ([("ARG", "x"), ("SCHEDULER", struct.pack("=I", 4096) + bytes(52))], "SCHEDULER of a wrong size"),
        ([("ARG", "x"), ("MEMORY_POLICY", b"1234")], "MEMORY_POLICY of a wrong size"),
        ([("ARG", "/bin/true"), ("SECCOMP_BPF", b"1234")], "SECCOMP_BPF of a wrong size"),
        ([("ARG", "x"), ("HOOK", [("HOOK_PATH", "relative")])], "hook without an absolute path"),
        ([("ARG", "x"), ("HOOK", [("ARG", "y")])], "ARG does not belong in HOOK"),
        ([("ARG", "x"), ("CLONE_FLAGS", 0)], "CLONE_FLAGS does not belong in SETTINGS"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_settings_are_refused(ready: Callable[..., Driver], pairs: list, text: str) -> None:
    driver = ready()
    driver.send("SETTINGS", pairs)
    with pytest.raises(Failed, match=text) as failure:
        driver.receive()
    assert failure.value["KIND"] == "ProtocolError"
    assert driver.wait() == 1


def test_messages_out_of_order_are_refused_by_the_container_process(start: Start) -> None:
    driver = start()
    driver.bootstrap()
    driver.send("SETTINGS", [("ARG", "x")])
    with pytest.raises(Failed, match="expected GO, got SETTINGS"):
        driver.receive()
    assert driver.wait() == 1


def test_two_attributes_cannot_share_an_fd(start: Start) -> None:
    driver = start()
    driver.send("BOOTSTRAP", [("LOG_FD", 0), ("CGROUP_FD", 0)], [driver.null])
    with pytest.raises(Failed, match="CGROUP_FD: no fd 0"):
        driver.receive()


@pytest.mark.parametrize("seed", range(25))
def test_mutated_messages_end_in_an_error_or_are_understood(start: Start, seed: int) -> None:
    generator = random.Random(seed)
    data = bytearray(
        tlv.message(
            "BOOTSTRAP",
            [("CLONE_FLAGS", 0), ("OOM_SCORE_ADJ", "nonsense"), ("NS_PATH", "net:/nonexistent"), ("ROOTLESS_EUID", 0)],
        )
    )
    for _ in range(generator.randint(1, 6)):
        data[generator.randrange(len(data))] = generator.choice([0, 1, 4, 8, 0x7F, 0x80, 0xFF])
    driver = start()
    driver.send_raw(bytes(data))
    with pytest.raises((Failed, Gone)):
        driver.receive()
