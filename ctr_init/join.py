"""Becoming part of the container: its namespaces, and root of its user namespace."""

import errno
import os

from ctr_common.errors import SetupError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    PR_GET_DUMPABLE,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    SIGKILL,
)
from ctr_common.spec.namespaces import NAMESPACES
from ctr_init.setup import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_init.plan import SetupPlan
    from ctr_init.setup import Setup


def fork(plan: "SetupPlan") -> tuple[int, bool]:
    """Forks the worker, where possible straight into the container's pid namespace, which saves a second fork.

    The calling process sets the pid namespace of its children for one fork and then takes its own again.

    Returns:
        pid (0 in the worker), and whether the worker is in the pid namespace.

    Raises:
        SetupError: the caller's children would from now on be born in the container.
        OSError: fork failed.
    """
    dumpable = _kernel.prctl(PR_GET_DUMPABLE)
    # From its first instant in the container's pid namespace nobody there may trace the worker or look at its memory
    # and fds (CVE-2016-9962); the flag is inherited.
    _kernel.prctl(PR_SET_DUMPABLE, 0)
    own = pid = -1
    try:
        own = _set_pid_namespace_of_children(plan) if plan.join_flags & CLONE_NEWPID else -1
        pid = os.fork()
    finally:
        if pid != 0:
            if own >= 0:
                _return_to_pid_namespace(own)
            restore_dumpable(dumpable)
    return pid, own >= 0


def restore_dumpable(before: int) -> None:
    """Takes back a PR_SET_DUMPABLE of 0.

    Args:
        before: from PR_GET_DUMPABLE. 2, which a program has that changed its ids, can't be asked for (prctl(2)): such
            a one stays as strict as it is.
    """
    if before == 1:
        _kernel.prctl(PR_SET_DUMPABLE, 1)


def _set_pid_namespace_of_children(plan: "SetupPlan") -> int:
    """An fd of the own pid namespace, to return to; -1 if it has to be entered later."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # The way back first: root of a user namespace may enter the container's pid namespace, but not return to its
        # own, which belongs to the user namespace outside.
        _kernel.setns(own, CLONE_NEWPID)
        _kernel.setns(plan.pidfd, CLONE_NEWPID)
    except OSError:
        # Rootless, or before Linux 5.8: join_namespaces does it from inside the user namespace, or says what is wrong.
        os.close(own)
        return -1
    return own


def _return_to_pid_namespace(own: int) -> None:
    try:
        _kernel.setns(own, CLONE_NEWPID)
    except OSError as error:
        raise SetupError("cannot return to the own pid namespace", errno=error.errno or 0) from None
    finally:
        os.close(own)


def protect() -> None:
    """Neither traced, nor left behind by a dead engine. Changed credentials undo both (prctl(2))."""
    _kernel.prctl(PR_SET_DUMPABLE, 0)
    _kernel.prctl(PR_SET_PDEATHSIG, SIGKILL)


def _names(flags: int) -> str:
    return ", ".join(kind for kind, (flag, _) in NAMESPACES.items() if flags & flag) or "none"


def is_staged(plan: "SetupPlan") -> bool:
    """Whether the mount namespace is joined first, with the host's credentials."""
    return plan.join_flags & (CLONE_NEWNS | CLONE_NEWUSER) == CLONE_NEWNS | CLONE_NEWUSER and not plan.rootless


def first_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the namespaces that are joined first."""
    if is_staged(plan):
        return [Piece("mount, with the host's credentials still")]
    return [Piece(_names(plan.join_flags))] if plan.join_flags else []


def join_first(setup: "Setup", _: object) -> None:
    """Joins the namespaces, and finds the caller's root directory in the new mount namespace.

    setns(2) leaves the process at the root of the mount namespace, which is not the caller's when that is in a chroot:
    its paths would then lead to files of the host around it.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if is_staged(setup.plan):
        setup.host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    _join_first(setup, _)
    # The same path in the copy of the mounts. The caller's procfs is below it, the host's need not be at /proc.
    # Where there is no procfs that knows this process, nothing can be told, and a chroot is not looked for.
    try:
        setup.host_root = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
    except FileNotFoundError:
        pass
    os.close(root)


def _join_first(setup: "Setup", _: object) -> None:
    """Joins all namespaces; or, where a user namespace follows, the mount namespace alone.

    As host root in the container's mount namespace the worker can open what the container's root may not: the root
    filesystem and bind sources below directories that are closed to it.
    """
    plan = setup.plan
    if is_staged(plan):
        try:
            _kernel.setns(plan.pidfd, CLONE_NEWNS)
            setup.staged = True
            return
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
    _join(setup, plan.join_flags)


def rest_pieces(plan: "SetupPlan") -> "list[Piece]":
    """Step: the namespaces that are joined once everything from the host is open."""
    return [Piece(_names(plan.join_flags & ~CLONE_NEWNS) + ", as their root")] if is_staged(plan) else []


def join_rest(setup: "Setup", _: object) -> None:
    """Joins the other namespaces, unless `join_first` had to join all."""
    if setup.host_mounts >= 0:
        os.close(setup.host_mounts)
        setup.host_mounts = -1
    if setup.staged:
        _join(setup, setup.plan.join_flags & ~CLONE_NEWNS)


def _join(setup: "Setup", flags: int) -> None:
    plan = setup.plan
    if plan.config.get("hooks", {}).get("createContainer"):
        setup.hook_pid = _pid_inside(plan)
    if setup.in_pid_namespace:
        flags &= ~CLONE_NEWPID
    if flags:
        try:
            _kernel.setns(plan.pidfd, flags)
        except OSError as error:
            # A pidfd is taken since Linux 5.8 (setns(2)).
            if error.errno != errno.EINVAL:
                raise
            _join_one_by_one(plan.pid, flags)
    if flags & CLONE_NEWUSER:
        become_root()
    if flags & CLONE_NEWPID:
        _fork_into_pid_namespace(setup)


def _join_one_by_one(pid: int, flags: int) -> None:
    opened = [
        (os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag)
        for flag, name in NAMESPACES.values()
        if flags & flag
    ]
    for fd, flag in opened:
        _kernel.setns(fd, flag)
        os.close(fd)


def _pid_inside(plan: "SetupPlan") -> int:
    """The container process's pid in its own pid namespace: the last one that the kernel lists."""
    with open(f"/proc/{plan.pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return plan.pid


def become_root() -> None:
    """Takes the ids 0 of the user namespace: what the worker makes must belong to them.

    Raises:
        OSError: EINVAL if the namespace maps no id 0.
    """
    try:
        os.setgroups(())
    except PermissionError:
        pass  # denied where the gid map was written without privilege (user_namespaces(7))
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    protect()


def _fork_into_pid_namespace(setup: "Setup") -> None:
    """Goes on in a child, since setns changes the pid namespace of children only; the parent waits for its end."""
    pid = os.fork()
    if pid == 0:
        protect()
        setup.in_pid_namespace = True
        return
    setup.channel.close()
    _, status = os.waitpid(pid, 0)
    os._exit(0 if status == 0 else 1)
