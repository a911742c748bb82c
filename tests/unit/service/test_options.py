"""The log, which may be read by nobody."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Iterator

import pytest

from ctr_supervisor.service import options


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of what is standard error here."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4 * select.PIPE_BUF)
    monkeypatch.setattr(options, "STDERR", writing)
    yield reading
    os.close(reading)
    os.close(writing)


def log(line: str) -> None:
    """Logs, and does not hang where the log does."""
    logging = threading.Thread(target=options.log, args=(line,), daemon=True)
    logging.start()
    logging.join(10)
    assert not logging.is_alive(), "it waits for somebody to read"


def test_a_line_is_written_whole_where_there_is_room(reader: int) -> None:
    line = "x" * 3 * select.PIPE_BUF
    log(line)
    assert os.read(reader, 1 << 20).decode() == f"ctr-supervisor: {line}\n"


def test_what_there_is_no_room_for_is_dropped_and_not_waited_for(reader: int) -> None:
    for _ in range(3):
        log("x" * 10 * select.PIPE_BUF)
    assert len(os.read(reader, 1 << 20)) == 4 * select.PIPE_BUF
    log("on")
    assert os.read(reader, 100) == b"ctr-supervisor: on\n"
