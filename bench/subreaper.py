"""Makes this process the parent of what its descendants leave behind."""

import ctypes
import os

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopts orphans of this process's descendants (prctl(2)).

    Raises:
        OSError: the kernel refused.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "prctl")
