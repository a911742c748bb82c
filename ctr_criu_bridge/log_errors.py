"""Errors in CRIU's log, each behind the lines that led to it."""

import os
import re
from collections.abc import Iterable, Iterator

from ctr_common.fd import Fd

CONTEXT = 5
GAP = "..."
# The end of a log tells why; a log of a large container has megabytes.
TAIL_MAX = 4 * 1024 * 1024
LINES_MAX = 60

ERROR = re.compile(r"^\(\d+\.\d+\)\s+(?:\d+: )?Error \(")
# Said by every CRIU that may not raise its own limits, and without consequence.
HARMLESS = re.compile(r"rlimit: Can't setup RLIMIT_NOFILE for self")


def is_harmless(line: str) -> bool:
    """Whether an error of CRIU's is none."""
    return bool(HARMLESS.search(line))


def is_error(line: str) -> bool:
    """Whether CRIU calls the line an error, and it is one."""
    return bool(ERROR.match(line)) and not is_harmless(line)


def errors(lines: Iterable[str]) -> list[str]:
    """The lines that are errors, without what stands before the message."""
    return [message(line) for line in lines if is_error(line)]


def message(line: str) -> str:
    """What an error line says, without time and place."""
    return re.sub(r"^(?:\(\d+\.\d+\)\s+)?(?:\d+: )?Error \([^)]*\): ", "", line)


def with_context(lines: list[str], context: int = CONTEXT) -> Iterator[str]:
    """The errors and the lines before each of them; GAP stands for what is left out in between.

    Args:
        lines: a log.
        context: how many lines to show before an error.
    """
    shown_to = 0
    for number, line in enumerate(lines):
        if not is_error(line):
            continue
        start = max(shown_to, number - context)
        if start > shown_to:
            yield GAP
        yield from lines[start : number + 1]
        shown_to = number + 1


def read(directory: int, name: str) -> list[str]:
    """Lines of a log, of a long one the last; empty if there is none.

    Args:
        directory: fd of the directory that it is in.
        name: of the file; it is not followed if it is a link.
    """
    try:
        with Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)) as file:
            size = os.fstat(file.fileno()).st_size
            data = os.pread(file.fileno(), TAIL_MAX, max(0, size - TAIL_MAX))
    except OSError:
        return []
    return data.decode(errors="replace").splitlines()


def details(directory: int, name: str) -> tuple[str, ...]:
    """What an error about a failed request tells of the log, at most LINES_MAX lines, the last ones."""
    return tuple(with_context(read(directory, name)))[-LINES_MAX:]
