"""Prints the names of the packages that pyproject.toml asks for, one a line.

usage: requirements.py [EXTRA]   (no EXTRA: the run-time dependencies)
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
wanted = project["optional-dependencies"][sys.argv[1]] if len(sys.argv) > 1 else project["dependencies"]
print("\n".join(wanted))
