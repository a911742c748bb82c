"""What a service manager has for a service, sockets (sd_listen_fds(3)), and what it wants, news (sd_notify(3))."""

import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctr_common.errors import StateError
from ctr_common.kernel import _kernel

if TYPE_CHECKING:
    from ctr_supervisor.service.loop import Loop

# sd_listen_fds(3): SD_LISTEN_FDS_START
FIRST_FD = 3
SOCKET_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# systemd's time for never
USEC_INFINITY = (1 << 64) - 1
# Seconds between signs of life: one who wants them more often would have this process do nothing else.
INTERVAL_MIN = 0.01
# Messages that wait for room with the service manager; of more the oldest are dropped.
UNSAID_MAX = 16


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
    """The service manager that waits for word of us; silent where there is none, and never waited for.

    The variables are taken out of the environment: containers and hooks are not to speak in our name.

    Args:
        saved: what `state` of another process's Manager returned, which this one goes on for; None to read the
            environment.

    Attributes:
        address: of its socket, as it was given.
        interval: seconds between signs of life, 0 where it wants none.
        loop: where what its socket has no room for waits; without one that is dropped.
    """

    def __init__(self, saved: dict[str, str] | None = None) -> None:
        values = saved if saved is not None else {name: os.environ.pop(name, "") for name in NOTIFY_VARIABLES}
        self._values = values
        self.address = values.get("NOTIFY_SOCKET", "")
        # unix(7): an abstract name is written with @ for its first byte
        self._name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        self.interval = interval_of(values.get("WATCHDOG_USEC", ""), values.get("WATCHDOG_PID", ""))
        self.loop: Loop | None = None
        # What there was no room for, in its order, and the socket that tells when there is.
        self._unsaid: deque[bytes] = deque(maxlen=UNSAID_MAX)
        self._waiting: socket.socket | None = None

    @property
    def state(self) -> dict[str, str]:
        """What the next program of this process needs to know."""
        return self._values

    def tell(self, *lines: str) -> bool:
        """Sends lines such as READY=1, now or when there is room; whether anybody has taken them. Never fails."""
        if not self.address.startswith(("/", "@")):
            return False
        message = "\n".join(lines).encode()
        if self._waiting is not None:
            # A second sign of life tells nothing more.
            if message not in self._unsaid:
                self._unsaid.append(message)
            return False
        try:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError:
            return False
        try:
            connected.connect(self._name)
            connected.send(message)
        except BlockingIOError:
            if self.loop is not None:
                self._unsaid.append(message)
                self._waiting = connected
                self.loop.add(connected.fileno(), self._tell_unsaid, select.EPOLLOUT)
            else:
                connected.close()
            return False
        except OSError:
            connected.close()
            return False
        connected.close()
        return True

    def _tell_unsaid(self, _: int) -> None:
        """There is room, or nobody who reads any more."""
        assert self._waiting is not None
        assert self.loop is not None
        try:
            while self._unsaid:
                self._waiting.send(self._unsaid[0])
                self._unsaid.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._unsaid.clear()
        self.loop.remove(self._waiting.fileno())
        self._waiting.close()
        self._waiting = None

    def ready(self, status: str) -> None:
        """We serve."""
        self.tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """We are busy with ourselves until the next `ready`."""
        import time

        # sd_notify(3): MONOTONIC_USEC belongs to it for services of Type=notify-reload. The next program needs a moment
        # until it can give a sign of life, and the last one may be almost as old as it may become.
        sign = ("WATCHDOG=1",) if self.interval else ()
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", *sign)

    def stopping(self, status: str) -> None:
        """We end."""
        self.tell("STOPPING=1", f"STATUS={status}")

    def start_watchdog(self, loop: "Loop") -> None:
        """Gives signs of life by the loop's timer, as long as they are asked for: one that hangs gives none."""
        if not self.interval or not self.address:
            return

        def sign() -> None:
            self.tell("WATCHDOG=1")
            loop.call_later(self.interval, sign)

        sign()


def interval_of(usec: str, pid: str) -> float:
    """Seconds between signs of life: half of what the manager waits for one, as sd_watchdog_enabled(3) advises.

    Args:
        usec: value of WATCHDOG_USEC.
        pid: value of WATCHDOG_PID: whose signs are meant, "" for anybody's.

    Returns:
        0 for none, also where the value is no time.
    """
    if pid not in ("", str(os.getpid())):
        return 0.0
    if not usec.isascii() or not usec.isdigit() or len(usec) > len(str(USEC_INFINITY)):
        return 0.0
    number = int(usec)
    return max(number / 2e6, INTERVAL_MIN) if 0 < number < USEC_INFINITY else 0.0


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
