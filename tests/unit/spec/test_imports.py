"""ctr_common/spec: what a container start imports of it stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from ctr_common.spec import default, load, mount_options, users, validate
from ctr_common import fastjson
config = default.default_config()
load.parse(fastjson.dumps(config).encode(), load.schema.CONFIG, "config.json")
slow = {"json", "re", "enum", "typing", "dataclasses", "collections", "functools", "ctypes", "socket", "signal"}
print(sorted(slow & set(sys.modules)))
"""


def test_reading_and_checking_a_configuration_imports_nothing_slow() -> None:
    argv = [sys.executable, "-I", "-S", "-c", CODE, str(Path(__file__).parents[3])]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n"
