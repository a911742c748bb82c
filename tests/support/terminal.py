"""A command on a pseudo terminal, as a user would type it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType


class Terminal:
    """Runs a command with a terminal of its own; `seen` is all that it showed so far.

    Args:
        argv: the command.
        rows: height of the terminal.
        columns: its width.
        env: whole environment of the command; None is the caller's.
    """

    def __init__(
        self, *argv: str | Path, rows: int = 24, columns: int = 80, env: Mapping[str, str] | None = None
    ) -> None:
        self.seen = ""
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            # setsid(1) makes the terminal on its stdin the controlling one
            ["setsid", "--ctty", "--wait", *map(str, argv)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        os.close(self.master)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size of the terminal; the kernel tells the foreground processes with SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the last slave was closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def expect(self, text: str, timeout: float = 30, after: int = 0) -> int:
        """Waits until `text` was shown at or after the position `after`; returns the position behind it."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        while text not in self.seen[after:]:
            assert self._read(deadline), f"{text!r} did not come; seen: {self.seen!r}"
        return self.seen.index(text, after) + len(text)

    def shows(self, text: str, timeout: float = 0.3) -> bool:
        """Whether `text` has been shown, after a short look at what comes."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            if not self._read(deadline):
                return False
        return True

    def type(self, text: str) -> Terminal:
        """Types the text; a newline is the enter key. Returns the terminal."""
        os.write(self.master, text.encode())
        return self

    def wait(self, timeout: float = 30) -> int:
        """Reads on until the command has ended; returns its exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))
