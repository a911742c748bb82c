"""Log lines in the two formats of runc, which engines parse: logrus text and one JSON object a line."""

import fcntl
import os
import time

from ctr_common import fastjson

DEBUG = "debug"
INFO = "info"
WARNING = "warning"
ERROR = "error"

TEXT = "text"
JSON = "json"
FORMATS = (TEXT, JSON)

STDERR = 2

# A log file stays clear of the low numbers: those may be the caller's, to be handed on with --preserve-fds.
LOG_FD_MINIMUM = 512

_COLOURS = {DEBUG: 37, INFO: 36, WARNING: 33, ERROR: 31}

# logrus leaves a value without quotes if it consists of these alone.
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+")
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quote(text: str) -> str:
    r"""The text in double quotes with the escapes of Go's %q, as runc quotes values in its messages.

    Args:
        text: any text; a byte that was not UTF-8 (a lone surrogate, PEP 383) comes out as \xNN.
    """
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def timestamp(seconds: "float | None" = None) -> str:
    """A time in the local zone as RFC 3339 has it, without a fraction.

    Args:
        seconds: since the epoch; None for now.
    """
    local = time.localtime(seconds)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", local)
    offset = local.tm_gmtoff // 60
    if offset == 0:
        return text + "Z"
    sign = "-" if offset < 0 else "+"
    return f"{text}{sign}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"


def write_all(fd: int, data: bytes) -> None:
    """Writes all of it.

    Args:
        fd: open for writing, blocking.
        data: what to write.

    Raises:
        OSError: the fd took no more.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def encode(text: str) -> bytes:
    """UTF-8, where bytes of argv and file names that are not UTF-8 (PEP 383) become themselves again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


class Log:
    """Where log lines go, and in which format.

    Args:
        fd: open for writing; stays the caller's.
        form: TEXT or JSON.
        debug: write DEBUG lines too.
    """

    __slots__ = ("_colour", "_debug", "_terminal", "fd", "form")

    def __init__(self, fd: int = STDERR, form: str = TEXT, *, debug: bool = False) -> None:
        self.fd = fd
        self.form = form
        self._debug = debug
        self._terminal = form == TEXT and os.isatty(fd)
        self._colour = self._terminal and not os.environ.get("NO_COLOR")

    @property
    def is_file(self) -> bool:
        """Whether lines go somewhere else than to standard error."""
        return self.fd != STDERR

    def write(self, level: str, message: str) -> None:
        """Writes one line; a log that can't be written to is no reason to fail.

        Args:
            level: DEBUG, INFO, WARNING or ERROR.
            message: the text.
        """
        if level == DEBUG and not self._debug:
            return
        line = encode(self.format(level, message) + "\n")
        try:
            write_all(self.fd, line)
        except OSError:
            pass

    def format(self, level: str, message: str) -> str:
        """The line without its newline, as runc writes it for this format and kind of file."""
        if self.form == JSON:
            return fastjson.dumps({"level": level, "msg": message, "time": timestamp()}, go=True)
        if self._terminal:
            label = level[:4].upper()
            if self._colour:
                label = f"\x1b[{_COLOURS[level]}m{label}\x1b[0m"
            return f"{label}[0000] {message.removesuffix(chr(10))}"
        bare = _BARE.issuperset(message)
        return f'time="{timestamp()}" level={level} msg={message if bare else quote(message)}'


def open_file(path: str) -> int:
    """Opens a log file for appending, made if it is missing; the fd is close-on-exec and high.

    Args:
        path: the file.

    Raises:
        OSError: it can't be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_SYNC | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOG_FD_MINIMUM)
    except OSError:
        # The limit of open files is below that number: keep the fd that there is.
        return fd
    os.close(fd)
    return high
