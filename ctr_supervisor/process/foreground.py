"""In the foreground for a container process: forwards signals, relays its terminal, reaps, gives its exit status."""

import os
import select

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PR_SET_CHILD_SUBREAPER
from ctr_supervisor.process import console

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.engine.launch import Launched
    from ctr_supervisor.process.notify import NotifySocket

# signal(7)
SIGKILL, SIGPIPE, SIGCHLD, SIGSTOP, SIGURG, SIGWINCH = 9, 13, 17, 19, 23, 28
SIG_BLOCK = 0
# Real-time signals 32 and 33 belong to the C library's threads.
ALL_SIGNALS = tuple(number for number in range(1, 65) if number not in (SIGKILL, SIGSTOP, 32, 33))
# Children's ends, our own broken pipes and out-of-band data are ours, not the container's.
NOT_FORWARDED = (SIGCHLD, SIGPIPE, SIGURG)

CHUNK = 65536


class Foreground:
    """Made before the container process, so that no signal that comes early is lost.

    Args:
        subreaper: adopt the container's orphans, so that a detached grandchild is reaped here.
    """

    def __init__(self, subreaper: bool) -> None:
        if subreaper:
            _kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
        _kernel.sigprocmask(SIG_BLOCK, ALL_SIGNALS)
        self.signals = Fd(_kernel.signalfd(ALL_SIGNALS))

    def attend(self, launched: "Launched", console_master: Fd, notify: "NotifySocket | None" = None) -> int:
        """Serves the process until it ends.

        Args:
            console_master: of its pty; closed if it has none.
            notify: listening; the container's readiness is passed on.

        Returns:
            Its exit status as a shell shows it.
        """
        relay = Relay(console_master.fileno()) if console_master.number >= 0 else None
        try:
            status = self._loop(launched, relay, notify)
            if relay is not None:
                relay.drain()
            return status
        finally:
            if relay is not None:
                relay.close()

    def _loop(self, launched: "Launched", relay: "Relay | None", notify: "NotifySocket | None") -> int:
        pidfd = launched.pidfd.fileno()
        signals = self.signals.fileno()
        while True:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(signals, select.POLLIN)
            if notify is not None and notify.fileno() >= 0:
                poll.register(notify.fileno(), select.POLLIN)
            if relay is not None:
                relay.register(poll)
            for fd, _ in poll.poll():
                if fd == pidfd:
                    return launched.wait()
                if fd == signals:
                    self._handle_signal(launched, relay)
                elif notify is not None and fd == notify.fileno():
                    if notify.receive():
                        notify.tell_ready()
                        notify.close()
                elif relay is not None:
                    relay.handle(fd)

    def _handle_signal(self, launched: "Launched", relay: "Relay | None") -> None:
        number, _, _ = _kernel.read_signalfd(self.signals.fileno())
        if number == SIGCHLD:
            reap_others(launched.pid)
        elif number == SIGWINCH and relay is not None:
            relay.resize()
        elif number not in NOT_FORWARDED:
            try:
                _kernel.pidfd_send_signal(launched.pidfd.fileno(), number)
            except ProcessLookupError:
                pass
            except OSError as error:
                raise CtrError.from_os_error(error, step=f"forwarding signal {number}") from None


def reap_others(kept: int) -> None:
    """Reaps adopted orphans; the container process itself is left for whoever waits for it.

    Args:
        kept: its pid.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == kept:
            # waitid shows the oldest zombie first again and again; behind ours others wait for the next SIGCHLD.
            return
        os.waitpid(found.si_pid, 0)


class Relay:
    """Copies between the user's stdio and a container's pty.

    Args:
        master: the pty's master.
    """

    def __init__(self, master: int) -> None:
        self.master = master
        self.input_open = True
        self.output_open = True
        self.to_container = bytearray()
        os.set_blocking(master, False)
        # Once more: the user's window wins over a size in the configuration.
        self.resize()
        self.raw = console.RawMode(0)

    def register(self, poll: "select.poll") -> None:
        """Asks for what can be dealt with now: the user's input is left where it is while the container reads none."""
        wanted = (select.POLLIN if self.output_open else 0) | (select.POLLOUT if self.to_container else 0)
        if wanted:
            poll.register(self.master, wanted)
        if self.input_open and len(self.to_container) < CHUNK:
            poll.register(0, select.POLLIN)

    def handle(self, fd: int) -> None:
        """Moves what is there."""
        if fd == self.master:
            self.read_master()
            self.write_master()
        else:
            self.read_input()

    def read_input(self) -> None:
        """From the user."""
        try:
            data = os.read(0, CHUNK)
        except OSError:
            data = b""
        if not data:
            self.input_open = False
            return
        self.to_container += data
        self.write_master()

    def write_master(self) -> None:
        """To the container, as far as its pty has room."""
        while self.to_container:
            try:
                written = os.write(self.master, self.to_container)
            except BlockingIOError:
                return
            except OSError:
                self.to_container.clear()
                return
            del self.to_container[:written]

    def read_master(self) -> bool:
        """From the container, to the user; False when nothing more comes at this time."""
        try:
            data = os.read(self.master, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: no process has the slave open at the moment, or ever again; the process's end decides.
            data = b""
        if not data:
            self.output_open = False
            return False
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            pass
        return True

    def resize(self) -> None:
        """The user's window has another size."""
        console.take_window_size(self.master)

    def drain(self) -> None:
        """Prints what the process wrote before it ended."""
        while self.read_master():
            pass

    def close(self) -> None:
        """Gives the user's terminal back."""
        self.raw.restore()
