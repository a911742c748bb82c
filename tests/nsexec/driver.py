"""The engine's side of the start-up protocol, played by hand against ctr-init alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.nsexec import tlv
from tests.support.slowness import SLOWNESS

TIMEOUT = 20.0 * SLOWNESS
HIGH_FD = 200

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

Attribute = tuple[str, Any]


class Failed(Exception):
    """ctr-init sent ERROR; `fields` are its attributes without the ERR_ in front."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = {name.removeprefix("ERR_"): value for name, value in fields.items()}
        super().__init__(repr(self.fields))

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)


class Gone(Exception):
    """ctr-init closed its end of the socket."""


def rlimit(resource: int, soft: int, hard: int) -> Attribute:
    return ("RLIMIT", struct.pack("=IIQQ", resource, 0, soft, hard))


def memfd(data: bytes, *, sealed: bool = True) -> int:
    """What an INDIRECT message comes with."""
    fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return fd


class Driver:
    """One start of ctr-init; a context manager that leaves neither process nor fd.

    Args:
        binary: what to start.
        preserve: fds that become 3, 4, … of the container process.
        prefix: command to start it through, such as setpriv.
        stdin: an fd, else /dev/null.
    """

    def __init__(
        self, binary: Path, preserve: Sequence[int] = (), prefix: Sequence[str] = (), stdin: int | None = None
    ) -> None:
        self.binary = binary
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT)
        self.output, output = os.pipe()
        self.errors, errors = os.pipe()
        self.null = os.open("/dev/null", os.O_RDWR)
        self.fds: list[int] = []
        self.pid = 0
        self.pidfd = -1
        self.child: dict[str, Any] = {}
        self.stderr = b""
        number = 3 + len(preserve)
        moves = [(self.null if stdin is None else stdin, 0), (output, 1), (errors, 2)]
        moves += [(fd, 3 + index) for index, fd in enumerate(preserve)]
        moves.append((theirs.fileno(), number))
        high = [(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, HIGH_FD), target) for source, target in moves]
        argv = [*prefix, str(binary)] if prefix else ["ctr-init"]
        environment = {"CTR_INIT_SOCKET": str(number)}
        if "asan" in binary.name:
            environment["ASAN_OPTIONS"] = "detect_leaks=0:exitcode=99"
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in high]
        self.stage_0 = os.posix_spawn(prefix[0] if prefix else str(binary), argv, environment, file_actions=actions)
        for source, _ in high:
            os.close(source)
        os.close(output)
        os.close(errors)
        theirs.close()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.socket.close()
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        statuses = [self.reap(self.stage_0), self.reap(self.pid)]
        for fd in (self.output, self.null, self.pidfd, *self.fds):
            if fd >= 0:
                os.close(fd)
        if kind is None:
            self.stderr += self._drain(self.errors)
        os.close(self.errors)
        assert b"Sanitizer" not in self.stderr and b"runtime error" not in self.stderr, self.stderr.decode()
        assert 99 not in statuses

    @staticmethod
    def reap(pid: int) -> int:
        """Exit code, negative for a signal; 0 for what was reaped before. Fails the test when the process hangs."""
        if pid <= 0:
            return 0
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            if not select.select([pidfd], [], [], TIMEOUT)[0]:
                os.kill(pid, signal.SIGKILL)
                os.close(pidfd)
                os.waitpid(pid, 0)
                raise AssertionError(f"process {pid} of ctr-init hangs")
            os.close(pidfd)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return 0

    @staticmethod
    def _drain(fd: int) -> bytes:
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            return b"".join(iter(lambda: os.read(fd, 65536), b""))
        return b""

    def send_raw(self, data: bytes, fds: Iterable[int] = ()) -> None:
        socket.send_fds(self.socket, [data], list(fds))

    def send(self, name: str, pairs: Iterable[Attribute] = (), fds: Iterable[int] = ()) -> None:
        self.send_raw(tlv.message(name, pairs), fds)

    def receive(self) -> tuple[str, dict[str, Any], list[int]]:
        """The next message; Failed for an ERROR, Gone at the end."""
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, 1 << 17, 8)
        except ConnectionResetError:
            raise Gone from None
        if not data:
            raise Gone
        self.fds += fds
        name, found = tlv.parse(data)
        if name == "INDIRECT":
            name, found = tlv.parse(os.pread(fds[0], 1 << 24, 0))
        if name == "ERROR":
            raise Failed(found)
        return name, found, fds

    def expect(self, name: str) -> tuple[dict[str, Any], list[int]]:
        got, found, fds = self.receive()
        assert got == name
        return found, fds

    def bootstrap(self, *pairs: Attribute, fds: Iterable[int] = ()) -> None:
        """BOOTSTRAP to CHILD."""
        self.send("BOOTSTRAP", pairs, fds)
        self.child, received = self.expect("CHILD")
        self.pid = self.child["PID"]
        self.pidfd = received[0]
        self.fds.remove(self.pidfd)

    def go(self, *pairs: Attribute, fds: Iterable[int] = ()) -> None:
        """GO to NAMESPACES_READY."""
        self.send("GO", pairs, fds)
        self.expect("NAMESPACES_READY")

    def settings(self, *pairs: Attribute, fds: Iterable[int] = ()) -> None:
        """SETTINGS to PREPARED."""
        self.send("SETTINGS", pairs, fds)
        self.expect("PREPARED")

    def executed(self) -> None:
        """Waits until execve has closed the socket."""
        try:
            name = self.receive()[0]
        except Gone:
            return
        raise AssertionError(f"{name} instead of execve")

    def wait(self) -> int:
        """Exit code of the container process, negative for a signal."""
        pid, self.pid = self.pid, 0
        return self.reap(pid)

    def read_output(self) -> str:
        """All that the process writes until its end."""
        parts: list[bytes] = []
        while select.select([self.output], [], [], TIMEOUT)[0]:
            part = os.read(self.output, 65536)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)
        raise AssertionError("the process keeps its output open")

    def read_errors(self) -> str:
        """What has been written to stderr by now."""
        self.stderr += self._drain(self.errors)
        return self.stderr.decode()

    def run(self, argv: Sequence[str], *pairs: Attribute, fds: Iterable[int] = ()) -> str:
        """From NAMESPACES_READY to the end of a program that succeeds; its output."""
        self.settings(*command(*argv), *pairs, fds=fds)
        self.executed()
        output = self.read_output()
        assert self.wait() == 0, self.read_errors()
        return output


def command(*argv: str) -> list[Attribute]:
    return [("ARG", word) for word in argv] + [("ENV", "PATH=/usr/bin:/bin")]


def shell(script: str) -> list[Attribute]:
    return command("/bin/sh", "-c", script)
