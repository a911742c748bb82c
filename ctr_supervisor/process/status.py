"""Whether a process lives and is the one it was, by its start time."""

import os

DEAD_STATES = (b"Z", b"X", b"x")

# proc(5), /proc/pid/stat: fields after the command name, which is in parentheses and may hold anything.
STATE_AFTER_NAME = 0
START_TIME_AFTER_NAME = 19


def read_stat(pid: int) -> "tuple[bytes, int] | None":
    """State letter and start time (clock ticks since boot) of a process, None if there is none.

    Args:
        pid: in this process's pid namespace.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    fields = data[data.rindex(b")") + 2 :].split()
    return fields[STATE_AFTER_NAME], int(fields[START_TIME_AFTER_NAME])


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the process that had this pid and start time still runs; a zombie does not."""
    found = read_stat(pid)
    return found is not None and found[1] == start_time and found[0] not in DEAD_STATES


def open_pidfd(pid: int, start_time: int) -> "int | None":
    """A pidfd that is certainly of that process, None if it is gone.

    The start time is read after the fd was opened: had the pid been reused in between, it would differ.
    """
    from ctr_common.kernel import _kernel

    try:
        pidfd = _kernel.pidfd_open(pid)
    except OSError:
        return None
    if is_alive(pid, start_time):
        return pidfd
    os.close(pidfd)
    return None
