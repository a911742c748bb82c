"""Command lines of the thin client: whose are run in their place, and which need no job."""

import os

from ctr_common.errors import CtrError
from ctr_common.wire import Packet
from ctr_supervisor.cli import parser, surroundings
from ctr_supervisor.engine.runtime import in_initial_user_namespace
from ctr_supervisor.service import shown
from ctr_supervisor.service.connection import Connection, Peer
from ctr_supervisor.service.dispatch import Dispatch
from ctr_supervisor.service.registry import Registry

# Namespaces in which a client must be where the supervisor is: the job looks at paths, pids and devices in its place.
SHARED_NAMESPACES = ("cgroup", "mnt", "net", "pid", "user")
# What a client tells by its pid, which is not the job's.
TOLD_BY_PID = ("NOTIFY_SOCKET=", "LISTEN_FDS=")
# CRIU makes a process as its own sibling, and a client can't be the parent of that.
MADE_BY_CRIU = {"restore"}
# Messages of `ctrun call` whose answer may be long in coming: a worker is not there to wait.
LONG_CALLS = {"shutdown", "subscribe", "upgrade", "wait"}
# A client passes stdio and its working directory alone.
STATUS_FD = "status-fd"
# Verbs whose job ends when its client does: those that only show something, those that make a process, which is to be
# the client's child, and the one that people give up; its container then goes on.
END_WITH_CLIENT = {
    "call",
    "checkpoint",
    "create",
    "events",
    "exec",
    "features",
    "help",
    "list",
    "ps",
    "run",
    "spec",
    "state",
}


class Commands:
    """Takes command lines.

    Attributes:
        taken: how many were not refused.
    """

    def __init__(self, dispatch: Dispatch, registry: Registry) -> None:
        self.taken = 0
        self._dispatch = dispatch
        self._registry = registry
        self._surroundings = identity("self")
        self._default_root = surroundings.DEFAULT_ROOT if os.geteuid() == 0 and in_initial_user_namespace() else ""

    def take(self, connection: Connection, request: Packet) -> None:
        """The message `command`; owns the packet."""
        argv = request.texts("argv")
        verb = verb_of(argv)
        reason = self.reason_to_refuse(connection.peer, request, argv, verb)
        if reason:
            with request:
                connection.send("refuse", reason=reason)
            return
        self.taken += 1
        text = shown.answer(argv, self._default_root, self._registry) if verb in shown.VERBS else None
        if text is not None:
            with request:
                data = text.encode("utf-8", "surrogateescape")
                if data:
                    connection.send("output", fd=1, data=data)
                connection.send("exit", status=0)
            return
        fields = {name: request.body.get(name) for name in ("argv", "env", "umask")}
        started = self._dispatch.start("command", connection, request, **fields)
        started.ends_with_client = verb in END_WITH_CLIENT

    def reason_to_refuse(self, peer: Peer, request: Packet, argv: list[str], verb: str) -> str:
        """Why a command line can't be run in the client's place; empty when it can."""
        if peer.uid != os.geteuid():
            return f"the client is uid {peer.uid}"
        if any(entry.startswith(TOLD_BY_PID) for entry in request.texts("env")):
            return "the client has a notify socket or sockets of its own"
        if verb in MADE_BY_CRIU:
            return f"{verb} makes a process by CRIU, which is to be the caller's child"
        if verb == "checkpoint" and any(word.lstrip("-").partition("=")[0] == STATUS_FD for word in argv):
            return f"an fd of the client's is named by --{STATUS_FD}"
        if verb == "call" and self._would_hold_up(argv):
            return "the call may take long, and a worker is needed for other things"
        if "cwd" not in request.fd_names:
            return "the client has no working directory"
        try:
            if identity(str(peer.pid)) != self._surroundings:
                return "the client is in other namespaces, or has another root directory"
        except OSError as error:
            return f"the client can't be looked at: {error.strerror}"
        return ""

    def _would_hold_up(self, argv: list[str]) -> bool:
        """Whether a `call` would hold a worker for long; its own request may need another one, which must be left."""
        return self._dispatch.is_busy or call_of(argv) in LONG_CALLS


def call_of(argv: list[str]) -> str:
    """The message that a command line of `call` sends, empty where it is wrong."""
    from ctr_supervisor.cli import call

    try:
        rest = parser.parse(parser.parse(argv[1:], surroundings.FLAGS).rest[1:], call.VERB.flags).rest
    except CtrError:
        return ""
    return rest[0] if rest else ""


def identity(process: str) -> list[tuple[int, int]]:
    """What tells whether two processes see the same paths, pids, users and devices.

    Args:
        process: as /proc calls it.
    """
    paths = [f"/proc/{process}/ns/{name}" for name in SHARED_NAMESPACES]
    found = [os.stat(path) for path in (*paths, f"/proc/{process}/root")]
    return [(status.st_dev, status.st_ino) for status in found]


def verb_of(argv: list[str]) -> str:
    """The verb of a command line, empty where it has none or is wrong."""
    try:
        rest = parser.parse(argv[1:], surroundings.FLAGS).rest
    except CtrError:
        return ""
    return rest[0] if rest else ""
