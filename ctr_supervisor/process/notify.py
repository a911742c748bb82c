"""sd_notify(3) for containers: a socket of the container's own, whose READY=1 goes on to the caller's NOTIFY_SOCKET.

Nothing but READY=1 is passed on: a container must not be able to change MAINPID, the watchdog or the fd store of the
service that runs it. The runtime adds MAINPID itself where it will not stay.
"""

import os
import select
import time

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from ctr_common.spec.types import Config

DIRECTORY = "notify"
INSIDE = "/run/notify"
NAME = "notify.sock"
READY = b"READY=1"
DATAGRAM_MAX = 4096
# The service manager answers a barrier as soon as it has read what came before; one that never does is not waited for.
BARRIER_TIMEOUT = 5.0


class NotifySocket:
    """The socket between a container and the caller's service manager.

    Args:
        host: the caller's NOTIFY_SOCKET: a path, or an abstract name that starts with `@`.
        directory: on the host, made here, bound into the container.
    """

    def __init__(self, host: str, directory: str) -> None:
        self.host = host
        self.directory = directory
        self._socket: socket | None = None

    def add_to(self, config: "Config") -> None:
        """Gives the container its end: a read-only bind mount of the directory, and NOTIFY_SOCKET.

        Args:
            config: changed here.
        """
        config["mounts"] = [
            *(config.get("mounts") or ()),
            {
                "destination": INSIDE,
                "type": "bind",
                "source": self.directory,
                "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
            },
        ]
        process = config["process"]
        process["env"] = [*(process.get("env") or ()), f"NOTIFY_SOCKET={INSIDE}/{NAME}"]

    def make_directory(self) -> None:
        """Makes the directory, which any user of the container may look into."""
        os.mkdir(self.directory, 0o755)
        os.chmod(self.directory, 0o755)

    def bind(self) -> None:
        """Listens, from now on; every user of the container may write.

        Raises:
            CtrError: the socket can't be made.
        """
        from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket

        path = f"{self.directory}/{NAME}"
        try:
            if os.path.lexists(path):
                os.unlink(path)
            made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
            made.bind(path)
            os.chmod(path, 0o777)
        except OSError as error:
            raise CtrError("cannot make the notify socket", path=path, errno=error.errno or 0) from None
        made.setblocking(False)
        self._socket = made

    def fileno(self) -> int:
        """The listening fd, -1 before `bind` and after `close`."""
        return -1 if self._socket is None else self._socket.fileno()

    def receive(self) -> bool:
        """Reads one message; whether it says that the container is ready."""
        if self._socket is None:
            return False
        try:
            data = self._socket.recv(DATAGRAM_MAX)
        except BlockingIOError:
            return False
        return READY in data.split(b"\n")

    def tell_ready(self, main_pid: int = 0) -> None:
        """Tells the caller's service manager.

        Args:
            main_pid: also say that this is the service's process, because the runtime is about to end; 0: don't.

        Raises:
            CtrError: it is gone.
        """
        from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM, socket

        address = "\0" + self.host[1:] if self.host.startswith("@") else self.host
        manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            manager.connect(address)
            manager.send(READY)
            if main_pid:
                manager.send(b"MAINPID=%d" % main_pid)
                _barrier(manager.fileno())
        except OSError as error:
            raise CtrError("cannot notify", path=self.host, errno=error.errno or 0) from None
        finally:
            manager.close()

    def wait(self, pidfd: int, main_pid: int) -> None:
        """Waits until the container says that it is ready, and passes it on; or until its process ends.

        Args:
            pidfd: of the container's init process.
            main_pid: its pid.
        """
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.fileno(), select.POLLIN)
        while True:
            events = dict(poll.poll())
            if self.fileno() in events and self.receive():
                self.tell_ready(main_pid)
                return
            if pidfd in events:
                return

    def close(self) -> None:
        """Stops listening."""
        made, self._socket = self._socket, None
        if made is not None:
            made.close()


def _barrier(manager: int) -> None:
    """Waits until the manager has read what was sent (sd_notify_barrier(3)): our pid must exist until then."""
    read, write = os.pipe2(os.O_CLOEXEC)
    with Fd(read):
        with Fd(write):
            _kernel.sendmsg(manager, b"BARRIER=1", (write,))
        poll = select.poll()
        poll.register(read, 0)
        deadline = time.monotonic() + BARRIER_TIMEOUT
        while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000) and time.monotonic() < deadline:
            pass


def from_environment(directory: str) -> "NotifySocket | None":
    """The notify socket that the caller's environment asks for, None if it asks for none.

    Args:
        directory: for the container's end: DIRECTORY in its state directory.
    """
    host = os.environ.get("NOTIFY_SOCKET", "")
    return NotifySocket(host, directory) if host else None
