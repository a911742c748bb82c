"""What process number 1 has to do beside its service: mounts that everybody expects, orphans, the end of everything.

Two kinds of it: the first process of a pid namespace, whose end ends the namespace and whose exit status somebody
reads; and the first process of the machine, which must never end, and switches off.
"""

import errno
import os
import signal
import time

from ctr_common.errors import CtrError, StateError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    AT_FDCWD,
    LINUX_REBOOT_CMD_CAD_OFF,
    LINUX_REBOOT_CMD_POWER_OFF,
    LINUX_REBOOT_CMD_RESTART,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
)

# linux/proc_ns.h: PROC_PID_INIT_INO, the inode of the initial pid namespace
FIRST_PID_NAMESPACE = 0xEFFFFFFC

# In their order: target, type, flags, data.
MOUNTS = (
    ("/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
    ("/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
    ("/dev", "devtmpfs", MS_NOSUID, "mode=0755"),
    ("/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"),
    ("/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"),
    ("/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"),
    ("/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
)
# /dev of a machine links to these; devtmpfs has none of them.
LINKS = (("/proc/self/fd", "/dev/fd"), ("fd/0", "/dev/stdin"), ("fd/1", "/dev/stdout"), ("fd/2", "/dev/stderr"))

# What the kernel does not give its first process.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Seconds that what is left of processes gets after SIGTERM, before SIGKILL.
LAST_GRACE = 2.0


def is_first() -> bool:
    """Whether this process is number 1 of its pid namespace."""
    return os.getpid() == 1


def is_machine() -> bool:
    """Whether the end of this process would be the end of the machine."""
    return is_first() and os.stat("/proc/self/ns/pid").st_ino == FIRST_PID_NAMESPACE


def prepare() -> list[str]:
    """Mounts what is missing, and leaves alone what is there.

    Returns:
        What could not be made, for the log: a machine without a /dev/shm is better than none.

    Raises:
        StateError: /proc is not the one of this pid namespace, and nothing that is done by pid would be right.
    """
    problems = []
    os.environ.setdefault("PATH", PATH)
    for target, kind, flags, data in MOUNTS:
        try:
            mount_missing(target, kind, flags, data)
        except OSError as error:
            problems.append(f"ignoring: mount {target}: {error.strerror}")
    if os.readlink("/proc/self") != str(os.getpid()):
        raise StateError("not of this pid namespace:", path="/proc", hint="start it with unshare --mount-proc")
    for source, target in LINKS:
        try:
            os.symlink(source, target)
        except OSError as error:
            if error.errno != errno.EEXIST:
                problems.append(f"ignoring: link {target}: {error.strerror}")
    if is_machine():
        try:
            # From now on Ctrl-Alt-Del is a SIGINT, and not a reset.
            _kernel.reboot(LINUX_REBOOT_CMD_CAD_OFF)
        except OSError as error:
            problems.append(f"ignoring: Ctrl-Alt-Del: {error.strerror}")
    return problems


def mount_missing(target: str, kind: str, flags: int, data: str | None) -> bool:
    """Mounts a file system where nothing is mounted, and nobody has put anything; whether it did.

    Raises:
        OSError: the kernel refused.
    """
    try:
        os.mkdir(target, 0o755)
    except FileExistsError:
        pass
    if _kernel.is_mount_root(AT_FDCWD, target):
        return False
    # Below a directory that is no mount point, but has something in it, is somebody's own arrangement: the v1
    # hierarchies in /sys/fs/cgroup, the /run of the host. A machine that boots has but leftovers there.
    if os.listdir(target) and not (target != "/proc" and is_machine()):
        return False
    _kernel.mount(kind, target, kind, flags, data)
    return True


def exit_status(killed: bool, second: int) -> int:
    """The exit status of a pid namespace's first process.

    Args:
        killed: a container had to be killed because it can't be ended otherwise, or could not be ended at all.
        second: the signal that cut the grace time short, 0 for none.

    Returns:
        0 after an ordered end, 128 + the signal where somebody did not wait for it, 1 where something is left.
    """
    if second:
        return 128 + second
    return 1 if killed else 0


def end_all() -> None:
    """Ends every other process of the namespace, politely first, and reaps it."""
    for number, patience in ((signal.SIGTERM, LAST_GRACE), (signal.SIGKILL, LAST_GRACE)):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                # SIGCHLD is blocked, and so waits for us.
                signal.sigtimedwait([signal.SIGCHLD], max(0.0, deadline - time.monotonic()))


def switch_off(number: int) -> None:
    """Ends everything, writes the disks, and ends the machine.

    Args:
        number: the signal that asked for it: SIGINT, which is Ctrl-Alt-Del, restarts; the others switch off.

    Raises:
        CtrError: the kernel did not.
    """
    end_all()
    os.sync()
    try:
        _kernel.mount(None, "/", None, MS_REMOUNT | MS_RDONLY, None)
    except OSError:
        # ignoring: a file system that somebody still writes to is checked when it comes back
        pass
    try:
        _kernel.reboot(LINUX_REBOOT_CMD_RESTART if number == signal.SIGINT else LINUX_REBOOT_CMD_POWER_OFF)
    except OSError as error:
        raise CtrError.from_os_error(error, step="switching off") from None
