"""One client: its connection from hello to its end, and the order of its requests."""

import errno
import os
import socket
import struct
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.version import VERSION
from ctr_common.wire import Packet, Wire
from ctr_supervisor.service import options
from ctr_supervisor.service.events import Subscription
from ctr_supervisor.service.loop import HUNG_UP, READABLE, WRITABLE, Loop

PROTOCOL_VERSION = 1
CAPABILITIES = ["command", "containers", "events", "upgrade"]

# Messages of a client that are thrown away before it is let go.
LAST_WORDS = 16
# Answers that wait for a client to read; one that has so many waiting is not worth more memory.
WAITING_MAX = 1024

# ucred of unix(7)
CREDENTIALS = struct.Struct("iII")
# asm-generic/socket.h; Python has no name for it
SO_PEERGROUPS = 59
# Bytes, four for a group; Python takes no larger buffer. Of somebody in more groups only the primary one is known.
GROUPS_SIZE = 1024


# What a message fails with that can't be sent to anybody: too large, or more than msgpack has words for.
UNSENDABLE = (errno.EINVAL, errno.EMSGSIZE)


def instead(error: ProtocolError, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of an error in place of an answer that can't be sent."""
    return {"error": error.as_dict(), **{name: fields[name] for name in ("seq",) if name in fields}}


class Peer:
    """Who is at the other end, as the kernel tells it.

    Attributes:
        pid, uid, gid: at the time of the connection.
        groups: supplementary groups.
    """

    __slots__ = ("gid", "groups", "pid", "uid")

    def __init__(self, connected: socket.socket) -> None:
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        self.pid, self.uid, self.gid = CREDENTIALS.unpack(credentials)
        try:
            found = connected.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_SIZE)
        except OSError:
            found = b""
        self.groups = set(struct.unpack(f"{len(found) // 4}I", found))

    def may_connect(self, group: int | None) -> bool:
        """Whether this supervisor serves them."""
        if self.uid in (0, os.geteuid()):
            return True
        return group is not None and (self.gid == group or group in self.groups)


