"""Stands before an OCI runtime and takes from its input the capabilities that the host's own root lacks.

Docker asks for every capability that the kernel knows when it runs something privileged. Inside a virtual machine or a
container root itself may lack some, such as CAP_SYS_RESOURCE, and then the kernel refuses, whatever the runtime.

usage: less_capable.py RUNTIME ARGUMENTS OF THE RUNTIME…
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

# linux/capability.h
LACKING_NAMES = {24: "CAP_SYS_RESOURCE", 21: "CAP_SYS_ADMIN", 25: "CAP_SYS_TIME", 16: "CAP_SYS_MODULE"}


def bounding() -> int:
    """The bounding set of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return int(line.split()[1], 16)


def reduce(process: dict[str, Any], lacking: set[str]) -> None:
    """Removes the capabilities from a `process` object.

    Args:
        process: changed in place.
        lacking: names.
    """
    for kind, names in (process.get("capabilities") or {}).items():
        process["capabilities"][kind] = [name for name in names or [] if name not in lacking]


def main() -> None:
    """Rewrites config.json or process.json, then becomes the runtime."""
    runtime, args = sys.argv[1], sys.argv[2:]
    lacking = {name for number, name in LACKING_NAMES.items() if not bounding() >> number & 1}
    for flag, value in itertools.pairwise(args):
        if flag in ("--bundle", "-b") and "create" in args:
            path = Path(value, "config.json")
            data = json.loads(path.read_text())
            reduce(data["process"], lacking)
            path.write_text(json.dumps(data))
        elif flag in ("--process", "-p") and "exec" in args:
            path = Path(value)
            data = json.loads(path.read_text())
            reduce(data, lacking)
            path.write_text(json.dumps(data))
    os.execv(runtime, [runtime, *args])


if __name__ == "__main__":
    main()
