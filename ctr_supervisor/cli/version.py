"""`ctrun --version`, in the shape that engines take apart."""

import sys

from ctr_supervisor.cli import output
from ctr_supervisor.cli.surroundings import PROGRAM

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"


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
    """Version of the libseccomp that is installed, "" without one."""
    import ctypes

    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    try:
        function = ctypes.CDLL("libseccomp.so.2").seccomp_version
    except (AttributeError, OSError):
        return ""
    function.restype = ctypes.POINTER(Version)
    found = function()
    if not found:
        return ""
    return f"{found[0].major}.{found[0].minor}.{found[0].micro}"


def show() -> int:
    """Prints it; returns the exit status."""
    output.write(text() + "\n")
    return 0