class Connection:
    """A client's connection.

    Args:
        wire: non-blocking; owned here.
        on_request: called with this and each request; the packet is owned by whoever is called.
        on_end: called once, when the connection is closed, from either side.

    Attributes:
        root: told in hello.
        given: a job speaks on this connection; only its end is watched here.
        subscriptions: by the `seq` of their requests.
        when_ready: called when everything that waited for the client has been sent.
    """

    def __init__(
        self,
        loop: Loop,
        wire: Wire,
        peer: Peer,
        root: str,
        on_request: "Callable[[Connection, Packet], None]",
        on_end: "Callable[[Connection], None]",
    ) -> None:
        self.loop = loop
        self.wire = wire
        self.peer = peer
        self.root = root
        self.client = ""
        self.greeted = False
        self.given = False
        self.closed = False
        self.subscriptions: dict[int, Subscription] = {}
        self.when_ready: list[Callable[[], None]] = []
        self._on_request = on_request
        self._on_end = on_end
        self._waiting: deque[tuple[str, dict[str, int], dict[str, Any]]] = deque()
        loop.add(wire.fileno(), self._on_event, READABLE | HUNG_UP)

    def _on_event(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & READABLE and not self.given:
            self._read()
        elif events & HUNG_UP:
            self.close()

    def _read(self) -> None:
        """One message: the loop comes back for the next, after others had their turn."""
        try:
            packet = self.wire.receive()
        except ProtocolError as error:
            if error.errno != errno.EAGAIN:
                self.fail(error)
            return
        if packet is None:
            self.close()
            return
        self._handle(packet)

    def _handle(self, packet: Packet) -> None:
        if self.greeted:
            try:
                self._on_request(self, packet)
            except CtrError as error:
                packet.close()
                self.answer_error(packet, error)
            except OSError as error:
                # Out of fds, as a rule: nobody but this client is to notice.
                packet.close()
                self.answer_error(packet, CtrError.from_os_error(error))
            except Exception as error:  # a mistake of ours must not end what serves everybody else
                packet.close()
                options.log("".join(traceback.format_exception(error)).rstrip())
                self.answer_error(packet, CtrError(f"internal error: {error!r}"))
            return
        with packet:
            try:
                if packet.type != "hello":
                    raise ProtocolError(f"expected hello, got {packet.type}")
                version = packet.get("version", int, 0)
                if version != PROTOCOL_VERSION:
                    raise ProtocolError(
                        f"the client speaks protocol version {version}, the supervisor version {PROTOCOL_VERSION}",
                        hint="client and supervisor must be of the same release",
                    )
                self.client = packet.get("client", str, "")
            except ProtocolError as error:
                self.fail(error)
                return
        self.greeted = True
        self.send(
            "hello",
            version=PROTOCOL_VERSION,
            server=VERSION,
            capabilities=CAPABILITIES,
            pid=os.getpid(),
            root=self.root,
        )

    @property
    def behind(self) -> bool:
        """Whether messages wait for the client to read."""
        return bool(self._waiting)

    def give(self) -> None:
        """From now on a job speaks on this connection, and nobody else: it may wait for the client, we must not."""
        if not self.closed:
            self.given = True
            self.loop.change(self.wire.fileno(), HUNG_UP)

    def take_back(self) -> None:
        """The job has ended, and may have left a word to be said."""
        if not self.closed:
            self.given = False
            # The job had the same open file, and made it wait.
            os.set_blocking(self.wire.fileno(), False)

    def answer(self, request: Packet, fds: dict[str, int] | None = None, **fields: Any) -> None:
        """The result of a request."""
        seq = request.body.get("seq")
        self.send("result", fds, **fields, **({"seq": seq} if isinstance(seq, int) else {}))

    def answer_error(self, request: Packet, error: CtrError) -> None:
        """The failure of a request."""
        seq = request.body.get("seq")
        self.send("error", error=error.as_dict(), **({"seq": seq} if isinstance(seq, int) else {}))

    def fail(self, error: CtrError) -> None:
        """Says what is wrong, and ends the connection."""
        self.send("error", error=error.as_dict())
        self._let_be_said()
        self.close()

    def _let_be_said(self) -> None:
        """Takes what has come: a socket that is closed with something unread takes back what it said (unix(7))."""
        for _ in range(LAST_WORDS):
            try:
                packet = None if self.closed else self.wire.receive()
            except ProtocolError as error:
                if error.errno:
                    return
                continue
            if packet is None:
                return
            packet.close()

    def send(self, type: str, fds: dict[str, int] | None = None, /, **fields: Any) -> None:
        """Sends a message now, or when the client reads again; a client that never does is let go.

        Does nothing once the connection is closed, or given to a job.

        Args:
            fds: stay the caller's.
        """
        if self.closed or self.given:
            return
        if not self._waiting:
            try:
                self.wire.send(type, fds, **fields)
                return
            except ProtocolError as error:
                if error.errno != errno.EAGAIN:
                    self._not_sent(type, error, fields)
                    return
        if len(self._waiting) >= WAITING_MAX:
            self.close()
            return
        kept: dict[str, int] = {}
        try:
            for name, fd in (fds or {}).items():
                kept[name] = os.dup(fd)
        except OSError:
            for fd in kept.values():
                os.close(fd)
            self.close()
            return
        self._waiting.append((type, kept, fields))
        self.loop.change(self.wire.fileno(), READABLE | WRITABLE | HUNG_UP)

    def _not_sent(self, type: str, error: ProtocolError, fields: dict[str, Any]) -> None:
        """The peer is gone; or what there is to say can't be said, which is said."""
        if error.errno in UNSENDABLE and type != "error":
            self.send("error", **instead(error, fields))
        else:
            self.close()

    def _flush(self) -> None:
        while self._waiting:
            kind, fds, fields = self._waiting[0]
            try:
                self.wire.send(kind, fds, **fields)
            except ProtocolError as error:
                if error.errno == errno.EAGAIN:
                    return
                if error.errno not in UNSENDABLE:
                    self.close()
                    return
                self._waiting[0] = ("error", {}, instead(error, fields))
                for fd in fds.values():
                    os.close(fd)
                continue
            self._waiting.popleft()
            for fd in fds.values():
                os.close(fd)
        self.loop.change(self.wire.fileno(), READABLE | HUNG_UP)
        for callback in list(self.when_ready):
            callback()

    def export(self, keep: Callable[[int], int]) -> dict[str, Any]:
        """What another program needs to go on with it, for `restore`.

        Args:
            keep: told of every fd that the other program is to have.
        """
        return {
            "fd": keep(self.wire.fileno()),
            "client": self.client,
            "greeted": self.greeted,
            "given": self.given,
            "waiting": [
                [kind, {name: keep(fd) for name, fd in fds.items()}, fields] for kind, fds, fields in self._waiting
            ],
            "subscriptions": [
                [seq, one.container_id, *one.backlog, one.pressure] for seq, one in self.subscriptions.items()
            ],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes on where the connection with that `export` was; its subscriptions are the caller's to make."""
        self.client = saved["client"]
        self.greeted = saved["greeted"]
        self._waiting.extend((kind, fds, fields) for kind, fds, fields in saved["waiting"])
        if saved["given"]:
            self.give()
        elif self._waiting:
            self.loop.change(self.wire.fileno(), READABLE | WRITABLE | HUNG_UP)

    def close(self) -> None:
        """Ends it; does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove(self.wire.fileno())
        self.wire.close()
        while self._waiting:
            for fd in self._waiting.popleft()[1].values():
                os.close(fd)
        self.when_ready.clear()
        self._on_end(self)
