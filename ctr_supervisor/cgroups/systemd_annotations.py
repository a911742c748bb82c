"""Unit properties that a configuration sets by `org.systemd.property.NAME` annotations.

Their values are in GVariant text format (GLib documentation, "GVariant Text Format"), in the part of it that runc
takes: numbers, strings, booleans, byte strings, arrays, dictionaries and variants, each with its type before it where
it is not the obvious one. There are no tuples.
"""

from ctr_common.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    # name, (D-Bus signature, value)
    Property = tuple[str, tuple[str, Any]]

PREFIX = "org.systemd.property."
NAME_MIN = 3

# Bits and signedness of the integer types; double is the only other number.
INTEGERS = {
    "y": (0, 0xFF),
    "n": (-(1 << 15), (1 << 15) - 1),
    "q": (0, 0xFFFF),
    "i": (-(1 << 31), (1 << 31) - 1),
    "u": (0, 0xFFFFFFFF),
    "x": (-(1 << 63), (1 << 63) - 1),
    "t": (0, 0xFFFFFFFFFFFFFFFF),
}
TYPE_NAMES = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
BASIC = "".join(TYPE_NAMES.values())
STRINGS = "sog"

MICROSECONDS = 1000000
DEPTH_MAX = 32  # D-Bus specification, "Valid Signatures"

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_TOKENS = (
    r"\s*(?:(?P<end>$)|(?P<punctuation>[\[\]{}<>:,])"
    r"|(?P<bytes>b(?:'(?:[^'\\]|\\[\s\S])*'|\"(?:[^\"\\]|\\[\s\S])*\"))"
    r"|(?P<string>'(?:[^'\\]|\\[\s\S])*'|\"(?:[^\"\\]|\\[\s\S])*\")"
    r"|(?P<number>[+-]?(?:0[xX][0-9A-Fa-f]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)(?![\w.]))"
    r"|(?P<type>@[a-z{}()]+|[a-z][a-z0-9]*(?!\w)))"
)


class Node:
    """One value as it was written, before its type is settled.

    Args:
        kind: "number", "string", "boolean", "bytes", "array", "dictionary" or "variant".
        content: text, or the nodes inside.
        signature: what was written before it, "" if nothing was.
    """

    __slots__ = ("content", "kind", "signature")

    def __init__(self, kind: str, content: "Any", signature: str) -> None:
        self.kind = kind
        self.content = content
        self.signature = signature


def properties(annotations: "dict[str, str]") -> "list[Property]":
    """The unit properties among the annotations of a configuration.

    Raises:
        CgroupError: a name or a value can't be one.
    """
    found = []
    for key, text in annotations.items():
        if not key.startswith(PREFIX):
            continue
        name = key[len(PREFIX) :]
        where = f'.annotations["{key}"]'
        if len(name) < NAME_MIN:
            raise CgroupError(f"annotation {key} name incorrect: too short", json_path=where)
        if not (name.isascii() and name.isalpha()):
            raise CgroupError(f"annotation {key} name incorrect: contains non-alphabetic character", json_path=where)
        try:
            value = parse(text)
            stem = name.removesuffix("Sec")
            # TimeoutStopSec and its like are TimeoutStopUSec on the bus; RestartUSec is what it is.
            if stem != name and stem[-1:].islower():
                name, value = f"{stem}USec", _microseconds(*value)
        except ValueError as error:
            raise CgroupError(f"annotation {key}={text} value parse error: {error}", json_path=where) from None
        found.append((name, value))
    return found


def _microseconds(signature: str, value: "Any") -> "tuple[str, int]":
    if signature not in INTEGERS and signature != "d":
        raise ValueError("not a number")
    scaled = int(value * MICROSECONDS)
    if not 0 <= scaled <= INTEGERS["t"][1]:
        raise ValueError(f"{value} seconds are out of range")
    return "t", scaled


