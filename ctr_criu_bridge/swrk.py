"""`criu swrk`: CRIU as a child that takes one request on a SEQPACKET socket."""

import os
import select
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from ctr_common.errors import CriuError, CtrError
from ctr_common.kernel import _kernel
from ctr_criu_bridge import rpc

MESSAGE_MAX = 256 * 1024
# cr_errmsg and a few warnings; a CRIU that cannot even start says so here
OUTPUT_MAX = 16 * 1024

# How long CRIU may take to end after its last word, before it is killed.
END_TIMEOUT = 30.0
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

    def __init__(self, criu: str, fds: Sequence[int] = (), *, keep_stdio: bool = False) -> None:
        self.path = find(criu)
        self._output = os.memfd_create("criu-output", os.MFD_CLOEXEC)
        ours, theirs = _kernel.socketpair()
        self._socket = ours
        kept = None if keep_stdio else self._output
        try:
            self._process = subprocess.Popen(
                [self.path, "swrk", str(theirs)],
                stdin=None if keep_stdio else subprocess.DEVNULL,
                stdout=kept,
                stderr=kept,
                pass_fds=(theirs, *fds),
            )
        except OSError as error:
            os.close(ours)
            os.close(self._output)
            raise _cannot_run(self.path, error) from None
        finally:
            os.close(theirs)
        self.pid = self._process.pid

    def __enter__(self) -> "Swrk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: Any) -> None:
        """Sends a request.

        Raises:
            CriuError: CRIU is gone.
        """
        try:
            _kernel.sendmsg(self._socket, request.SerializeToString())
        except OSError:
            raise self.vanished() from None

    def receive(self, on_tick: Callable[[], None] | None = None) -> tuple[Any, list[int]]:
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
                response = rpc.Response.FromString(data)
            except DecodeError as error:
                raise CriuError(f"criu sent what is no response: {error}", path=self.path) from None
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return response, fds

    def _wait(self, on_tick: Callable[[], None] | None) -> None:
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
        try:
            return self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    def close(self) -> None:
        """Ends CRIU if it still runs; does nothing the second time."""
        if self._socket >= 0:
            # Not killed: when its socket closes, a CRIU that is in the middle undoes what it did.
            self.end()
        output, self._output = self._output, -1
        if output >= 0:
            os.close(output)


def find(criu: str) -> str:
    """Absolute path of the program.

    Args:
        criu: a path, or a name to look for on PATH; "" for `criu`.

    Raises:
        CriuError: there is none.
    """
    criu = criu or "criu"
    found = shutil.which(criu)
    if found is None:
        hint = "install criu, or name it with --criu"
        where = "" if "/" in criu else " in $PATH"
        why = "not found" if not os.path.exists(criu) else "not executable"
        raise CriuError(f"criu: {criu}: executable file {why}{where}", hint=hint)
    return os.path.abspath(found)


def _cannot_run(path: str, error: OSError) -> CtrError:
    return CriuError("cannot run criu", syscall="execve", errno=error.errno or 0, path=path)
