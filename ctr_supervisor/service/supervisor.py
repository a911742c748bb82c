"""The supervisor: who asks, and who answers.

Nothing here blocks: what may take its time is a job's.

clients ──▶ Connection ──▶ Supervisor ──▶ Answers    what is known: list, state, wait, events
                                      ├─▶ Commands   command lines of the thin client
                                      └─▶ Order ──▶ Dispatch ──▶ pool    what a job does
"""

import errno
import os
import socket
import time
from typing import Any

from ctr_common.errors import CtrError, NotSupported, ProtocolError, from_dict
from ctr_common.version import VERSION
from ctr_common.wire import Packet, Wire
from ctr_supervisor.service import options, pool, requests, succession
from ctr_supervisor.service.answers import Answers
from ctr_supervisor.service.commands import Commands
from ctr_supervisor.service.connection import Connection, Peer
from ctr_supervisor.service.dispatch import Dispatch, Job
from ctr_supervisor.service.events import Hub
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.order import Order
from ctr_supervisor.service.registry import HALF_MADE_AFTER, Registry
from ctr_supervisor.service.waits import Waits

# Of what jobs say while they work.
LOGGED = ("warning", "error")
# Events that nothing shows but the report of the job; the registry sees the others by itself.
TOLD_BY_JOBS = ("updated",)
# Connections taken in one round.
ACCEPTED = 32
# What accept(2) says when it is not the client's fault, and for how long it is not asked again then, in seconds.
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ACCEPT_PAUSE = 1.0
# Seconds between looks at what may be half made.
LOOK_AGAIN_AFTER = 2.0


