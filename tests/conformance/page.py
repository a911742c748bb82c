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
not what would be written now. A test that covers a property runs a container and fails when the property is ignored.
"""


def render(rows: Iterable[Row], tests: Mapping[str, list[str]]) -> str:
    """The text of the page.

    Args:
        rows: in their order.
        tests: names of the tests of a row.
    """
    lines = [INTRODUCTION]
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            lines += ["" if len(lines) > 1 else None, f"## {section}", "", "| what | tests |", "| --- | --- |"]  # type: ignore[list-item]
        covering = "<br>".join(_short(test) for test in tests.get(row.name, ())) or row.later
        lines.append(f"| `{row.name}` | {covering} |")
    return "\n".join(line for line in lines if line is not None) + "\n"


def _short(test: str) -> str:
    file, _, name = test.partition("::")
    return f"{file} {name.removeprefix('test_')}"
