"""Standard streams of a process: what becomes of what the caller asked for, and the caller's ends of pipes."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import termios
from typing import IO, Any, Protocol

from ctr_common.errors import UsageError
from ctr_common.fd import Fd

# The numbers of subprocess, so that its names can be used as well.
PIPE = -1
STDOUT = -2
DEVNULL = -3

NAMES = ("stdin", "stdout", "stderr")
WINDOW_SIZE = struct.Struct("=HHHH")
SIZE_MAX = 0xFFFF


class HasFileno(Protocol):
    """A file object, a socket: anything with an fd."""

    def fileno(self) -> int:
        """The fd."""


Stream = int | HasFileno | None


class Console:
    """The master of a process's terminal.

    What is read is what the process writes, b"" after its end; what is written is what it reads from its keyboard.
    """

    def __init__(self, fd: int) -> None:
        self._fd = Fd(fd)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The fd, still owned here.

        Raises:
            ValueError: it was closed.
        """
        return self._fd.fileno()

    def read(self, size: int = 65536) -> bytes:
        """Waits for output of the process.

        Args:
            size: most bytes to return.

        Returns:
            What is there, at least a byte; b"" when no process has the terminal open any more.
        """
        try:
            return os.read(self.fileno(), size)
        except OSError as error:
            # EIO, pty(7): nobody has the other side open
            if error.errno != 5:
                raise
            return b""

    def write(self, data: bytes) -> int:
        """Types.

        Args:
            data: what is typed; the byte 4 (Ctrl-D) at the start of a line is the end of the input.

        Returns:
            How many of the bytes had room.
        """
        return os.write(self.fileno(), data)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in characters."""
        answer = fcntl.ioctl(self.fileno(), termios.TIOCGWINSZ, bytes(WINDOW_SIZE.size))
        height, width, _, _ = WINDOW_SIZE.unpack(answer)
        return width, height

    def resize(self, width: int, height: int) -> None:
        """Changes the size, which the process is told of by SIGWINCH.

        Args:
            width: in characters, 0 to 65535.
            height: likewise.

        Raises:
            UsageError: the kernel has no such sizes.
            ValueError: the console was closed.
        """
        for name, length in (("width", width), ("height", height)):
            if not 0 <= length <= SIZE_MAX:
                raise UsageError(f"{name} of a console is {length}, expected a number from 0 to {SIZE_MAX}")
        fcntl.ioctl(self.fileno(), termios.TIOCSWINSZ, WINDOW_SIZE.pack(height, width, 0, 0))

    def take(self) -> int:
        """Hands the fd, and the duty to close it, to the caller."""
        return self._fd.take()

    def close(self) -> None:
        """Hangs up: the process's session gets SIGHUP; does nothing the second time."""
        self._fd.close()


class Streams:
    """The three streams of one process on its way.

    Args:
        wanted: for stdin, stdout, stderr: None (that of this process), PIPE, DEVNULL, STDOUT (stderr only), an fd, or
            an object with one.

    Attributes:
        child: the fds that become 0, 1 and 2 of the process.
        ours: the ends of the pipes that stay here, None where there is no pipe.

    Raises:
        UsageError: a stream is none of these.
    """

    def __init__(self, wanted: tuple[Stream, Stream, Stream]) -> None:
        self._owned: list[Fd] = []
        self.ours: list[Fd | None] = [None, None, None]
        child: list[int] = []
        try:
            for number, stream in enumerate(wanted):
                child.append(self._resolve(number, stream, child))
        except BaseException:
            self.close()
            raise
        self.child = (child[0], child[1], child[2])

    def _resolve(self, number: int, stream: Stream, before: list[int]) -> int:
        if stream is None:
            try:
                os.fstat(number)
                return number
            except OSError:
                stream = DEVNULL
        if not isinstance(stream, int):
            stream = stream.fileno()
        if stream == PIPE:
            reading, writing = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
            theirs, self.ours[number] = (reading, writing) if number == 0 else (writing, reading)
            self._owned.append(theirs)
            return theirs.fileno()
        if stream == STDOUT and number == 2:
            return before[1]
        if stream == DEVNULL:
            null = Fd(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
            self._owned.append(null)
            return null.fileno()
        try:
            os.fstat(stream)
        except (OSError, OverflowError):
            raise UsageError(f"{NAMES[number]} of the process: {stream} is no open fd") from None
        return stream

    def handed_over(self) -> None:
        """The process has them; what it alone uses is closed here."""
        for fd in self._owned:
            fd.close()
        self._owned.clear()

    def close(self) -> None:
        """There is no process: closes everything."""
        self.handed_over()
        for fd in self.ours:
            if fd is not None:
                fd.close()

    def files(self) -> list[IO[bytes] | None]:
        """The ends that stay here, as file objects."""
        modes = ("wb", "rb", "rb")
        return [None if fd is None else open(fd.take(), mode) for fd, mode in zip(self.ours, modes, strict=True)]


def fds_of(files: tuple[int | HasFileno, ...]) -> list[int]:
    """The fds of files.

    Raises:
        UsageError: one is not open.
    """
    fds = [file if isinstance(file, int) else file.fileno() for file in files]
    for fd in fds:
        try:
            os.fstat(fd)
        except (OSError, OverflowError):
            raise UsageError(f"extra_files of the process: {fd} is no open fd") from None
    return fds


def close_quietly(file: IO[Any] | None) -> None:
    """Closes a stream whose reader may be gone."""
    if file is not None:
        try:
            file.close()
        except (BrokenPipeError, io.UnsupportedOperation):
            pass
