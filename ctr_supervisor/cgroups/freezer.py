"""Freezing and thawing a cgroup, on both versions. Every wait has an end."""

import errno
import os
import select
import time

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import files

# v1: numbers as runc found them by experiment, for new processes that keep coming and for very slow machines.
V1_TRIES = 1000
V1_THAW_EVERY = 50
V1_THAW_PAUSE = 0.01
V1_YIELD_EVERY = 25
V1_YIELD = 0.00001

# v2: seconds until a cgroup with a process that does not come out of the kernel is given up.
V2_TIMEOUT = 10.0


def freeze_v1(path: str) -> None:
    """Freezes a v1 freezer cgroup.

    It is thawed again if that fails: a cgroup half frozen is worse than a running one.

    Raises:
        CgroupError: it is not there, or new processes kept coming.
    """
    with files.Directory(path) as directory:
        try:
            _freeze_v1(directory)
        except CgroupError:
            try:
                directory.write("freezer.state", "THAWED")
            except CgroupError:
                pass
            raise


def _freeze_v1(directory: files.Directory) -> None:
    for attempt in range(1, V1_TRIES + 1):
        # A cgroup to which processes are added (fork, exec) while it freezes may stay in FREEZING until FROZEN is
        # written again (kernel commit ef9fe980c6fcc1821); starting over now and then helps.
        if attempt % V1_THAW_EVERY == 0:
            directory.write("freezer.state", "THAWED")
            time.sleep(V1_THAW_PAUSE)
        directory.write("freezer.state", "FROZEN")
        if attempt % V1_YIELD_EVERY == 0:
            time.sleep(V1_YIELD)
        state = directory.read("freezer.state")
        if state == "FROZEN":
            return
        if state != "FREEZING":
            raise CgroupError(f"unexpected state {state} while freezing", path=directory.path)
    raise CgroupError("unable to freeze", path=directory.path, hint="new processes kept coming; try again")


def thaw_v1(path: str) -> None:
    """Thaws a v1 freezer cgroup; fine if it is not frozen, or gone."""
    try:
        with files.Directory(path) as directory:
            directory.write("freezer.state", "THAWED")
    except CgroupError as error:
        if not _gone(error):
            raise


def frozen_v1(path: str) -> bool:
    """Whether somebody froze this very cgroup: one that is frozen because the cgroup above is, is not."""
    try:
        with files.Directory(path) as directory:
            return directory.read("freezer.self_freezing") == "1"
    except CgroupError as error:
        if _gone(error):
            return False
        raise


def freeze_v2(path: str) -> None:
    """Freezes a v2 cgroup with all below it.

    Raises:
        CgroupError: it is not there, or did not freeze within V2_TIMEOUT seconds; it is thawed again then.
    """
    with files.Directory(path) as directory:
        try:
            events = os.open("cgroup.events", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fileno())
        except OSError as error:
            raise files.failure(error, "open", f"{path}/cgroup.events") from None
        try:
            try:
                directory.write("cgroup.freeze", "1")
            except CgroupError as error:
                if error.errno == errno.ENOENT:
                    error.hint = "freezing needs Linux 5.2 or newer"
                raise
            if not _await_frozen(events):
                directory.write("cgroup.freeze", "0")
                raise CgroupError(
                    f"timeout of {V2_TIMEOUT:g} seconds reached waiting for the cgroup to freeze", path=path
                )
        finally:
            os.close(events)


def _await_frozen(events: int) -> bool:
    poll = select.poll()
    # kernfs: POLLPRI | POLLERR once the file changed since it was last read through this fd.
    poll.register(events, select.POLLPRI)
    deadline = time.monotonic() + V2_TIMEOUT
    while b"frozen 1" not in os.pread(events, 4096, 0):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        poll.poll(left * 1000)
    return True


def thaw_v2(path: str) -> None:
    """Thaws a v2 cgroup; fine if it is not frozen, or gone."""
    try:
        with files.Directory(path) as directory:
            directory.write("cgroup.freeze", "0")
    except CgroupError as error:
        if not _gone(error):
            raise


def frozen_v2(path: str) -> bool:
    """Whether somebody froze this very cgroup."""
    try:
        with files.Directory(path) as directory:
            return directory.read("cgroup.freeze") == "1"
    except CgroupError as error:
        if _gone(error):
            return False
        raise


def _gone(error: CgroupError) -> bool:
    # ENODEV: opened before, removed meanwhile.
    return error.errno in (errno.ENOENT, errno.ENODEV)
