"""Who asks and who answers, with a pool that does what the test says."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.kernel import _kernel
from ctr_common.wire import Wire
from ctr_supervisor.service import dispatch, main, pool
from ctr_supervisor.service.connection import Peer
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.supervisor import Supervisor
from tests.support.supervised import readable
from tests.unit.service.conftest import serve_until


class Scene:
    """A supervisor, one client, and the pool's side."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.loop = loop
        self.listener = main.listen(str(directory / "s"), None)
        ours, self.pool = pool.pairs()
        self.ends = ours
        self.supervisor = Supervisor(loop, str(directory / "root"), self.listener, ours)
        theirs, mine = _kernel.socketpair()
        os.set_blocking(theirs, False)
        with socket.socket(fileno=os.dup(theirs)) as connected:
            peer = Peer(connected)
        self.supervisor.add_connection(peer, Wire(theirs, "client"))
        self.client = Wire(mine, "supervisor")
        self.client.send("hello", None, version=1, client="test")
        assert self.hear()["type"] == "hello"

    def hear(self) -> dict[str, Any]:
        serve_until(self.loop, lambda: readable(self.client.fileno(), 0))
        packet = self.client.receive()
        assert packet is not None
        with packet:
            return packet.body

    def job(self) -> dict[str, Any]:
        """The next job that the pool gets."""
        serve_until(self.loop, lambda: readable(self.pool.jobs.fileno(), 0))
        packet = self.pool.jobs.receive()
        assert packet is not None
        with packet:
            return packet.body

    def close(self) -> None:
        self.supervisor.close()
        self.listener.close()
        for ends in (self.ends, self.pool):
            ends.close()
        self.client.close()


@pytest.fixture
def scene(loop: Loop, directory: Path) -> Iterator[Scene]:
    made = Scene(loop, directory)
    yield made
    made.close()


def test_a_request_that_can_not_be_begun_gives_its_turn_to_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fd(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    # The pool is to be another program's: what comes waits here.
    scene.supervisor.dispatch.hold(lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(dispatch.os, "dup", no_fd)
        scene.client.send("exec", {"stdin": null}, seq=1, id="a")
        assert scene.hear()["error"]["errno"] == errno.EMFILE
    scene.client.send("pause", None, seq=2, id="a")
    scene.client.send("exec", {"stdin": null}, seq=3, id="a")
    scene.client.send("resume", None, seq=4, id="a")
    scene.client.send("ping", None, seq=5)
    assert scene.hear()["seq"] == 5
    scene.supervisor.dispatch.release()
    first = scene.job()
    assert first["body"]["type"] == "pause"

    # The same for one whose turn comes later.
    monkeypatch.setattr(dispatch.os, "dup", no_fd)
    scene.supervisor.dispatch.hold(lambda: None)
    scene.pool.reports.send("taken", None, job=first["job"], pid=1 << 22)
    scene.pool.reports.send("done", None, job=first["job"])
    failed = scene.hear()
    assert (failed["seq"], failed["error"]["errno"]) == (3, errno.EMFILE)
    scene.supervisor.dispatch.release()
    assert scene.job()["body"]["type"] == "resume"
    os.close(null)
