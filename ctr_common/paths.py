"""Where the parts of ctrun are, in each of its layouts.

A checkout and `make install` look the same: ROOT/ctr_common beside ROOT/bin/ctr-init. In a wheel the packages are in
site-packages and ctr-init lies in the package ctr_init, because site-packages has no bin/.
"""

import os
import sys

ROOT = __file__.rsplit("/", 2)[0]


def init_binary() -> str:
    """Absolute path of the ctr-init executable that belongs to this Python code.

    Returns:
        a path that exists, or else the path in a checkout, so that opening it gives an error that names it.
    """
    beside = f"{ROOT}/bin/ctr-init"
    packaged = f"{ROOT}/ctr_init/ctr-init"
    if not os.path.exists(beside) and os.path.exists(packaged):
        return packaged
    return beside


def search_path() -> list[str]:
    """Directories to append to the sys.path of another Python program of ours, started with -I and -S."""
    return [entry for entry in sys.path if entry == ROOT or entry.endswith(("/site-packages", "/dist-packages"))]
