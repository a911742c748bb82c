"""Messages over a SEQPACKET socket, with fds and of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ctr_common import bootstrap, channel
from ctr_common.errors import HookError, ProtocolError
from ctr_common.kernel import _kernel


@pytest.fixture
def pair() -> Iterator[tuple[channel.Channel, channel.Channel]]:
    ours, theirs = _kernel.socketpair()
    with channel.Channel(ours, "peer") as one, channel.Channel(theirs, "other peer") as other:
        yield one, other


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, _kernel.INLINE_MAX - 24, _kernel.INLINE_MAX - 23, 3_000_000])
def test_a_message_of_any_size_arrives_with_its_fds(
    pair: tuple[channel.Channel, channel.Channel], size: int, tmp_path: object
) -> None:
    sender, receiver = pair
    read, write = os.pipe()
    sender.send(
        _kernel.MSG_SETTINGS, [(_kernel.ATTR_FIFO_FD, bootstrap.u32(0)), (_kernel.ATTR_ARG, b"x" * size)], (write,)
    )
    os.close(write)
    message = receiver.expect(_kernel.MSG_SETTINGS)
    assert message.get(_kernel.ATTR_ARG) == b"x" * size
    arrived = message.take_fd(_kernel.ATTR_FIFO_FD)
    os.write(arrived, b"through")
    os.close(arrived)
    assert os.read(read, 100) == b"through"
    os.close(read)


def test_fds_that_nobody_took_are_closed_with_the_message(pair: tuple[channel.Channel, channel.Channel]) -> None:
    sender, receiver = pair
    before = open_fds()
    sender.send(_kernel.MSG_GO, (), (0, 1))
    receiver.expect(_kernel.MSG_GO).close()
    assert open_fds() == before


def test_an_fd_can_be_taken_once(pair: tuple[channel.Channel, channel.Channel]) -> None:
    sender, receiver = pair
    sender.send(_kernel.MSG_CHILD, [(_kernel.ATTR_PIDFD, bootstrap.u32(0))], (0,))
    message = receiver.expect(_kernel.MSG_CHILD)
    os.close(message.take_fd(_kernel.ATTR_PIDFD))
    with pytest.raises(ProtocolError, match="CHILD came without the fd"):
        message.take_fd(_kernel.ATTR_PIDFD)


def test_a_reported_failure_is_raised_where_something_else_was_expected(
    pair: tuple[channel.Channel, channel.Channel],
) -> None:
    sender, receiver = pair
    sender.send_error(HookError("exit status 3", step="running prestart hook #0", json_path=".hooks.prestart[0]"))
    with pytest.raises(HookError) as caught:
        receiver.expect(_kernel.MSG_WORKER_DONE)
    assert caught.value.json_path == ".hooks.prestart[0]"


def test_an_unexpected_message_is_named_and_its_fds_closed(pair: tuple[channel.Channel, channel.Channel]) -> None:
    sender, receiver = pair
    before = open_fds()
    sender.send(_kernel.MSG_CHILD, (), (0,))
    with pytest.raises(ProtocolError, match="sent CHILD instead of PREPARED or CONSOLE"):
        receiver.expect(_kernel.MSG_PREPARED, _kernel.MSG_CONSOLE)
    assert open_fds() == before


def test_a_peer_that_ends_is_an_error_where_a_word_was_expected(pair: tuple[channel.Channel, channel.Channel]) -> None:
    sender, receiver = pair
    sender.close()
    with pytest.raises(ProtocolError, match="the other peer ended before it sent GO"):
        receiver.expect(_kernel.MSG_GO)
    with pytest.raises(ProtocolError):
        receiver.send(_kernel.MSG_GO)


def test_a_silent_peer_is_not_waited_for_without_end(pair: tuple[channel.Channel, channel.Channel]) -> None:
    with pytest.raises(ProtocolError, match="within 0.05 seconds"):
        pair[0].expect(_kernel.MSG_GO, timeout=0.05)


def test_garbage_is_refused_and_its_fds_closed(pair: tuple[channel.Channel, channel.Channel]) -> None:
    sender, receiver = pair
    before = open_fds()
    _kernel.sendmsg(sender.fd, b"garbage that is no message", (0, 1))
    with pytest.raises(ProtocolError):
        receiver.receive()
    assert open_fds() == before


def test_an_indirect_message_without_its_memfd_is_refused(pair: tuple[channel.Channel, channel.Channel]) -> None:
    sender, receiver = pair
    sender.send(_kernel.MSG_INDIRECT)
    with pytest.raises(ProtocolError, match="memfd"):
        receiver.receive()
