"""`ctrun --version`, in the shape that engines take apart."""

import sys

from ctr_common.version import SPEC_VERSION, VERSION
from ctr_supervisor.cli import output
from ctr_supervisor.cli.surroundings import PROGRAM


def text() -> str:
    """The lines of the version, without the last newline.

    Docker takes the name and the number from the one line with the word "version".
    """
    python = ".".join(str(part) for part in sys.version_info[:3])
    lines = [f"{PROGRAM} version {VERSION}", f"spec: {SPEC_VERSION}", f"python: {python}"]
    libseccomp = libseccomp_version()
    if libseccomp:
        lines.append(f"libseccomp: {libseccomp}")
    return "\n".join(lines)


def libseccomp_version() -> str:
    """Version of the libseccomp that compiles filters, "" without one."""
    try:
        from ctr_common.kernel import _seccomp
    except ImportError:
        return ""
    return ".".join(map(str, _seccomp.version()))


def show() -> int:
    """Prints it; returns the exit status."""
    output.write(text() + "\n")
    return 0
