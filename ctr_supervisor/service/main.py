"""`ctr-supervisor`: the service that owns containers."""

import contextlib
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ctr_common.errors import CtrError, StateError
from ctr_common.fd import Fd
from ctr_supervisor.service import pool

if TYPE_CHECKING:
    from ctr_supervisor.service.options import Options
    from ctr_supervisor.service.supervisor import Supervisor
    from ctr_supervisor.service.upgrade import Upgrade


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the service; returns its exit status.

    Args:
        arguments: without the program's name; None for those of this process.
    """
    from ctr_supervisor.service import options

    flags = list(sys.argv[1:] if arguments is None else arguments)
    given = options.parse(flags)
    try:
        if given.check_upgrade is not None:
            from ctr_supervisor.service import upgrade

            return upgrade.check(given.check_upgrade)
        if given.upgrade:
            from ctr_supervisor.service import upgrade

            return upgrade.ask(given.socket)
        return serve(given, [os.path.abspath(sys.argv[0]), *flags])
    except CtrError as error:
        options.complain(error)
        return 1
    except OSError as error:
        options.complain(CtrError.from_os_error(error))
        return 1


def serve(given: "Options", argv: list[str]) -> int:
    """Serves until a signal or a request ends it.

    Args:
        argv: of this process, the launcher's absolute path first.

    Returns:
        The exit status.
    """
    from ctr_supervisor.cli import interrupts
    from ctr_supervisor.service import activation, limits, options, pid1, upgrade

    interrupts.settle()
    taken = upgrade.take()
    manager = activation.Manager(None if taken is None else taken["manager"])
    first = pid1.is_first()
    for problem in pid1.prepare() if first and taken is None else ():
        options.log(problem)
    activated = None if taken is not None else activation.take_listener()
    before = limits.raise_to_hard() if taken is None else (taken["limits"][0], taken["limits"][1])
    # Before anything is imported that jobs don't need.
    _pid, ends = pool.start(lambda: prepare(before))
    from ctr_common.kernel import _kernel
    from ctr_common.kernel.constants import PR_SET_CHILD_SUBREAPER
    from ctr_supervisor.service.ending import Ending
    from ctr_supervisor.service.loop import Loop
    from ctr_supervisor.service.supervisor import Supervisor

    _kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if taken is not None:
        listener = socket.socket(fileno=taken["listener"])
    else:
        listener = activated or listen(given.socket, given.group)
    own_socket = activated is None if taken is None else taken["own_socket"]
    loop = manager.loop = Loop()
    supervisor = Supervisor(
        loop,
        given.root,
        listener,
        ends,
        given.group,
        given.systemd_cgroup,
        None if taken is None else taken["supervisor"],
    )
    going_on = upgrade.Upgrade(supervisor, manager, argv, before, own_socket)

    def begin_to_end() -> None:
        going_on.refused = "the supervisor is about to end"
        manager.stopping("ending")

    ending = Ending(supervisor, begin_to_end, containers=first)
    supervisor.answers.by_type["shutdown"] = ending.on_request
    supervisor.answers.by_type["upgrade"] = going_on.on_request
    supervisor.dispatch.on_pool_lost = going_on.begin

    def on_signal(number: int) -> None:
        if number == SIGCHLD:
            reap(supervisor, going_on)
        elif number == SIGUSR2:
            try:
                going_on.begin()
            except CtrError as error:
                options.log(f"ignoring: {error}")
        else:
            ending.on_signal(number)

    loop.handle_signals((SIGINT, SIGTERM, SIGPWR, SIGUSR2, SIGCHLD), on_signal)
    # Those of children that ended before there was anybody to hear it.
    reap(supervisor, going_on)
    if taken is not None:
        upgrade.answer(supervisor, taken)
    manager.ready("serving")
    manager.start_watchdog(loop)
    activation.name_process("ctr-supervisor", argv[1:])
    loop.run()
    supervisor.close()
    listener.close()
    if own_socket:
        remove_socket(given.socket)
    if pid1.is_machine():
        pid1.switch_off(ending.number)
    return ending.status


SIGINT, SIGUSR2, SIGTERM, SIGCHLD, SIGPWR = 2, 12, 15, 17, 30


def reap(supervisor: "Supervisor", going_on: "Upgrade") -> None:
    """Takes leave of children: the pool, keepers, processes of execs, orphans."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        # A job whose process this was has said so before it ended. Heard while it is there still: where a container was
        # deleted meanwhile, a keeper that is gone would be waited for no more.
        supervisor.dispatch.hear()
        pid, status = os.waitpid(ended.si_pid, 0)
        if not going_on.child_ended(pid, status):
            supervisor.answers.child_ended(pid, status)


def prepare(open_files: tuple[int, int]) -> pool.Serve:
    """See `job.prepare`; imported in the pool alone.

    Args:
        open_files: limits of open files that containers inherit.
    """
    from ctr_common.kernel import _kernel
    from ctr_supervisor.service import job, limits

    limits.restore(open_files)
    # A program that went on as this one has blocked its signals.
    _kernel.sigprocmask(SIG_SETMASK, ())
    return job.prepare()


SIG_SETMASK = 2

# How many clients may be connecting at once.
BACKLOG = 512
# Seconds that another supervisor may take for its socket, and between looks whether it has it.
BINDING_TIME = 5.0
LOOK_AFTER = 0.01


def listen(path: str, group: int | None) -> socket.socket:
    """The socket for clients, in a directory that only its owner can enter.

    Args:
        group: whose members can enter and connect too; None for nobody else.

    Raises:
        StateError: another supervisor serves it, or is about to, or something else has the name.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    with alone_in(directory, BINDING_TIME) as alone:
        if not alone:
            raise StateError("another supervisor has been about to serve this socket for long", path=path)
        return bind(path, group)


@contextlib.contextmanager
def alone_in(directory: str, patience: float) -> Iterator[bool]:
    """Sees to it that only one supervisor looks whether sockets in that directory are served, to take or remove a name.

    Args:
        patience: seconds to wait for another one.

    Yields:
        Whether there is no other one.
    """
    deadline = time.monotonic() + patience
    with Fd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        while True:
            try:
                fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(LOOK_AFTER)
                    continue
                yield False
                return
            yield True
            return


def bind(path: str, group: int | None) -> socket.socket:
    """See `listen`."""
    directory = os.path.dirname(path)
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StateError("is there already, and is no socket", path=path)
        if is_served(path):
            raise StateError("another supervisor serves this socket", path=path)
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    if group is not None:
        os.chown(path, -1, group)
        os.chmod(path, 0o660)
        if os.stat(directory).st_mode & 0o7777 == 0o700:
            # To pass through, not to look around.
            os.chown(directory, -1, group)
            os.chmod(directory, 0o710)
    listener.listen(BACKLOG)
    return listener


def is_served(path: str) -> bool:
    """Whether somebody listens there, be it somebody who takes no clients at this moment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            # Its queue is full.
            return True
    return True


def remove_socket(path: str) -> None:
    """Takes the name away, so that clients go the direct way at once; that of a successor stays."""
    try:
        with alone_in(os.path.dirname(path), 0) as alone:
            if alone and not is_served(path):
                os.unlink(path)
    except FileNotFoundError:
        pass
