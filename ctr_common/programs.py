"""Starts another Python program of ours, with the interpreter of this one.

For what a fork would do in a process that is alone in its memory: beside other threads a fork's child may not run
Python, since a lock that another thread held at that moment stays locked in it for ever (fork(2), "Notes").
"""

import os
import sys

from ctr_common import paths
from ctr_common.errors import CtrError
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STUB = "import sys; sys.path += {paths!r}; from {module} import {function}; raise SystemExit({function}())"


def spawn(module: str, function: str, fd_map: "Sequence[tuple[int, int]]") -> "tuple[int, int]":
    """Calls a function of a module in a new interpreter (`-I -S`) that has our packages on its path.

    Args:
        module: its dotted name.
        function: takes no arguments; what it returns is the exit status.
        fd_map: (fd here, fd there) pairs; beyond stdio it gets no others.

    Returns:
        pid and pidfd; the caller waits for the one and closes the other.

    Raises:
        CtrError: there is no interpreter.
    """
    # Ours by its absolute path, however this program has found it.
    found = [paths.ROOT, *(path for path in paths.search_path() if path != paths.ROOT)]
    stub = STUB.format(paths=found, module=module, function=function)
    environment = [f"{name}={value}" for name, value in os.environ.copy().items()]
    try:
        return _kernel.spawn(sys.executable, [sys.executable, "-I", "-S", "-c", stub], environment, fd_map, True)
    except OSError as error:
        raise CtrError(
            "cannot run the Python interpreter",
            path=sys.executable,
            syscall=getattr(error, "syscall", ""),
            errno=error.errno or 0,
            hint="sys.executable must name one; a program that embeds Python sets it",
        ) from None


def is_alone() -> bool:
    """Whether this thread is the only one of its process, so that a fork's child can go on in Python.

    Nobody else is there then to start another one, so the answer holds.
    """
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False
