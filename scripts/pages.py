#!/usr/bin/env python3
"""Writes what follows from the command line: the shell completions, and that part of docs/man/ctrun.1.

Run it with the interpreter that runs the tests after a verb or a flag has changed: `.venv/bin/python scripts/pages.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts import completion, man_page

ROOT = Path(__file__).parents[1]


def texts() -> dict[Path, str]:
    """The files, as they would be written now."""
    page = ROOT / "docs/man/ctrun.1"
    return {
        page: man_page.render(page.read_text()),
        ROOT / "completions/ctrun.bash": completion.bash(),
        ROOT / "completions/_ctrun": completion.zsh(),
        ROOT / "completions/ctrun.fish": completion.fish(),
    }


def main() -> int:
    """Writes the files; returns the exit status."""
    for path, text in texts().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
