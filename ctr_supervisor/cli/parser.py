"""Command-line flags with the rules of Go's flag package, as runc has them.

A flag is `-name` or `--name`, alike; its value is the next argument or stands after `=`. A boolean, and a flag whose
value is optional, takes a value only after `=`. `--` ends the flags, and so does the first argument that is none. Verbs
that do not pass arguments on to another command also take flags after their arguments: these are moved to the front
before parsing.
"""

from ctr_common.errors import UsageError
from ctr_common.log import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Value = bool | int | str | list[str] | list[int]

BOOL = "bool"
INT = "int"
STRING = "string"
STRINGS = "strings"
INTS = "ints"
DURATION = "duration"
# A text that may be left out.
OPTIONAL = "optional"

# Kinds whose value is never the next argument.
ALONE = (BOOL, OPTIONAL)

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

_BASES = {"0x": 16, "0X": 16, "0o": 8, "0O": 8, "0b": 2, "0B": 2}
_DIGITS = "0123456789abcdef"
INT64_MINIMUM = -(2**63)
INT64_MAXIMUM = 2**63 - 1

INVALID_SYNTAX = "invalid syntax"
OUT_OF_RANGE = "value out of range"


class Flag:
    """One flag of the program or of a verb.

    Args:
        name: long name.
        help_text: what it does, for the help.
        kind: BOOL, INT, STRING, OPTIONAL, DURATION (nanoseconds), or STRINGS and INTS, which may be repeated.
        short: one letter, "" for none.
        default: the value without the flag; None for the empty one of its kind.
    """

    __slots__ = ("default", "help_text", "kind", "name", "short")

    def __init__(
        self,
        name: str,
        help_text: str,
        kind: str = STRING,
        short: str = "",
        default: "str | int | None" = None,
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.kind = kind
        self.short = short
        self.default = default

    def names(self) -> "tuple[str, ...]":
        """Its names, long one first."""
        return (self.name, self.short) if self.short else (self.name,)

    def without(self) -> "Value":
        """The value when the flag is not given."""
        if self.kind == BOOL:
            return False
        if self.kind in (INT, DURATION):
            return self.default or 0
        if self.kind in (STRING, OPTIONAL):
            return self.default or ""
        return []


HELP = Flag("help", "show help", BOOL, "h")


class Arguments:
    """What was on a command line.

    Args:
        values: value of each flag that was given.
        rest: the arguments that are no flags.
        flags: the flags that there are.
    """

    __slots__ = ("_flags", "_values", "rest")

    def __init__(self, values: "dict[str, Value]", rest: "list[str]", flags: "Sequence[Flag]") -> None:
        self._values = values
        self._flags = flags
        self.rest = rest

    def has(self, name: str) -> bool:
        """Whether the flag was given."""
        return name in self._values

    def _get(self, name: str) -> "Value":
        if name in self._values:
            return self._values[name]
        for flag in self._flags:
            if flag.name == name:
                return flag.without()
        raise KeyError(name)

    def boolean(self, name: str) -> bool:
        """Value of a BOOL flag."""
        return bool(self._get(name))

    def integer(self, name: str) -> int:
        """Value of an INT or DURATION flag."""
        value = self._get(name)
        assert isinstance(value, int)
        return value

    def string(self, name: str) -> str:
        """Value of a STRING or OPTIONAL flag."""
        value = self._get(name)
        assert isinstance(value, str)
        return value

    def strings(self, name: str) -> "list[str]":
        """Values of a STRINGS flag, in their order."""
        value = self._get(name)
        assert isinstance(value, list)
        return [item for item in value if isinstance(item, str)]

    def integers(self, name: str) -> "list[int]":
        """Values of an INTS flag, in their order."""
        value = self._get(name)
        assert isinstance(value, list)
        return [item for item in value if isinstance(item, int)]


def parse(arguments: "Sequence[str]", flags: "Sequence[Flag]", *, flags_first: bool = True) -> Arguments:
    """Takes a command line apart.

    Args:
        arguments: what stands after the program or the verb.
        flags: the flags that there are; HELP is always one of them.
        flags_first: what follows the first argument that is no flag is all arguments.

    Raises:
        UsageError: in the words of Go's flag package.
    """
    flags = (*flags, HELP)
    by_name = _by_name(flags)
    left = list(arguments) if flags_first else _flags_to_front(arguments, by_name)
    values: dict[str, Value] = {}
    given: set[str] = set()
    position = 0
    while position < len(left):
        argument = left[position]
        if len(argument) < 2 or argument[0] != "-":
            break
        position += 1
        if argument == "--":
            break
        body = argument[2:] if argument.startswith("--") else argument[1:]
        if not body or body[0] in "-=":
            raise UsageError(f"bad flag syntax: {argument}")
        name, equals, text = body.partition("=")
        flag = by_name.get(name)
        if flag is None:
            raise UsageError(f"flag provided but not defined: -{name}")
        if flag.kind not in ALONE and not equals:
            if position == len(left):
                raise UsageError(f"flag needs an argument: -{name}")
            text = left[position]
            position += 1
        elif not equals and flag.kind == BOOL:
            text = "true"
        given.add(name)
        _store(values, flag, name, text)
    for flag in flags:
        if flag.short in given and flag.name in given:
            raise UsageError(f"Cannot use two forms of the same flag: {flag.short} {flag.name}")
    return Arguments(values, left[position:], flags)


# By the flags that a command line is parsed with: few in a command, a handful in a service.
_tables: "dict[tuple[Flag, ...], dict[str, Flag]]" = {}


def _by_name(flags: "tuple[Flag, ...]") -> "dict[str, Flag]":
    found = _tables.get(flags)
    if found is None:
        found = _tables[flags] = {name: flag for flag in flags for name in flag.names()}
    return found


def _flags_to_front(arguments: "Sequence[str]", by_name: "dict[str, Flag]") -> "list[str]":
    """Flags before arguments, each with its value.

    Unlike in runc, a boolean leaves the next argument where it is: `kill id --all KILL` there means container "KILL".
    """
    front: list[str] = []
    rest: list[str] = []
    may_be_value = False
    for position, argument in enumerate(arguments):
        is_flag = _is_flag(argument, by_name)
        if may_be_value and not is_flag:
            may_be_value = False
            front.append(argument)
        elif argument == "--":
            rest = ["--", *rest, *arguments[position + 1 :]]
            break
        elif is_flag:
            front.append(argument)
            may_be_value = "=" not in argument and by_name[_name(argument)].kind not in ALONE
        else:
            rest.append(argument)
    return front + rest


def _is_flag(argument: str, by_name: "dict[str, Flag]") -> bool:
    return len(argument) > 1 and argument[0] == "-" and _name(argument) in by_name


def _name(argument: str) -> str:
    """The name in a flag: `-name`, `--name`, with or without a value after `=`."""
    body = argument[2:] if argument.startswith("--") else argument[1:]
    return body.partition("=")[0]


def _store(values: "dict[str, Value]", flag: Flag, name: str, text: str) -> None:
    if flag.kind == BOOL:
        if text not in _TRUE and text not in _FALSE:
            raise UsageError(f"invalid boolean value {quote(text)} for -{name}: parse error")
        values[flag.name] = text in _TRUE
    elif flag.kind in (STRING, OPTIONAL):
        values[flag.name] = text
    elif flag.kind == INT:
        values[flag.name] = _number(text, name, parse_int_any_base, _flag_complaint)
    elif flag.kind == DURATION:
        from ctr_supervisor.cli.quantities import parse_duration

        values[flag.name] = _number(text, name, parse_duration, _flag_complaint)
    else:
        known = values.setdefault(flag.name, [])
        assert isinstance(known, list)
        item = text if flag.kind == STRINGS else _number(text, name, parse_int, _strconv_complaint)
        known.append(item)  # type: ignore[arg-type] # strings or integers, by the flag's kind


def _number(text: str, name: str, convert: "Callable[[str], int]", complaint: "Callable[[str, str], str]") -> int:
    try:
        return convert(text)
    except ValueError as error:
        raise UsageError(f"invalid value {quote(text)} for flag -{name}: {complaint(text, str(error))}") from None


def _flag_complaint(_: str, reason: str) -> str:
    return "parse error" if reason == INVALID_SYNTAX else reason


def _strconv_complaint(text: str, reason: str) -> str:
    return f"strconv.ParseInt: parsing {quote(text)}: {reason}"


def parse_bool(text: str) -> bool:
    """A truth value as Go's strconv.ParseBool takes it.

    Raises:
        ValueError: it is none of its spellings.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(INVALID_SYNTAX)


def parse_int(text: str) -> int:
    """A decimal number of 64 bits as Go's strconv.Atoi takes it: a sign, ASCII digits, nothing else.

    Raises:
        ValueError: its text is INVALID_SYNTAX or OUT_OF_RANGE.
    """
    return _parse(text, 10, underscores=False)


def parse_int_any_base(text: str) -> int:
    """A number of 64 bits as Go's flag package takes it: 10, 0x1f, 0o17, 017, 0b11, 1_000.

    Raises:
        ValueError: its text is INVALID_SYNTAX or OUT_OF_RANGE.
    """
    sign = text[:1] if text[:1] in ("+", "-") else ""
    digits = text.removeprefix(sign)
    base = _BASES.get(digits[:2])
    if base is not None:
        # Go lets an underscore stand between prefix and digits.
        return _parse(sign + digits[2:].removeprefix("_"), base, underscores=True)
    if len(digits) > 1 and digits[0] == "0":
        return _parse(sign + digits[1:].removeprefix("_"), 8, underscores=True)
    return _parse(text, 10, underscores=True)


def _parse(text: str, base: int, *, underscores: bool) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if underscores:
        if digits.startswith("_") or digits.endswith("_") or "__" in digits:
            raise ValueError(INVALID_SYNTAX)
        digits = digits.replace("_", "")
    if not digits or not set(digits.lower()) <= set(_DIGITS[:base]):
        raise ValueError(INVALID_SYNTAX)
    # Leading zeros apart, nothing this long fits; int() refuses very long decimals with another message.
    if len(digits.lstrip("0")) > 64:
        raise ValueError(OUT_OF_RANGE)
    number = int(digits, base)
    if text[0] == "-":
        number = -number
    if not INT64_MINIMUM <= number <= INT64_MAXIMUM:
        raise ValueError(OUT_OF_RANGE)
    return number
