"""Standard output of the verbs."""

from ctr_common import fastjson
from ctr_common.errors import CtrError
from ctr_common.log import encode, write_all

STDOUT = 1


class ReaderGone(Exception):
    """Raised by `write`: nobody reads standard output any more; there is nobody to tell."""


def write(text: str) -> None:
    """Writes text to standard output at once.

    Args:
        text: with its newlines.

    Raises:
        ReaderGone: nobody reads any more.
        CtrError: it could not be written.
    """
    try:
        write_all(STDOUT, encode(text))
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise CtrError("write /dev/stdout", errno=error.errno or 0) from None


def as_json(value: object, indent: "str | None" = None, end: str = "\n") -> str:
    """A value as Go's encoding/json would write it; arguments as of `write_json`."""
    return fastjson.dumps(value, indent, go=True) + end


def write_json(value: object, indent: "str | None" = None, end: str = "\n") -> None:
    """Writes a value to standard output as Go's encoding/json would.

    Args:
        value: what to write.
        indent: one level of indentation; None for all on one line.
        end: what follows.
    """
    write(as_json(value, indent, end))
