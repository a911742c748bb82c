"""`criu swrk`: CRIU as a child that takes one request on a SEQPACKET socket."""

import os
import select

from ctr_common.errors import CriuError, CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_criu_bridge import rpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

MESSAGE_MAX = 256 * 1024
# cr_errmsg and a few warnings; a CRIU that cannot even start says so here
OUTPUT_MAX = 16 * 1024

# How long CRIU may take to end after its last word, before it is killed.
END_TIMEOUT = 30.0
SIGKILL, SIGPIPE, SIGXFSZ = 9, 13, 25
# seconds between two looks at what has been written, while nothing else happens
TICK = 0.25


class Swrk:
    """A running CRIU and the socket to it.

    Args:
        criu: path of the program, or its name on PATH.
        fds: that it inherits under their own numbers.
        keep_stdio: it gets this process's stdin, stdout and stderr, as a restored process needs them; else its output
            is kept for error messages.

    Attributes:
        pid: of CRIU.
    """

    def __init__(self, criu: str, fds: "Sequence[int]" = (), *, keep_stdio: bool = False) -> None:
        self.path = find(criu)
        self._output = os.memfd_create("criu-output", os.MFD_CLOEXEC)
        ours, theirs = _kernel.socketpair()
        self._socket = ours
        try:
            self.pid = start([self.path, "swrk", str(theirs)], (theirs, *fds), -1 if keep_stdio else self._output)
        except OSError as error:
            os.close(ours)
            os.close(self._output)
            raise _cannot_run(self.path, error) from None
        finally:
            os.close(theirs)
        self._ended: int | None = None

    def __enter__(self) -> "Swrk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: "dict[str, Any]") -> None:
        """Sends a request.

        Raises:
            CriuError: CRIU is gone.
        """
        try:
            _kernel.sendmsg(self._socket, rpc.encode("req", request))
        except OSError:
            raise self.vanished() from None

    def receive(self, on_tick: "Callable[[], None] | None" = None) -> "tuple[dict[str, Any], list[int]]":
        """The next response, with the fds that came along, which are the caller's to close.

        Args:
            on_tick: called now and then while CRIU works.

        Raises:
            CriuError: CRIU ended without one, or said something else.
        """
        self._wait(on_tick)
        try:
            data, fds, _ = _kernel.recvmsg(self._socket, MESSAGE_MAX)
        except OSError:
            raise self.vanished() from None
        try:
            if not data:
                raise self.vanished()
            try:
                response = rpc.decode("resp", data)
            except rpc.DecodeError as error:
                raise CriuError(f"criu sent what is no response: {error}", path=self.path) from None
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return response, fds

    def _wait(self, on_tick: "Callable[[], None] | None") -> None:
        if on_tick is None:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(TICK * 1000):
            on_tick()

    def vanished(self) -> CriuError:
        """What to say of a CRIU that closed its socket without an answer."""
        status = self.end()
        if status is not None and status < 0:
            return CriuError(f"criu was killed by signal {-status}", path=self.path)
        said = self.output().strip().splitlines()
        why = f": {said[-1]}" if said else ""
        return CriuError(f"criu ended without an answer, exit status {status}{why}", path=self.path)

    def output(self) -> str:
        """What it wrote to stdout and stderr, where that was kept."""
        return os.pread(self._output, OUTPUT_MAX, 0).decode(errors="replace")

    def end(self) -> int | None:
        """Closes the socket and waits for CRIU's end.

        Returns:
            Its exit status, minus the signal that killed it, None where that had to be us.
        """
        socket, self._socket = self._socket, -1
        if socket >= 0:
            os.close(socket)
        if self._ended is None:
            if not self._has_ended(END_TIMEOUT):
                os.kill(self.pid, SIGKILL)
                os.waitpid(self.pid, 0)
                return None
            self._ended = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._ended

    def _has_ended(self, timeout: float) -> bool:
        try:
            pidfd = Fd(_kernel.pidfd_open(self.pid))
        except OSError:
            # Linux before 5.3 has no pidfds
            return True
        with pidfd:
            poll = select.poll()
            poll.register(pidfd.fileno(), select.POLLIN)
            return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        """Ends CRIU if it still runs; does nothing the second time."""
        if self._socket >= 0:
            # Not killed: when its socket closes, a CRIU that is in the middle undoes what it did.
            self.end()
        output, self._output = self._output, -1
        if output >= 0:
            os.close(output)


def start(argv: "list[str]", fds: "Sequence[int]", output: int) -> int:
    """Starts a program; returns its pid. Signals that are ignored here are ignored there, but for Python's own.

    Args:
        argv: argv[0] is its path.
        fds: that it inherits under their own numbers.
        output: becomes its stdout and stderr, and /dev/null its stdin; -1 leaves all three as they are here.

    Raises:
        OSError: it can't be run.
    """
    actions: list[tuple[Any, ...]] = []
    if output >= 0:
        actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
        actions += [(os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2)]
    # onto themselves: without close-on-exec
    actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in fds]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigmask=(), setsigdef=(SIGPIPE, SIGXFSZ))


def find(criu: str) -> str:
    """Absolute path of the program.

    Args:
        criu: a path, or a name to look for on PATH; "" for `criu`.

    Raises:
        CriuError: there is none.
    """
    criu = criu or "criu"
    candidates = [criu] if "/" in criu else [f"{place or '.'}/{criu}" for place in search_path()]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.abspath(path)
    hint = "install criu, or name it with --criu"
    where = "" if "/" in criu else " in $PATH"
    why = "not found" if not os.path.exists(criu) else "not executable"
    raise CriuError(f"criu: {criu}: executable file {why}{where}", hint=hint)


def search_path() -> "list[str]":
    """The places where programs are."""
    return os.environ.get("PATH", os.defpath).split(":")


def _cannot_run(path: str, error: OSError) -> CtrError:
    return CriuError("cannot run criu", syscall="execve", errno=error.errno or 0, path=path)
