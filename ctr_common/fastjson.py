"""JSON as RFC 8259 has it, through the C scanner and encoder of `_json`, without the cost of importing `json`.

`import json` takes a few milliseconds, most of them for `re`; that is a noticeable part of a container start. What
`_json` lacks (a decoder context, the search for the place of an error, indentation) is here.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"
_INFINITY = float("inf")


class JSONError(ValueError):
    """Raised by `loads` and `dumps`: the text is not JSON, or the object cannot be written as JSON.

    Args:
        message: what was expected and what was found, without the place.
        line, column: the place, both counted from 1; 0 when there is none.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line} column {column}: {message}" if line else message)
        self.message = message
        self.line = line
        self.column = column


class _Constant(Exception):
    """NaN or Infinity, which json takes although they are not JSON."""


def _refuse_constant(name: str) -> float:
    raise _Constant(name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (_INFINITY, -_INFINITY):
        raise ValueError(f"the number {text[:32]} is too large")
    return value


class _Context:
    """What `_json.make_scanner` wants to know."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


def _refuse_object(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no place in JSON")


try:
    from _json import encode_basestring, make_encoder, make_scanner

    _scan: "Callable[[str, int], tuple[Any, int]]" = make_scanner(_Context)  # type: ignore[arg-type]  # any context

    def _encode(value: object) -> str:
        # The markers are the encoder's memory of the containers that it is in, so each call has its own.
        encoder = make_encoder({}, _refuse_object, encode_basestring, None, ":", ",", False, False, False)
        return "".join(encoder(value, 0))

except ImportError:  # an interpreter without the accelerator
    import json

    _decoder: "Any" = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
    _scan = _decoder.scan_once

    def _encode(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_refuse_object)


def loads(data: "bytes | bytearray | memoryview | str") -> "Any":
    """The value of a JSON text.

    Args:
        data: the text; bytes are UTF-8, a byte order mark before it is skipped.

    Returns:
        dict, list, str, int, float, bool or None. Of a key that stands twice in an object, the last value counts.

    Raises:
        JSONError: it is not JSON, is nested too deeply, or has a string that is not Unicode (a lone surrogate).
    """
    text = data if isinstance(data, str) else _decode(bytes(data))
    start = 0
    if text[:1] in _WHITESPACE:
        start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        try:
            value, end = _scan(text, start)
        except SystemError:
            # Before 3.12 the scanner takes its exception from json.decoder if that is loaded, and else sets none.
            import json.decoder  # noqa: F401

            value, end = _scan(text, start)
    except StopIteration as stop:
        raise _syntax_error(text, int(stop.value), "expected a value") from None
    except _Constant as constant:
        raise _constant_error(text, str(constant)) from None
    except RecursionError:
        raise JSONError("nested too deeply") from None
    except ValueError as error:
        raise _scanner_error(text, error) from None
    if end != len(text):
        rest = text[end:].lstrip(_WHITESPACE)
        if rest:
            raise _syntax_error(text, len(text) - len(rest), "expected the end of the text")
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(text)
    return value


def dumps(value: object, indent: "str | None" = None, *, go: bool = False) -> str:
    """JSON text of a value, keys in the order that they have.

    Args:
        value: dicts, lists, tuples, str, int, float, bool, None.
        indent: None for the compact form, else the text that indents one level.
        go: escape as Go's encoding/json does (`<`, `>`, `&`, U+2028, U+2029), because runc's output is read by
            programs that compare it.

    Returns:
        text that encodes as UTF-8: as in Go, a lone surrogate becomes U+FFFD.

    Raises:
        JSONError: something in it has no place in JSON (NaN, a set, a circle), or it is nested too deeply.
    """
    try:
        text = _encode(value) if indent is None else _indented(value, indent, "\n", ())
    except RecursionError:
        raise JSONError("nested too deeply") from None
    except (TypeError, ValueError) as error:
        message = str(error).partition(":")[0]
        raise JSONError(message[:1].lower() + message[1:]) from None
    if go:
        text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    if text.isascii():
        return text
    if go:
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def _indented(value: object, indent: str, newline: str, parents: "tuple[int, ...]") -> str:
    if isinstance(value, dict):
        opening, closing = "{", "}"
    elif isinstance(value, (list, tuple)):
        opening, closing = "[", "]"
    else:
        return _encode(value)
    if not value:
        return opening + closing
    if id(value) in parents:
        raise ValueError("circular reference")
    parents = (*parents, id(value))
    inner = newline + indent
    if isinstance(value, dict):
        items = [f"{_key(key)}: {_indented(item, indent, inner, parents)}" for key, item in value.items()]
    else:
        items = [_indented(item, indent, inner, parents) for item in value]
    return f"{opening}{inner}{(',' + inner).join(items)}{newline}{closing}"


def _key(key: object) -> str:
    if isinstance(key, str):
        return _encode(key)
    if key is None or isinstance(key, (int, float)):
        return _encode(_encode(key))
    raise TypeError(f"a key must be a string, not {type(key).__name__}")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig" if data[:3] == b"\xef\xbb\xbf" else "utf-8")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise JSONError("expected UTF-8, found UTF-16", 1, 1) from None
        line = data.count(b"\n", 0, error.start) + 1
        before = data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8-sig")
        message = f"expected UTF-8, found the byte 0x{data[error.start]:02x}"
        raise JSONError(message, line, len(before) + 1) from None


def _syntax_error(text: str, position: int, message: str) -> JSONError:
    """The error for a place; what stands there becomes part of its message."""
    position = min(position, len(text))
    before = text[:position].rstrip(_WHITESPACE)
    if text[position : position + 1] in ("}", "]") and before.endswith(","):
        position = len(before) - 1
        message = "a comma before the closing bracket"
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    found = text[position : position + 1]
    if not found:
        message += ", found the end of the text"
    elif message.startswith("expected"):
        message += f", found {found!r}"
    return JSONError(message, line, column)


# json's wording, in the versions of Python that there are, in the one of this module.
_WORDING = {
    "Expecting property name enclosed in double quotes": "expected a property name in double quotes",
    "Expecting ':' delimiter": "expected a colon",
    "Expecting ',' delimiter": "expected a comma or the closing bracket",
    "Expecting value": "expected a value",
    "Unterminated string starting at": "a string that starts here does not end",
    "Invalid \\escape": "an escape that JSON does not have",
    "Invalid \\uXXXX escape": "an escape that needs four hexadecimal digits",
}


def _scanner_error(text: str, error: ValueError) -> JSONError:
    position = getattr(error, "pos", None)
    if position is None:
        # Python refuses to convert very long integers (CVE-2020-10735), and _finite numbers beyond a double.
        message = str(error)
        return JSONError("a number has too many digits" if message.startswith("Exceeds") else message)
    message = str(getattr(error, "msg", error)).partition(": ")[0]
    if message.startswith("Illegal trailing comma"):
        message = "a comma before the closing bracket"
    elif message.startswith("Invalid control character"):
        message = "a control character in a string; it must be escaped"
    return _syntax_error(text, position, _WORDING.get(message, message))


def _constant_error(text: str, name: str) -> JSONError:
    import re

    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|(NaN|-?Infinity)', text):
        if match[1]:
            return _syntax_error(text, match.start(), f"{name} is not a JSON number")
    return JSONError(f"{name} is not a JSON number")


def _refuse_lone_surrogates(text: str) -> None:
    """Refuses half of a surrogate pair: encoded with surrogateescape it would become a byte that no text has."""
    import re

    high = None
    for match in re.finditer(r"\\(?:u([0-9a-fA-F]{4})|.)", text):
        code = int(match[1] or "0", 16)
        if high is not None:
            if 0xDC00 <= code < 0xE000 and match.start() == high.end():
                high = None
                continue
            raise _syntax_error(text, high.start(), "half of a surrogate pair")
        if 0xDC00 <= code < 0xE000:
            raise _syntax_error(text, match.start(), "half of a surrogate pair")
        if 0xD800 <= code < 0xDC00:
            high = match
    if high is not None:
        raise _syntax_error(text, high.start(), "half of a surrogate pair")
