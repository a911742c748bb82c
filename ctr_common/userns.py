"""The user namespace that this process is in."""

import os

# What /proc/self/uid_map says in the initial user namespace (user_namespaces(7)).
WHOLE_ID_RANGE = ["0", "0", "4294967295"]


def in_initial_user_namespace() -> bool:
    """Whether this process is in the initial user namespace, judged by its uid map as the field does."""
    try:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        # A kernel without user namespaces has nothing but the initial one.
        return True
    try:
        return os.read(fd, 4096).decode().split() == WHOLE_ID_RANGE
    finally:
        os.close(fd)
