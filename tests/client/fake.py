"""A supervisor that says what the test tells it to, and the client at the other end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ctr_common.wire import Packet, Wire
from tests.support.slowness import SLOWNESS

LIMIT = 20 * SLOWNESS
DIRECT = """\
#!/bin/sh
[ "$1" != --fds ] || ls -l /proc/self/fd
echo "direct:$*"
exit ${DIRECT_STATUS:-7}
"""


class Supervisor:
    """Listens where the client looks; the test is its loop.

    Args:
        path: of the socket.
        backlog: clients that may wait to be accepted.
    """

    def __init__(self, path: Path, backlog: int = 8) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(LIMIT)
        self.listener.bind(str(path))
        self.listener.listen(backlog)
        self.wires: list[Wire] = []

    def close(self) -> None:
        """Stops to listen, and hangs up on everybody."""
        self.listener.close()
        for wire in self.wires:
            wire.close()

    def accept(self) -> Wire:
        """The next client."""
        connected, _ = self.listener.accept()
        connected.settimeout(None)
        self.wires.append(Wire(connected.detach(), "client"))
        return self.wires[-1]

    def greet(self) -> Wire:
        """The next client, after the hello of both."""
        wire = self.accept()
        with receive(wire, "hello") as hello:
            assert hello.body["version"] == 1
            assert hello.body["client"].startswith("ctrun ")
        wire.send("hello", None, version=1, server="0", capabilities=["command"], pid=os.getpid(), root="/nowhere")
        return wire

    def serve(self) -> tuple[Wire, Packet]:
        """The next client and its command, whose fds are closed: the client's stdio ends with the client."""
        wire = self.greet()
        with receive(wire, "command") as command:
            return wire, command


def receive(wire: Wire, *types: str) -> Packet:
    """The next message of the client, which must be of one of the types."""
    return wire.expect(*types, timeout=LIMIT)


class Client:
    """A client that runs, in a process group of its own.

    Args:
        binary: the program, with something executable beside it as ctrun-direct.
        arguments: its command line.
        supervisor: value of CTRUN_SUPERVISOR.
        env: more variables.
        options: for Popen.
    """

    def __init__(
        self,
        binary: Path,
        arguments: Sequence[str | Path],
        supervisor: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        surroundings = {"PATH": os.environ["PATH"], **(env or {})}
        if supervisor is not None:
            surroundings["CTRUN_SUPERVISOR"] = str(supervisor)
        settings = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "start_new_session": True,
            **options,
        }
        self.process: subprocess.Popen[bytes] = subprocess.Popen([binary, *arguments], env=surroundings, **settings)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> tuple[int, str, str]:
        """Waits for its end: exit status, stdout, stderr."""
        __tracebackhide__ = True
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, (out or b"").decode(), (err or b"").decode()

    def stdin(self) -> IO[bytes]:
        """Its standard input, where that is a pipe."""
        assert self.process.stdin is not None
        return self.process.stdin


def busybox() -> str:
    """A static program that can stand for ctr-init: executed from its fd it is whatever argv[0] says."""
    return shutil.which("busybox") or sys.exit("busybox is not installed")
