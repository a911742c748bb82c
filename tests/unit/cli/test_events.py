"""The command line of `events`."""

from __future__ import annotations

import fcntl
import os
import select
import threading

import pytest

from ctr_common.errors import UsageError
from ctr_supervisor.cli import events, output, parser
from ctr_supervisor.cli import help as help_text


def interval(*arguments: str) -> int:
    return parser.parse([*arguments, "id"], events.VERB.flags).integer("interval")


def test_statistics_come_every_five_seconds():
    assert interval() == 5 * 10**9
    assert "(default: 5s)" in " ".join(help_text.verb(events.VERB).split())


def test_the_interval_is_a_duration_of_go():
    assert interval("--interval", "1m0.5s") == 60_500_000_000


@pytest.mark.parametrize("text", ["5", "x", ""])
def test_another_interval_is_refused_as_runc_does(text: str):
    with pytest.raises(UsageError, match=f'^invalid value "{text}" for flag -interval: parse error$'):
        interval("--interval", text)


@pytest.fixture
def pipe():
    """A pipe for one page: its two ends."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def running():
    """What is readable once the container has ended: the ends of a pipe stand for a pidfd."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_slow_reader_gets_all_of_an_event(pipe, running):
    data = bytes(range(256)) * 200
    got = []

    def read() -> None:
        while sum(map(len, got)) < len(data):
            got.append(os.read(pipe[0], 1000))

    slow = threading.Thread(target=read)
    slow.start()
    assert events.write(pipe[1], data, running[0])
    slow.join(20)
    assert b"".join(got) == data


def test_a_reader_that_does_not_read_is_not_waited_for_after_the_end(pipe, running, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "PATIENCE", 50)
    os.write(running[1], b"ended")
    assert not events.write(pipe[1], b"x" * 5000, running[0])
    assert select.select([running[0]], [], [], 0)[0]


def test_a_reader_that_left_is_told(pipe, running):
    os.close(pipe[0])
    with pytest.raises(output.ReaderGone):
        events.write(pipe[1], b"x", running[0])
