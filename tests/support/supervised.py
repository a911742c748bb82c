"""A supervisor under test, and clients that speak its protocol."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctr_common.errors import CtrError
from ctr_common.wire import Packet, Wire
from tests.support.runtime import ROOT
from tests.support.slowness import SLOWNESS
from tests.support.waiting import until

PROGRAM = ROOT / "bin/ctr-supervisor"
LIMIT = 30.0


class Client:
    """One connection.

    Args:
        path: of the supervisor's socket.
        greet: say hello, and read the answer.
    """

    def __init__(self, path: Path, *, greet: bool = True) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connected:
            connected.connect(str(path))
            self.wire = Wire(connected.detach(), "supervisor")
        self.seq = 0
        self.events: list[dict[str, Any]] = []
        if greet:
            try:
                self.wire.send("hello", version=1, client="test")
                with self.receive() as hello:
                    assert hello.type == "hello", hello.body
                    self.hello = hello.body
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.wire.close()

    def receive(self, timeout: float = LIMIT) -> Packet:
        """The next message; fails the test when the supervisor closes the connection."""
        packet = self.wire.receive(timeout * SLOWNESS)
        assert packet is not None, "the supervisor closed the connection"
        return packet

    def ended(self, timeout: float = LIMIT) -> bool:
        """Whether the supervisor has closed the connection, or does so within the limit."""
        return self.wire.receive(timeout * SLOWNESS) is None

    def send(self, type: str, fds: dict[str, int] | None = None, /, **fields: Any) -> int:
        """Sends a request; its seq."""
        self.seq += 1
        self.wire.send(type, fds, seq=self.seq, **fields)
        return self.seq

    def answer(self, seq: int, timeout: float = LIMIT) -> Packet:
        """The answer to a request; events that come before it are kept.

        Raises:
            CtrError: what the supervisor told.
        """
        while True:
            packet = self.receive(timeout)
            if packet.type == "event":
                self.events.append(packet.body)
                continue
            assert packet.body.get("seq") == seq, packet.body
            if packet.type == "error":
                raise packet.error()
            return packet

    def ask(self, type: str, fds: dict[str, int] | None = None, /, **fields: Any) -> dict[str, Any]:
        """Sends a request; the body of its answer."""
        with self.answer(self.send(type, fds, **fields)) as packet:
            return packet.body

    def failure(self, type: str, **fields: Any) -> CtrError:
        """Sends a request that must fail; the failure."""
        try:
            body = self.ask(type, **fields)
        except CtrError as error:
            return error
        raise AssertionError(f"{type} succeeded: {body}")

    def event(self, *names: str, timeout: float = LIMIT) -> dict[str, Any]:
        """The next event of those names; the others are dropped."""
        deadline = time.monotonic() + timeout * SLOWNESS
        while True:
            while self.events:
                found = self.events.pop(0)
                if not names or found["event"] in names:
                    return found
            with self.receive(max(0.1, deadline - time.monotonic())) as packet:
                assert packet.type == "event", packet.body
                self.events.append(packet.body)


class Supervisor:
    """Runs `ctr-supervisor` in the foreground.

    Args:
        directory: where its state root and socket are.
        flags: more of its command line.
    """

    def __init__(self, directory: Path, *flags: str | Path) -> None:
        self.root = directory / "root"
        self.socket = directory / "supervisor.sock"
        self.log = directory / "supervisor.log"
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def argv(self) -> list[str | Path]:
        return [PROGRAM, "--root", self.root, "--socket", self.socket, *self.flags]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(
        self, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (), wrapper: Sequence[str] = ()
    ) -> Supervisor:
        """Starts it, and waits until it serves."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=None if env is None else {**os.environ, **env},
                pass_fds=pass_fds,
            )
        try:
            until("the supervisor serves", self.serves)
        except BaseException:
            self.kill()
            raise
        return self

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def serves(self) -> bool:
        """Whether a client gets an answer."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            Client(self.socket).close()
        except (OSError, CtrError, AssertionError):
            return False
        return True

    def client(self) -> Client:
        return Client(self.socket)

    def kill(self) -> None:
        """Ends it as nothing in it can notice."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it in order; its exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(LIMIT * SLOWNESS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def cpu(self) -> float:
        """Seconds of CPU time that the process has used, without the pool's."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wakeups(self) -> int:
        """How often it was put to sleep and woken so far."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
        raise AssertionError("no voluntary_ctxt_switches")

    def fds(self) -> int:
        """How many fds it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Its anonymous memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def pool(self) -> set[int]:
        """Pids of its children."""
        return {int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}


def readable(fd: int, timeout: float = LIMIT) -> bool:
    """Waits until there is something to read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * SLOWNESS * 1000))
