"""Finds out which tests cover which rows: as a pytest plugin it writes down the `covers` marks of all tests.

A mark may name parameters of its test: `covers("mount option {option}")` stands for a row for each parameter set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runtime import ROOT

OUTPUT = "CTR_TEST_COVERS"


def covered_rows(item: pytest.Item) -> list[str]:
    """The rows that a test says to cover."""
    callspec = getattr(item, "callspec", None)
    values = callspec.params if callspec else {}
    return [row.format_map(values) for mark in item.iter_markers("covers") for row in mark.args]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Writes the rows and their tests to the file that the environment names."""
    path = os.environ.get(OUTPUT)
    if not path:
        return
    found: dict[str, set[str]] = {}
    for item in session.items:
        file = item.path.relative_to(ROOT / "tests")
        name = getattr(item, "originalname", item.name)
        for row in covered_rows(item):
            found.setdefault(row, set()).add(f"{file}::{name}")
    Path(path).write_text(json.dumps({row: sorted(tests) for row, tests in found.items()}))


def coverage(directory: Path) -> dict[str, list[str]]:
    """The tests of each row, from a collection of all tests in a process of its own.

    Args:
        directory: for a temporary file.
    """
    output = directory / "covers.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "tests.conformance.collect", "tests"],
        cwd=ROOT,
        env={**os.environ, OUTPUT: str(output), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    found: dict[str, list[str]] = json.loads(output.read_text())
    return found
