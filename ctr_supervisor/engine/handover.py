"""What a new process gives to the outside: its console, its pid, its pidfd, its seccomp notifications."""

import os

from ctr_common.errors import WrongState
from ctr_common.fd import Fd
from ctr_supervisor.engine.container import Container
from ctr_supervisor.engine.launch import Launched
from ctr_supervisor.engine.options import ProcessOptions
from ctr_supervisor.process import console


def deliver_console(options: ProcessOptions, master: int) -> Fd:
    """A pty's master goes to the console socket, or stays here for the foreground.

    Args:
        master: owned here from now on.

    Returns:
        The master for the foreground; a closed one where it went to the socket.
    """
    with Fd(master) as owned:
        if options.console_socket:
            console.send_fd(options.console_socket, owned.fileno(), "/dev/ptmx", "--console-socket")
            return Fd(-1)
        # Before the process can ask for it, or write.
        console.take_window_size(owned.fileno())
        if options.relayed:
            console.leave_line_ends(owned.fileno())
        return Fd(owned.take())


def announce(options: ProcessOptions, launched: Launched) -> None:
    """Tells whoever asked for it: pidfd socket, pid file.

    Raises:
        CtrError: it can't be told.
    """
    if options.pidfd_socket:
        console.send_fd(options.pidfd_socket, launched.pidfd.fileno(), "pidfd", "--pidfd-socket")
    if options.pid_file:
        write_pid_file(options.pid_file, launched.pid)


def write_pid_file(path: str, pid: int) -> None:
    """Writes a pid, without a newline, by rename, so that nobody reads half of it.

    Raises:
        WrongState: the file can't be written.
    """
    head, tail = os.path.split(path)
    partial = os.path.join(head, f".{tail}")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with Fd(fd):
            os.write(fd, str(pid).encode())
        os.rename(partial, path)
    except OSError as error:
        raise WrongState("cannot write the pid file", path=path, errno=error.errno or 0) from None


def send_listener(container: Container, listener: int, container_status: str, pid: int) -> None:
    """Sends a seccomp user notification fd to the agent that the configuration names.

    Args:
        listener: owned here from now on.
        container_status: what the agent is told of the container.
        pid: of the process that is filtered.
    """
    from ctr_supervisor.engine import seccomp

    with Fd(listener):
        profile = (container.config.get("linux") or {})["seccomp"]
        seccomp.send_listener(
            profile["listenerPath"],
            listener,
            container.oci_state(container_status),
            profile.get("listenerMetadata", ""),
            pid=pid,
        )
