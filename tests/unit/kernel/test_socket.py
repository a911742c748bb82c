"""Sockets: the wrappers of c/kernel/socket.c, with fds in the messages."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from tests.support.forked import in_child, is_cloexec, open_fds


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    fds = _kernel.socketpair()
    yield fds
    for fd in fds:
        os.close(fd)


def test_socketpair_keeps_messages_apart_and_closes_on_exec(pair: tuple[int, int]) -> None:
    _kernel.sendmsg(pair[0], b"one")
    _kernel.sendmsg(pair[0], memoryview(b"two"))

    assert all(is_cloexec(fd) for fd in pair)
    assert _kernel.recvmsg(pair[1], 100)[:2] == (b"one", [])
    assert _kernel.recvmsg(pair[1], 100)[:2] == (b"two", [])


def test_fds_travel_in_order_and_arrive_close_on_exec(pair: tuple[int, int], directory: Path) -> None:
    sent = [os.open(directory / name, os.O_CREAT | os.O_RDONLY) for name in "abc"]
    _kernel.sendmsg(pair[0], b"x", sent)
    data, received, flags = _kernel.recvmsg(pair[1], 10)
    try:
        assert data == b"x"
        assert [os.readlink(f"/proc/self/fd/{fd}")[-1] for fd in received] == ["a", "b", "c"]
        assert all(is_cloexec(fd) for fd in received)
        assert flags & k.MSG_CTRUNC == 0
    finally:
        for fd in sent + received:
            os.close(fd)


def test_more_fds_than_asked_for_are_closed_and_an_error(pair: tuple[int, int]) -> None:
    for count, room in ((2, 1), (5, 2), (1, 0), (33, 32)):
        before = open_fds()
        _kernel.sendmsg(pair[0], b"x", [0] * count)
        with pytest.raises(OSError, match="too long") as raised:
            _kernel.recvmsg(pair[1], 10, room)

        assert raised.value.errno == errno.EMSGSIZE
        assert raised.value.syscall == "recvmsg"  # type: ignore[attr-defined]
        assert open_fds() == before


def test_exactly_as_many_fds_as_asked_for_are_fine(pair: tuple[int, int]) -> None:
    _kernel.sendmsg(pair[0], b"x", [0] * 253)
    received = _kernel.recvmsg(pair[1], 10, 253)[1]
    for fd in received:
        os.close(fd)

    assert len(received) == 253


def test_a_message_that_does_not_fit_is_an_error_and_its_fds_are_closed(pair: tuple[int, int]) -> None:
    before = open_fds()
    _kernel.sendmsg(pair[0], b"12345", [0])
    with pytest.raises(OSError, match="too long") as raised:
        _kernel.recvmsg(pair[1], 4)

    assert raised.value.errno == errno.EMSGSIZE
    assert open_fds() == before


def test_the_end_is_an_empty_message() -> None:
    here, there = _kernel.socketpair()
    os.close(there)
    try:
        assert _kernel.recvmsg(here, 10)[:2] == (b"", [])
    finally:
        os.close(here)


def test_a_lost_peer_is_an_error_and_no_signal() -> None:
    def work() -> str:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        here, there = _kernel.socketpair()
        os.close(there)
        try:
            _kernel.sendmsg(here, b"x")
        except BrokenPipeError as error:
            return error.syscall  # type: ignore[attr-defined, no-any-return]
        return "sent"

    assert in_child(work) == "sendmsg"


def test_a_handler_runs_while_recvmsg_waits_and_may_end_it() -> None:
    class Ended(Exception):
        pass

    def end(*_: object) -> None:
        raise Ended

    def work() -> str:
        here, _there = _kernel.socketpair()
        signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            _kernel.recvmsg(here, 10)
        except Ended:
            return "ended"
        return "received"

    assert in_child(work) == "ended"


def test_connect_unix_reaches_a_stream_socket(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(directory / "s"))
        server.listen()
        fd = _kernel.connect_unix(str(directory / "s"))
        try:
            assert is_cloexec(fd)
            _kernel.sendmsg(fd, b"hello")
            connection = server.accept()[0]
            assert connection.recv(10) == b"hello"
            connection.close()
        finally:
            os.close(fd)


@pytest.mark.parametrize(("path", "number"), [("/nowhere", errno.ENOENT), ("/" + "x" * 200, errno.ENAMETOOLONG)])
def test_connect_unix_failure_names_the_path(path: str, number: int) -> None:
    before = open_fds()
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        _kernel.connect_unix(path)

    assert (raised.value.errno, raised.value.filename) == (number, path)
    assert raised.value.syscall == "connect"  # type: ignore[attr-defined]
    assert open_fds() == before
