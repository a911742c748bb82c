"""ctr_common/fastjson.py: exact JSON, helpful errors, Go's escapes, few imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctr_common.fastjson import JSONError, dumps, loads

REPOSITORY = Path(__file__).parents[2]

SAMPLES: list[Any] = [
    {},
    [],
    {"a": [1, -2, 0.5, True, False, None, 'é\n\t"\\\x01/'], "b": {"c": {"d": []}}},
    [[[]], [{}], {"": ""}],
    "text",
    10**40,
    "😀",
]


@pytest.mark.parametrize("value", SAMPLES, ids=str)
@pytest.mark.parametrize("indent", [None, "\t", "  "])
def test_what_dumps_writes_is_what_loads_reads(value: Any, indent: str | None) -> None:
    assert loads(dumps(value, indent).encode()) == value


@pytest.mark.parametrize("value", SAMPLES, ids=str)
def test_text_is_the_same_as_that_of_json(value: Any) -> None:
    assert dumps(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert dumps(value, "\t") == json.dumps(value, indent="\t", ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        (b"", 1, 1, "expected a value, found the end"),
        (b" \n ", 2, 2, "expected a value, found the end"),
        (b"{]", 1, 2, "expected a property name in double quotes, found ']'"),
        (b"{'a': 1}", 1, 2, "expected a property name in double quotes"),
        (b'{"a" 1}', 1, 6, "expected a colon, found '1'"),
        (b'{"a": 1 "b": 2}', 1, 9, "expected a comma or the closing bracket"),
        (b"[1, 2\n 3]", 2, 2, "expected a comma or the closing bracket, found '3'"),
        (b"[1,\n]", 1, 3, "a comma before the closing bracket"),
        (b'{"a": 1,}', 1, 8, "a comma before the closing bracket"),
        (b'{"a": 1} x', 1, 10, "expected the end of the text, found 'x'"),
        (b"01", 1, 2, "expected the end of the text"),
        (b'["abc', 1, 2, "does not end"),
        (b'["a\tb"]', 1, 4, "control character"),
        (b'["\\x"]', 1, 3, "an escape that JSON does not have"),
        (b'["\\u12"]', 1, 4, "four hexadecimal digits"),
        (b'["NaN", NaN]', 1, 9, "NaN is not a JSON number"),
        (b"[\n-Infinity]", 2, 1, "-Infinity is not a JSON number"),
        (b'{\n"\xc3\xa9": "\xff"}', 2, 7, "expected UTF-8, found the byte 0xff"),
        (b"\xff\xfe{\x00}\x00", 1, 1, "UTF-16"),
        (b'["\\ud800"]', 1, 3, "half of a surrogate pair"),
        (b'["\\udc00\\ud800"]', 1, 3, "half of a surrogate pair"),
        (b'["\\ud800\\ud800\\udc00"]', 1, 3, "half of a surrogate pair"),
    ],
    ids=str,
)
def test_an_error_names_the_place_and_what_was_expected(text: bytes, line: int, column: int, words: str) -> None:
    with pytest.raises(JSONError, match=words) as caught:
        loads(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_a_json_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="line 1 column 2"):
        loads("[")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_hundred_thousand_brackets_are_an_error_and_no_crash(opening: bytes) -> None:
    with pytest.raises(JSONError, match="nested too deeply"):
        loads(opening * 100_000)


@pytest.mark.parametrize("indent", [None, " "])
def test_a_deep_value_is_an_error_and_no_crash(indent: str | None) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(JSONError, match="nested too deeply"):
        dumps(value, indent)


def test_a_number_beyond_a_double_is_refused() -> None:
    with pytest.raises(JSONError, match="1e999 is too large"):
        loads(b"[1e999]")


def test_an_integer_of_four_thousand_digits_is_exact() -> None:
    assert loads(b"9" * 4000) == 10**4000 - 1


def test_an_integer_beyond_what_python_converts_is_refused() -> None:
    with pytest.raises(JSONError, match="too many digits"):
        loads(b"9" * 5000)


def test_a_byte_order_mark_is_skipped() -> None:
    assert loads(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_the_last_of_two_equal_keys_counts() -> None:
    assert loads(b'{"a": 1, "a": 2}') == {"a": 2}


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    assert loads(b'"\\ud83d\\ude00 \\\\ud800"') == "😀 \\ud800"


def test_go_escapes_what_html_would_read() -> None:
    assert dumps({"<a>": "&\u2028\u2029é"}, go=True) == '{"\\u003ca\\u003e":"\\u0026\\u2028\\u2029é"}'


def test_keys_keep_their_order() -> None:
    assert dumps({"b": 1, "a": 2}) == '{"b":1,"a":2}'


def test_a_lone_surrogate_is_written_as_the_replacement_character() -> None:
    assert dumps(["\udc80"]) == '["\ufffd"]'


@pytest.mark.parametrize("indent", [None, "  "])
@pytest.mark.parametrize("value", [float("nan"), {1, 2}, {(1,): 2}, object()], ids=str)
def test_what_has_no_place_in_json_is_refused(value: object, indent: str | None) -> None:
    with pytest.raises(JSONError):
        dumps(value, indent)


@pytest.mark.parametrize("indent", [None, "  "])
def test_a_circle_is_refused(indent: str | None) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(JSONError, match="circular reference"):
        dumps({"a": value}, indent)


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


def test_good_json_needs_no_import_of_json() -> None:
    code = """
from ctr_common import fastjson
fastjson.loads(fastjson.dumps({"a": [1, "\\u00e9"]}, "  ", go=True))
print(sorted({"json", "re", "enum"} & set(sys.modules)))
"""
    assert run(code) == "[]\n"


def test_errors_are_the_same_whether_or_not_json_was_imported() -> None:
    code = """
{0}
from ctr_common import fastjson
for text in (b'{{]', b'["', b'[1,]', b'["\\\\x"]', b'[', b'x'):
    try:
        fastjson.loads(text)
    except fastjson.JSONError as error:
        print(error)
"""
    assert run(code.format("")) == run(code.format("import json.decoder"))


def test_it_works_without_the_c_accelerator() -> None:
    code = """
sys.modules["_json"] = None
from ctr_common import fastjson
print(fastjson.loads(fastjson.dumps({"a": [1, None, "<"]}, go=True)))
for text in (b"[NaN]", b"{]", b"[" * 100000):
    try:
        fastjson.loads(text)
    except fastjson.JSONError as error:
        print(error)
"""
    assert run(code).splitlines() == [
        "{'a': [1, None, '<']}",
        "line 1 column 2: NaN is not a JSON number",
        "line 1 column 2: expected a property name in double quotes, found ']'",
        "nested too deeply",
    ]
