#!/usr/bin/env python3
"""Writes docs/CONFORMANCE.md from the schema, the command line and the marks of the tests.

Run with the interpreter that runs the tests: `.venv/bin/python scripts/conformance.py`. With `--missing` it prints the
rows without a test instead.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance import collect, page, rows


def main() -> int:
    """Writes the page, or lists what has no test; returns the exit status."""
    with tempfile.TemporaryDirectory() as directory:
        tests = collect.coverage(Path(directory))
    everything = rows.all_rows()
    if sys.argv[1:] == ["--missing"]:
        missing = [row.name for row in everything if not row.later and row.name not in tests]
        print("\n".join(missing))
        return 1 if missing else 0
    rows.page().write_text(page.render(everything, tests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
