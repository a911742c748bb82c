"""What a service manager has for a service, sockets (sd_listen_fds(3)), and what it wants, news (sd_notify(3))."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ctr_common.errors import StateError
from ctr_common.kernel import _kernel

if TYPE_CHECKING:
    from ctr_supervisor.service.loop import Loop

# sd_listen_fds(3): SD_LISTEN_FDS_START
FIRST_FD = 3
SOCKET_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def take_listener() -> socket.socket | None:
    """The socket that a service manager listens on in our place; None when it has none for us.

    What told of it is taken out of the environment, and children get no such fds.

    Raises:
        StateError: it passed something else than one SEQPACKET unix socket that listens.
    """
    values = {name: os.environ.pop(name, "") for name in SOCKET_VARIABLES}
    if not values["LISTEN_PID"].isdecimal() or int(values["LISTEN_PID"]) != os.getpid():
        return None
    count = int(values["LISTEN_FDS"]) if values["LISTEN_FDS"].isdecimal() else 0
    if count <= 0:
        return None
    for fd in range(FIRST_FD, FIRST_FD + count):
        os.set_inheritable(fd, False)
    if count > 1:
        raise StateError(f"the service manager passed {count} sockets, expected one")
    try:
        given = socket.socket(fileno=FIRST_FD)
    except OSError as error:
        raise StateError("the service manager passed no socket", errno=error.errno or 0) from None
    given.setblocking(False)
    kind = given.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if given.family != socket.AF_UNIX or kind != socket.SOCK_SEQPACKET or not listens:
        given.close()
        raise StateError(
            "the socket of the service manager is not a unix one of type SEQPACKET that listens",
            hint="use ListenSequentialPacket= in its unit",
        )
    return given


class Manager:
    """The service manager that waits for word of us; silent where there is none.

    The variables are taken out of the environment: containers and hooks are not to speak in our name.

    Args:
        saved: what `state` of another process's Manager returned, which this one goes on for; None to read the
            environment.
    """

    def __init__(self, saved: dict[str, str] | None = None) -> None:
        values = saved if saved is not None else {name: os.environ.pop(name, "") for name in NOTIFY_VARIABLES}
        self._values = values
        self.address = values.get("NOTIFY_SOCKET", "")
        # unix(7): an abstract name is written with @ for its first byte
        self._name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        usec, pid = values.get("WATCHDOG_USEC", ""), values.get("WATCHDOG_PID", "")
        meant = not pid or pid == str(os.getpid())
        # Seconds between signs of life: half of what the manager waits for one, as sd_watchdog_enabled(3) advises.
        self.interval = int(usec) / 2e6 if meant and usec.isdecimal() else 0.0

    @property
    def state(self) -> dict[str, str]:
        """What the next program of this process needs to know."""
        return self._values

    def tell(self, *lines: str) -> bool:
        """Sends lines such as READY=1; whether anybody took them. Never waits, and never fails."""
        if not self.address.startswith(("/", "@")):
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as one:
                one.sendto("\n".join(lines).encode(), self._name)
        except OSError:
            return False
        return True

    def ready(self, status: str) -> None:
        """We serve."""
        self.tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def status(self, status: str) -> None:
        """One line for a person who asks the manager."""
        self.tell(f"STATUS={status}")

    def reloading(self) -> None:
        """We are busy with ourselves until the next `ready`."""
        import time

        # sd_notify(3): MONOTONIC_USEC belongs to it for services of Type=notify-reload.
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """We end."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def start_watchdog(self, loop: "Loop", healthy: Callable[[], bool] = lambda: True) -> None:
        """Gives signs of life by the loop's timer, as long as it is asked for and all is well.

        Args:
            healthy: asked before each sign; when it says no the manager is left to act.
        """
        if not self.interval or not self.address:
            return

        def sign() -> None:
            if healthy():
                self.tell("WATCHDOG=1")
            loop.call_later(self.interval, sign)

        sign()


def name_process(name: str, arguments: Sequence[str]) -> None:
    """Lets ps(1) show what this process is, not how it is run; without the package for that, its name alone.

    Args:
        arguments: shown behind the name.
    """
    from ctr_common.kernel.constants import PR_SET_NAME

    try:
        import setproctitle
    except ImportError:
        pass
    else:
        setproctitle.setproctitle(" ".join([name, *arguments]))
    _kernel.prctl(PR_SET_NAME, name.encode()[:15] + b"\0")