def parse(text: str) -> "tuple[str, Any]":
    """A value in GVariant text format.

    Args:
        text: such as `'x'`, `uint64 5`, `true`, `['a', 'b']`, `@as []`.

    Returns:
        Its D-Bus signature, and the value: int, float, bool, str, bytes (for "ay"), list, dict, or for a variant
        such a pair again.

    Raises:
        ValueError: it is not one.
    """
    tokens = _tokens(text)
    node = _node(tokens, next(tokens), 0)
    kind, rest = next(tokens)
    if kind != "end":
        raise ValueError(f'unexpected "{rest}" after the value')
    signature = _infer(node)
    return signature, _build(node, signature)


def _tokens(text: str) -> "Iterator[tuple[str, str]]":
    import re

    pattern = re.compile(_TOKENS)
    position = 0
    while True:
        match = pattern.match(text, position)
        if match is None:
            raise ValueError(f'unexpected "{text[position:].strip()}"')
        position = match.end()
        kind = match.lastgroup or "end"
        yield kind, match[kind]


def _node(tokens: "Iterator[tuple[str, str]]", token: "tuple[str, str]", depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise ValueError(f"more than {DEPTH_MAX} values inside of each other")
    kind, text = token
    signature = ""
    if kind == "type" and text not in ("true", "false"):
        signature = text[1:] if text[0] == "@" else TYPE_NAMES.get(text, "")
        if not signature or _skip_type(signature, 0) != len(signature):
            raise ValueError(f'unknown type "{text}"')
        kind, text = next(tokens)
    if kind == "type" and text in ("true", "false"):
        return Node("boolean", text == "true", signature)
    if kind in ("number", "string", "bytes"):
        return Node(kind, text, signature)
    if text == "[":
        return Node("array", _sequence(tokens, "]", depth), signature)
    if text == "{":
        return Node("dictionary", _sequence(tokens, "}", depth), signature)
    if text == "<":
        inside = _node(tokens, next(tokens), depth + 1)
        if next(tokens)[1] != ">":
            raise ValueError('expected ">"')
        return Node("variant", inside, signature)
    raise ValueError("unexpected end of the value" if kind == "end" else f'unexpected "{text}"')


def _sequence(tokens: "Iterator[tuple[str, str]]", end: str, depth: int) -> "list[Any]":
    """The nodes up to a bracket; pairs of them if it is that of a dictionary."""
    found: list[Any] = []
    token = next(tokens)
    while token != ("punctuation", end):
        if found:
            if token != ("punctuation", ","):
                raise ValueError(f'expected "," or "{end}"')
            token = next(tokens)
        entry: Any = _node(tokens, token, depth + 1)
        if end == "}":
            if next(tokens)[1] != ":":
                raise ValueError('expected ":"')
            entry = (entry, _node(tokens, next(tokens), depth + 1))
        found.append(entry)
        token = next(tokens)
    return found


def _skip_type(signature: str, position: int, depth: int = 0) -> int:
    """Where the complete type at a position ends; -1 if there is none that has values here."""
    letter = signature[position : position + 1]
    if letter and letter in BASIC + "v":
        return position + 1
    if letter != "a" or depth >= DEPTH_MAX:
        return -1
    if signature[position + 1 : position + 2] != "{":
        return _skip_type(signature, position + 1, depth + 1)
    key = signature[position + 2 : position + 3]
    end = _skip_type(signature, position + 3, depth + 1)
    return end + 1 if key and key in BASIC and end > 0 and signature[end : end + 1] == "}" else -1


def _infer(node: Node) -> str:
    """The type of a node: the one that was written, else what its content says, else the usual one of its kind."""
    if node.signature:
        return node.signature
    if node.kind == "number":
        digits = node.content.lower()
        return "d" if not digits.lstrip("+-").startswith("0x") and ("." in digits or "e" in digits) else "i"
    if node.kind == "array":
        return "a" + _common(node.content)
    if node.kind == "dictionary":
        keys, values = ([entry[side] for entry in node.content] for side in (0, 1))
        return f"a{{{_common(keys)}{_common(values)}}}"
    return {"string": "s", "boolean": "b", "bytes": "ay", "variant": "v"}[node.kind]


def _common(nodes: "list[Node]") -> str:
    """The type of all elements: what one of them says counts for those that say nothing."""
    if not nodes:
        raise ValueError("the type of what is empty must be written before it")
    inferred = [_infer(node) for node in nodes]
    for node, signature in zip(nodes, inferred, strict=True):
        if node.signature:
            return signature
    return "d" if set(inferred) == {"i", "d"} else inferred[0]


def _build(node: Node, signature: str) -> "Any":
    """The value of a node as the type that was settled on."""
    if node.signature not in ("", signature):
        raise ValueError(f'value of type "{node.signature}" where "{signature}" is expected')
    content = node.content
    if node.kind == "number" and (signature in INTEGERS or signature == "d"):
        return _number(content, signature)
    if node.kind == "string" and signature in STRINGS:
        value = _unescape(content[1:-1])
        if signature == "g" and (len(value) > 255 or not _is_signature(value)):
            raise ValueError(f'"{value}" is not a signature')
        if signature == "o" and not _is_object_path(value):
            raise ValueError(f'"{value}" is not an object path')
        return value
    if node.kind == "boolean" and signature == "b":
        return content
    if node.kind == "bytes" and signature == "ay":
        return _byte_string(content[2:-1])
    if node.kind == "variant" and signature == "v":
        inside = _infer(content)
        return inside, _build(content, inside)
    if node.kind == "array" and signature.startswith("a") and not signature.startswith("a{"):
        built = [_build(element, signature[1:]) for element in content]
        return bytes(built) if signature == "ay" else built
    if node.kind == "dictionary" and signature.startswith("a{"):
        return {_build(key, signature[2]): _build(value, signature[3:-1]) for key, value in content}
    raise ValueError(f'{node.kind} where a value of type "{signature}" is expected')


def _number(text: str, signature: str) -> "int | float":
    if signature == "d":
        return float(int(text, 16)) if "x" in text.lower() else float(text)
    digits = text.lstrip("+-")
    # A leading 0 makes it octal, as in C and in GLib.
    octal = len(digits) > 1 and digits[0] == "0" and digits.isdigit()
    try:
        number = int(text, 8 if octal else 0)
    except ValueError:
        raise ValueError(f'{text} is not a number of type "{signature}"') from None
    low, high = INTEGERS[signature]
    if not low <= number <= high:
        raise ValueError(f'{text} is out of range for type "{signature}"')
    return number


def _unescape(text: str) -> str:
    parts = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\":
            char = text[position]
            position += 1
            if char in "uU":
                width = 4 if char == "u" else 8
                char = _character(text[position : position + width], width)
                position += width
            else:
                char = _ESCAPES.get(char, char)
        parts.append(char)
    value = "".join(parts)
    if "\0" in value:
        raise ValueError("NUL character in a string")
    return value


def _character(digits: str, width: int) -> str:
    try:
        if len(digits) != width or not digits.isalnum():
            raise ValueError
        char = chr(int(digits, 16))
        char.encode()
    except (ValueError, OverflowError):
        raise ValueError(f'bad escape "\\{"u" if width == 4 else "U"}{digits}"') from None
    return char


def _byte_string(text: str) -> bytes:
    """Octal escapes instead of Unicode ones, and the terminating NUL that GLib gives it."""
    found = bytearray()
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\":
            digits = text[position : position + 3]
            if len(digits) == 3 and all(digit in "01234567" for digit in digits):
                if int(digits, 8) > 0xFF:
                    raise ValueError(f'bad escape "\\{digits}"')
                found.append(int(digits, 8))
                position += 3
                continue
            char = _ESCAPES.get(text[position], text[position])
            position += 1
        found += char.encode()
    return bytes(found) + b"\0"


def _is_signature(text: str) -> bool:
    position = 0
    while position < len(text):
        position = _skip_type(text, position)
        if position < 0:
            return False
    return True


def _is_object_path(text: str) -> bool:
    return text == "/" or (
        text.startswith("/")
        and all(part.isascii() and part.replace("_", "a").isalnum() for part in text[1:].split("/"))
    )
