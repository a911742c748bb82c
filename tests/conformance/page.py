"""docs/CONFORMANCE.md: the rows with their tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.conformance.rows import Row

INTRODUCTION = """\
# Conformance

What ctrun conforms to, and the tests that hold it: every property of config.json in the schema of runtime-spec 1.3
(common and Linux parts) with the values that it enumerates, every mount option of the specification's table, every way
to have a namespace, and every flag of every verb of runc 1.1 to 1.5.

`scripts/conformance.py` writes this page from the marks of the tests (`@pytest.mark.covers`), and
`tests/conformance` fails when a row has no test, when a mark names a row that does not exist, and when this page is
not what would be written now. A test that covers a property runs a container, looks from inside or at /proc, and fails
when the property is ignored. Where a kernel cannot have a thing, the test holds that it is refused with its place.
"""


def render(rows: Iterable[Row], tests: Mapping[str, list[str]]) -> str:
    """The text of the page.

    Args:
        rows: in their order.
        tests: names of the tests of a row.
    """
    lines = [INTRODUCTION.rstrip("\n")]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += ["", f"## {section}", "", "| what | tests |", "| --- | --- |"]
        lines.append(f"| `{row.name}` | {_told(tests.get(row.name, ())) or row.later} |")
    return "\n".join(lines) + "\n"


def _told(tests: Iterable[str]) -> str:
    files: dict[str, list[str]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file, []).append(name.removeprefix("test_"))
    return "; ".join(f"{file}: {', '.join(names)}" for file, names in files.items())
