"""Sizes and durations as the command lines of the field take them."""

from ctr_supervisor.cli.parser import INT64_MAXIMUM, INVALID_SYNTAX

SECOND = 1_000_000_000

# Go's time.ParseDuration, in nanoseconds.
DURATION_UNITS = {
    "ns": 1,
    "us": 1000,
    "\u00b5s": 1000,  # micro sign
    "\u03bcs": 1000,  # Greek mu
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_DIGITS = "0123456789"


def parse_duration(text: str) -> int:
    """A duration as Go takes it: "5s", "1m30s", "1.5h", "-3ms", "0".

    Returns:
        nanoseconds; parts of one are cut off.

    Raises:
        ValueError: it is none, or one of more than 292 years.
    """
    left = text[1:] if text[:1] in ("+", "-") else text
    if left == "0":
        return 0
    if not left:
        raise ValueError(INVALID_SYNTAX)
    total = 0
    while left:
        whole, left = _digits(left)
        fraction = ""
        if left[:1] == ".":
            fraction, left = _digits(left[1:])
        unit, left = _until_number(left)
        if not (whole or fraction) or unit not in DURATION_UNITS or len(whole) > 20:
            raise ValueError(INVALID_SYNTAX)
        scale = DURATION_UNITS[unit]
        # Eighteen digits are all that count.
        fraction = fraction[:18]
        total += int(whole or "0") * scale + int(fraction or "0") * scale // 10 ** len(fraction)
    if total > INT64_MAXIMUM:
        raise ValueError(INVALID_SYNTAX)
    return -total if text[0] == "-" else total


def _digits(text: str) -> "tuple[str, str]":
    rest = text.lstrip(_DIGITS)
    return text[: len(text) - len(rest)], rest


def _until_number(text: str) -> "tuple[str, str]":
    length = 0
    while length < len(text) and text[length] not in _DIGITS + ".":
        length += 1
    return text[:length], text[length:]


def parse_size(text: str) -> int:
    """A size as Docker's go-units takes it: "64m", "1.5 GiB", "4096", "10kb"; powers of 1024, any case.

    Returns:
        bytes; parts of one are cut off.

    Raises:
        ValueError: it is none.
    """
    complaint = f"invalid size: '{text}'"
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    suffix = text[len(number) :].lower()
    number = number.removesuffix(" ")
    unit = suffix.removesuffix("b")
    if unit.endswith("i"):
        unit = unit.removesuffix("i") if len(suffix) == 3 else complaint
    if unit not in SIZE_UNITS or not number or not set(number) <= set("0123456789.eE+"):
        raise ValueError(complaint)
    try:
        size = int(float(number) * SIZE_UNITS[unit])
    except (ValueError, OverflowError):
        raise ValueError(complaint) from None
    if size > INT64_MAXIMUM:
        raise ValueError(complaint)
    return size
