"""`ctr-supervisor`: the service that owns containers."""

import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctr_common.errors import CtrError, StateError
from ctr_supervisor.service import pool

if TYPE_CHECKING:
    from ctr_supervisor.service.options import Options
    from ctr_supervisor.service.supervisor import Supervisor


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the service; returns its exit status.

    Args:
        arguments: without the program's name; None for those of this process.
    """
    from ctr_supervisor.service import options

    given = options.parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return serve(given)
    except CtrError as error:
        options.complain(error)
        return 1
    except OSError as error:
        options.complain(CtrError.from_os_error(error))
        return 1


def serve(given: "Options") -> int:
    """Serves until a signal ends it."""
    listener = listen(given.socket)
    # Before anything is imported that jobs don't need.
    _pid, ends = pool.start(prepare)
    from ctr_common.kernel import _kernel
    from ctr_common.kernel.constants import PR_SET_CHILD_SUBREAPER
    from ctr_supervisor.service.loop import Loop
    from ctr_supervisor.service.registry import raise_open_files_limit
    from ctr_supervisor.service.supervisor import Supervisor

    # The pool was born before, with the limit that containers inherit.
    raise_open_files_limit()
    _kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
    loop = Loop()
    supervisor = Supervisor(loop, given.root, listener, ends, given.group, given.systemd_cgroup)

    def on_signal(number: int) -> None:
        if number == SIGCHLD:
            reap(supervisor)
        else:
            loop.stop()

    loop.handle_signals((SIGINT, SIGTERM, SIGCHLD), on_signal)
    loop.run()
    remove_socket(given.socket, listener)
    return 0


SIGINT, SIGTERM, SIGCHLD = 2, 15, 17


def reap(supervisor: "Supervisor") -> None:
    """Takes leave of children: the pool, keepers, processes of execs, orphans."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        supervisor.child_ended(pid, status)


def prepare() -> pool.Serve:
    """See `job.prepare`; imported in the pool alone."""
    from ctr_supervisor.service import job

    return job.prepare()


def listen(path: str) -> socket.socket:
    """The socket for clients, in a directory that only its owner can enter.

    Raises:
        StateError: another supervisor serves it, or it can't be made.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    if is_served(path):
        raise StateError("another supervisor serves this socket", path=path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(512)
    return listener


def is_served(path: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def remove_socket(path: str, listener: socket.socket) -> None:
    """Takes the name away, so that clients go the direct way at once."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener.close()