class Supervisor:
    """Serves clients until it is told to stop.

    Args:
        root: state root.
        listener: non-blocking SEQPACKET socket that listens.
        ends: of the pool's sockets.
        group: whose members may connect too.
        systemd_cgroup: containers of its own are made by systemd, unless a request says otherwise.
        saved: what `succession.export` of the program before this one returned; None at a start.

    Attributes:
        restored: connections of that program, until it has been answered for.
    """

    def __init__(
        self,
        loop: Loop,
        root: str,
        listener: socket.socket,
        ends: pool.Ends,
        group: int | None = None,
        systemd_cgroup: bool = False,
        saved: dict[str, Any] | None = None,
    ) -> None:
        self.loop = loop
        self.root = root
        self.listener = listener
        self.group = group
        self.systemd_cgroup = systemd_cgroup
        self.started = time.monotonic()
        self.upgrades = 0
        self.connections: set[Connection] = set()
        self.order = Order()
        self.registry = Registry(root, loop, saved=(saved or {}).get("registry"))
        self.hub = Hub(loop, self.registry)
        self.registry.teller.on_event = self.hub.publish
        self.answers = Answers(self.registry, self.hub, Waits(), self.status)
        self.dispatch = Dispatch(loop, ends, self._job_reported, self._job_ended)
        self.commands = Commands(self.dispatch, self.registry)
        loop.add(listener.fileno(), self._accept)
        # Their order is that of `saved`.
        self.restored = succession.restore(self, saved) if saved is not None else []
        self.undo_half_made()
        # Whose creator was still at it.
        loop.call_later(2 * HALF_MADE_AFTER, self.undo_half_made)

    def undo_half_made(self) -> None:
        """Has what dead creators left removed, and looks again while something is too young to be judged."""
        found = self.registry.half_made()
        for container_id in found:
            self._start_own({"type": "delete", "id": container_id, "force": True})
        if set(self.registry.half_made(0)).difference(found):
            self.loop.call_later(LOOK_AGAIN_AFTER, self.undo_half_made)

    def kill_all(self, container_id: str) -> None:
        """Has every process in a container's cgroups killed; does not wait for it."""
        self._start_own({"type": "kill", "id": container_id, "signal": "KILL", "all": True})

    def status(self) -> dict[str, Any]:
        """What the request `status` tells."""
        containers, running = self.registry.count()
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "root": self.root,
            "uptime": time.monotonic() - self.started,
            "containers": containers,
            "running": running,
            "clients": len(self.connections),
            "subscribers": len(self.hub),
            "jobs": len(self.dispatch.jobs),
            "upgrades": self.upgrades,
            "commands": self.commands.taken,
        }

    def close(self) -> None:
        """Lets go of clients and containers, which go on."""
        for connection in list(self.connections):
            connection.close()
        self.hub.close()
        self.registry.close()

    # -- clients

    def _accept(self, _: int) -> None:
        for _count in range(ACCEPTED):
            try:
                connected, _address = self.listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                # The listener would be readable at once again.
                options.log(f"ignoring those who connect, for {ACCEPT_PAUSE:g} s: {error.strerror}")
                self.loop.remove(self.listener.fileno())
                self.loop.call_later(ACCEPT_PAUSE, lambda: self.loop.add(self.listener.fileno(), self._accept))
                return
            connected.setblocking(False)
            connection = self.add_connection(Peer(connected), Wire(connected.detach(), "client"))
            if not connection.peer.may_connect(self.group):
                connection.fail(ProtocolError(f"uid {connection.peer.uid} may not use this supervisor"))

    def add_connection(self, peer: Peer, wire: Wire) -> Connection:
        """Serves somebody who has connected."""
        made = Connection(self.loop, wire, peer, self.root, self.handle, self._connection_ended)
        self.connections.add(made)
        return made

    def _connection_ended(self, connection: Connection) -> None:
        """A connection was closed, from either side."""
        self.connections.discard(connection)
        self.answers.forget(connection)
        self.order.forget(connection)
        without_client = [found for found in self.dispatch.jobs.values() if found.connection is connection]
        for found in without_client:
            found.connection = None
        if any(found.ends_with_client for found in without_client):
            # A worker whose report lies there unread does another client's job by now.
            self.loop.drain_urgent()
        for found in without_client:
            if found.ends_with_client and found.number in self.dispatch.jobs:
                found.end()

    def handle(self, connection: Connection, request: Packet) -> None:
        """One request of a client; owns the packet.

        Raises:
            CtrError: it can't be served; told to the client.
        """
        if request.type == "command":
            self.commands.take(connection, request)
        elif request.type == "finish":
            fields = {name: request.body.get(name) for name in ("id", "root", "pid")}
            self.dispatch.start("finish", connection, request, **fields)
        elif request.type in requests.HANDLERS:
            if not self.order.must_wait(connection, request):
                try:
                    self._start_request(connection, request)
                except OSError:
                    self._start_next(connection, request)
                    raise
        else:
            answer = self.answers.by_type.get(request.type)
            if answer is None:
                raise NotSupported(f"no request is called {request.type}")
            with request:
                answer(connection, request)

    # -- jobs

    def _start_request(self, connection: Connection | None, request: Packet) -> None:
        self.dispatch.start(
            "request", connection, request, body=request.body, root=self.root, systemd_cgroup=self.systemd_cgroup
        )

    def _start_next(self, connection: Connection, request: Packet) -> None:
        """A request is done with: the one that waits for it has its turn."""
        following = self.order.done(connection, request)
        while following is not None:
            try:
                self._start_request(connection, following)
                return
            except OSError as error:
                following.close()
                connection.answer_error(following, CtrError.from_os_error(error))
                following = self.order.done(connection, following)

    def _start_own(self, body: dict[str, Any]) -> None:
        """A request that nobody asked for."""
        self._start_request(None, Packet(body, {}))

    def _job_reported(self, found: Job, packet: Packet) -> None:
        if packet.type == "answer":
            body = packet.get("body", dict, {})
            if found.request.type == "exec":
                container_id = found.request.get("id", str, "")
                self.answers.waits.exec_made(container_id, body["pid"])
                self.hub.happened("exec-started", container_id, pid=body["pid"])
            if found.connection is not None:
                fds = {name: packet.fd(name) for name in packet.fd_names}
                found.connection.answer(found.request, fds, **body)
        elif packet.type == "event":
            # Before it is started, so that its end is seen however soon that comes.
            self.registry.refresh()
            if packet.get("event", str, "") in TOLD_BY_JOBS:
                self.hub.happened(packet.body["event"], packet.get("id", str, ""))
        elif packet.type == "log":
            if packet.get("level", str, "") in LOGGED:
                options.log(f"{packet.get('id', str, '')}: {packet.get('line', str, '')}")
        elif packet.type == "failure" and found.connection is not None:
            found.connection.answer_error(found.request, from_dict(packet.get("error", dict, {})))

    def _job_ended(self, found: Job, error: CtrError | None) -> None:
        if error is not None:
            if found.connection is not None:
                if found.kind != "request":
                    found.connection.take_back()
                found.connection.answer_error(found.request, error)
            self.loop.call_later(HALF_MADE_AFTER + 1, self.undo_half_made)
        elif len(self.hub):
            # What it did is told before anything that happens next.
            self.registry.refresh()
        if found.kind == "request":
            if found.connection is not None:
                self._start_next(found.connection, found.request)
        elif found.connection is not None:
            # The job has the only end that is still spoken on.
            connection, found.connection = found.connection, None
            connection.close()
