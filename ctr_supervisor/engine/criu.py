"""The bridge to CRIU from the engine's side: one process, one request; see ctr_criu_bridge/server.py for the chart."""

import os
import sys

from ctr_common.errors import CriuError, CtrError, ProtocolError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PR_SET_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ctr_common.wire import Packet
    from ctr_supervisor.engine.runtime import Runtime

SOCKET_VARIABLE = "CTR_CRIU_SOCKET"
PROGRAM = "ctr-criu-bridge"

# CRIU told us nothing of what it does while it copies memory; a person who waits too long has Ctrl-C.
STUB = "import sys; sys.path += {paths}; from ctr_criu_bridge.main import main; raise SystemExit(main())"
SOCKET_FD = 3
FD_MAX = 0xFFFFFFFF
CRASHED = 1


class Listener:
    """Who is asked while a request is under way; each verb has one of its own."""

    def notified(self, script: str, pid: int, master: Fd) -> None:
        """CRIU waits for the answer to one of its notifications.

        Args:
            pid: of the restored process, where CRIU tells it.
            master: of the restored terminal, with "orphan-pts-master"; to be taken.

        Raises:
            CtrError: CRIU is to give up, and undo what it did.
        """

    def started(self, pid: int) -> "list[tuple[str, str]]":
        """CRIU runs; returns the cgroups, by controller, that it was put into."""
        return []

    def progressed(self, phase: str, size: int) -> None:
        """So many bytes are in the images folder."""


def fork(runtime: "Runtime", socket: int) -> int:
    """Makes the bridge of this process; returns its pid.

    Args:
        socket: its end, which stays ours.

    Raises:
        CriuError: there can be no other process.
    """
    try:
        pid = os.fork()
    except OSError as error:
        raise CriuError(f"cannot run {PROGRAM}", syscall="fork", errno=error.errno or 0) from None
    if pid:
        return pid
    status = CRASHED
    try:
        # Nothing of ours is kept open by it, least of all our end of the socket.
        kept = [os.dup(fd) for fd in runtime.parent.stdio]
        for number, fd in enumerate(kept):
            os.dup2(fd, number)
        if socket != SOCKET_FD:
            os.dup2(socket, SOCKET_FD, inheritable=False)
        _kernel.close_range(SOCKET_FD + 1, FD_MAX)
        _kernel.prctl(PR_SET_NAME, PROGRAM.encode() + b"\0")
        from ctr_criu_bridge import server

        status = server.serve(SOCKET_FD)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def spawn(runtime: "Runtime", socket: int) -> int:
    """Starts the bridge with an interpreter of its own; as `fork`."""
    from ctr_common import paths

    environment = [f"{name}={value}" for name, value in os.environ.items() if name != SOCKET_VARIABLE]
    environment.append(f"{SOCKET_VARIABLE}={SOCKET_FD}")
    stub = STUB.format(paths=repr([*paths.search_path()]))
    stdio = [(fd, number) for number, fd in enumerate(runtime.parent.stdio)]
    try:
        with Fd(os.open(sys.executable, os.O_RDONLY | os.O_CLOEXEC)) as interpreter:
            pid, pidfd = _kernel.spawn(
                interpreter.fileno(),
                [sys.executable, "-I", "-S", "-c", stub],
                environment,
                [*stdio, (socket, SOCKET_FD)],
            )
    except OSError as error:
        raise CriuError(f"cannot run {PROGRAM}", path=sys.executable, errno=error.errno or 0) from None
    os.close(pidfd)
    return pid


class Bridge:
    """A bridge process and the socket to it.

    Args:
        runtime: knows the criu to use.
    """

    def __init__(self, runtime: "Runtime") -> None:
        from ctr_common import programs
        from ctr_common.wire import Wire

        self.runtime = runtime
        ours, theirs = _kernel.socketpair()
        self.wire = Wire(ours, "CRIU bridge")
        try:
            # An interpreter of its own takes 20 to 40 ms; beside other threads there is no way around it.
            self.pid = fork(runtime, theirs) if programs.is_alone() else spawn(runtime, theirs)
        except BaseException:
            self.wire.close()
            raise
        finally:
            os.close(theirs)

    def __enter__(self) -> "Bridge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, verb: str, listener: Listener, fds: "dict[str, int] | None" = None, **fields: "Any") -> "Packet":
        """Sends the request and answers what comes until its result.

        Args:
            verb: what is wanted.
            fds: by name; they stay the caller's.
            fields: the rest of the request.

        Raises:
            CtrError: what the bridge, or the listener, says.
        """
        self.wire.send("request", fds, verb=verb, criu=self.runtime.criu, **fields)
        failure: CtrError | None = None
        while True:
            packet = self.wire.receive()
            if packet is None:
                raise failure or ProtocolError("the CRIU bridge ended in the middle of a request")
            if packet.type == "result":
                return packet
            with packet:
                if packet.type == "error":
                    raise failure or packet.error()
                failure = self._answer(packet, listener) or failure

    def _answer(self, packet: "Packet", listener: Listener) -> "CtrError | None":
        """Answers one message; returns why that failed, which the bridge is told too."""
        try:
            if packet.type == "progress":
                listener.progressed(packet.get("phase", str, ""), packet.get("bytes", int, 0))
                return None
            if packet.type == "criu":
                roots = listener.started(packet.get("pid", int, 0))
                self.wire.send("cgroups", None, roots=roots)
                return None
            if packet.type != "notify":
                raise ProtocolError(f"the CRIU bridge sent {packet.type}")
            with Fd(packet.take_fd("master") if packet.fd_names else -1) as master:
                script = packet.get("script", str, "")
                self.runtime.note(f"criu notifies: {script}")
                listener.notified(script, packet.get("pid", int, 0), master)
            self.wire.send("go-on")
        except CtrError as error:
            self.wire.send_error(error)
            return error
        return None

    def close(self) -> None:
        """Waits for its end; the restored process then is the child of our caller's subreaper, or ours."""
        self.wire.close()
        pid, self.pid = self.pid, 0
        if pid:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass


def tell_details(runtime: "Runtime", error: CtrError) -> None:
    """Writes the lines of CRIU's log that an error comes with into ours."""
    details: Sequence[str] = getattr(error, "details", ())
    for line in details:
        runtime.warn(f"criu: {line}")


def ask(runtime: "Runtime", verb: str) -> "dict[str, Any]":
    """What a request says that needs nothing but CRIU: version, features.

    Raises:
        CriuError: there is no CRIU, or it does not tell.
    """
    with Bridge(runtime) as bridge, bridge.request(verb, Listener()) as result:
        return result.body
