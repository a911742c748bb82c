"""docs/DEBUGGING.md does what it says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/DEBUGGING.md"
PROMISE = "#> "
MARK = "@@ before line"

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]


def commands() -> list[str]:
    """Lines of all shell blocks, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_prints_what_the_document_says(directory: Path) -> None:
    lines = commands()
    assert any(line.startswith(PROMISE) for line in lines)
    script = ["set -e"]
    for number, line in enumerate(lines):
        if not line.startswith(PROMISE):
            script += [f"echo '{MARK} {number}'", line]
    environment = {**os.environ, "ROOT": str(ROOT), "PATH": f"{ROOT}/bin:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        check=False,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout
    printed: dict[int, str] = {}
    for part in run.stdout.split(MARK)[1:]:
        number_text, _, text = part.partition("\n")
        printed[int(number_text)] = text
    last = -1
    for number, line in enumerate(lines):
        if line.startswith(PROMISE):
            assert line.removeprefix(PROMISE) in printed[last], (
                f"line {line!r} after {lines[last]!r}: {printed[last]!r}"
            )
        else:
            last = number
