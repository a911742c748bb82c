"""Consoles from the outside: fds handed to a console socket, what stdio was, raw mode of the user's own terminal."""

import os
import struct

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WINDOW_SIZE = struct.Struct("=HHHH")

IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6


def describe_stdio() -> "list[str]":
    """What fds 0 to 2 are, as checkpoint and restore need it: paths, or `pipe:[inode]`."""
    described = []
    for fd in range(3):
        try:
            described.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            described.append("/dev/null")
    return described


def send_fd(socket_path: str, fd: int, name: str, flag: str) -> None:
    """Sends an fd to a listening unix stream socket; its name is the payload, as receivers of consoles expect.

    Args:
        flag: the command line's name for the socket, for the error.

    Raises:
        CtrError: nobody listens there.
    """
    try:
        with Fd(_kernel.connect_unix(socket_path)) as socket:
            _kernel.sendmsg(socket.fileno(), name.encode(), (fd,))
    except OSError as error:
        raise CtrError.from_os_error(error, step=f"sending to {flag}", path=socket_path) from None


def take_window_size(master: int) -> None:
    """Gives a pty the size of the user's window: the first terminal among stderr, stdout and stdin, as with runc."""
    import fcntl
    import termios

    for source in (2, 1, 0):
        try:
            size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(WINDOW_SIZE.size))
            fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        except OSError:
            continue
        return


def leave_line_ends(master: int) -> None:
    """Has a pty add no carriage returns: the user's terminal does, and a pipe or file in its place gets plain lines."""
    import termios

    attributes = termios.tcgetattr(master)
    attributes[OFLAG] &= ~termios.ONLCR
    termios.tcsetattr(master, termios.TCSANOW, attributes)


class RawMode:
    """The user's terminal without line editing, echo and signals of its own, until `restore`.

    Args:
        fd: a terminal; anything else is left alone.
    """

    __slots__ = ("_before", "_fd")

    def __init__(self, fd: int) -> None:
        import termios

        self._fd = fd
        self._before: list[Any] | None = None
        try:
            before = termios.tcgetattr(fd)
        except termios.error:
            return
        raw = [*before[:CC], list(before[CC])]
        raw[IFLAG] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        # Output processing stays on: it makes the ends of lines, which the container's pty leaves alone.
        raw[CFLAG] = raw[CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[CC][termios.VMIN] = 1
        raw[CC][termios.VTIME] = 0
        termios.tcsetattr(fd, termios.TCSANOW, raw)
        self._before = before

    def restore(self) -> None:
        """Puts the terminal back as it was."""
        if self._before is not None:
            import termios

            try:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            except termios.error:
                # ignoring: its window was closed
                pass
            self._before = None
