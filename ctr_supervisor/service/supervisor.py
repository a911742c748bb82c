"""The supervisor: who asks, what is answered at once, and which job does the rest."""

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_common.errors import CtrError, NotSupported, ProtocolError, from_dict
from ctr_common.version import VERSION
from ctr_common.wire import Packet, Wire
from ctr_supervisor.cli import parser, surroundings
from ctr_supervisor.engine.runtime import in_initial_user_namespace
from ctr_supervisor.process.parent import shell_status
from ctr_supervisor.service import options, pool, requests, shown, succession
from ctr_supervisor.service.connection import Connection, Peer
from ctr_supervisor.service.events import Hub
from ctr_supervisor.service.loop import WRITABLE, Loop
from ctr_supervisor.service.order import Order
from ctr_supervisor.service.registry import HALF_MADE_AFTER, Registry
from ctr_supervisor.service.waits import Waits

SIGTERM = 15

# Namespaces in which a client must be where the supervisor is: the job looks at paths, pids and devices in its place.
SHARED_NAMESPACES = ("cgroup", "mnt", "net", "pid", "user")
# What a client tells by its pid, which is not the job's.
TOLD_BY_PID = ("NOTIFY_SOCKET=", "LISTEN_FDS=")
# CRIU makes a process as its own sibling, and a client can't be the parent of that.
MADE_BY_CRIU = {"checkpoint", "restore"}
# Verbs whose job ends when its client does: those that only show something, and those that make a process, which is to
# be the client's child.
END_WITH_CLIENT = {"create", "events", "exec", "features", "help", "list", "ps", "run", "spec", "state"}

# Of what jobs say while they work.
LOGGED = ("warning", "error")

# Events that nothing shows but the report of the job; the registry sees the others by itself.
TOLD_BY_JOBS = ("updated",)

# How many clients may be connecting at once.
BACKLOG = 512
# Connections taken in one round.
ACCEPTED = 32


class Job:
    """One job under way.

    Attributes:
        number: what it is called in messages with the pool.
        kind: see job.py.
        request: what the client asked for.
        connection: None once it is closed, or where nobody asked.
        pid: of the worker, 0 until it has taken the job.
        ends_with_client: it is ended when its client is gone.
        done: it has said its last word.
        owner: the connection that it was begun for, open or not; what its order is kept by.
        of_old_pool: it was begun by the program before this one.
    """

    __slots__ = ("connection", "done", "ends_with_client", "kind", "number", "of_old_pool", "owner", "pid", "request")

    def __init__(self, number: int, kind: str, connection: Connection | None, request: Packet) -> None:
        self.number = number
        self.kind = kind
        self.connection = connection
        self.owner = connection
        self.request = request
        self.pid = 0
        self.ends_with_client = False
        self.done = False
        self.of_old_pool = False


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
        answers: what is done with a request that is no job, by its type; may be added to.
        on_pool_lost: called when the pool has ended without having been told to.
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
        self.connections: set[Connection] = set()
        self.jobs: dict[int, Job] = {}
        self.jobs_by_pid: dict[int, Job] = {}
        self.waits = Waits()
        self.order = Order()
        self.upgrades = 0
        # Of `saved`, in its order.
        self.connections_by_number: list[Connection] = []
        self.on_pool_lost: Callable[[], None] = lambda: None
        self.registry = Registry(root, loop, saved=(saved or {}).get("registry"))
        self.hub = Hub(loop, self.registry)
        self.registry.on_event = self.hub.publish
        self.commands = 0
        self.default_root = surroundings.DEFAULT_ROOT if os.geteuid() == 0 and in_initial_user_namespace() else ""
        # Of programs before this one; jobs are still under way there.
        self.old_pools: list[pool.Ends] = []
        self.job_count = 0
        self.wait_requests: list[tuple[Connection, dict[str, Any]]] = []
        self.unsent: deque[tuple[dict[str, int], dict[str, Any]]] = deque()
        self._surroundings = identity("self")
        self.answers: dict[str, Callable[[Connection, Packet], None]] = {
            "config": self._config,
            "features": self._features,
            "list": self._list,
            "ping": self._ping,
            "state": self._state,
            "status": self._status,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "wait": self.wait,
        }
        loop.add(listener.fileno(), self._accept)
        self.use_pool(ends)
        if saved is not None:
            succession.restore(self, saved)
        self.undo_half_made()
        # What was too young to be judged.
        loop.call_later(2 * HALF_MADE_AFTER, self.undo_half_made)

    def undo_half_made(self) -> None:
        """Has what dead creators left removed."""
        for container_id in self.registry.half_made():
            body = {"type": "delete", "id": container_id, "force": True}
            self.start_job("request", None, Packet(body, {}), **self._request_fields(body))

    # -- pool

    def use_pool(self, ends: pool.Ends) -> None:
        """Jobs go to this pool from now on."""
        self.ends = ends
        os.set_blocking(ends.jobs.fileno(), False)
        self.listen_to(ends)

    def listen_to(self, ends: pool.Ends) -> None:
        """Hears what a pool reports."""
        for wire in (ends.reports, ends.control):
            os.set_blocking(wire.fileno(), False)
        self.loop.add(ends.reports.fileno(), lambda _: self._read_reports(ends), urgent=True)
        self.loop.add(ends.control.fileno(), lambda _: self._read_control(ends))

    def _pool_ended(self, ends: pool.Ends) -> None:
        for wire in (ends.reports, ends.control):
            self.loop.remove(wire.fileno())
        if ends is not self.ends:
            # One of the program before this, whose last job is done.
            self.old_pools.remove(ends)
            ends.close()
            if not self.old_pools:
                for found in [found for found in self.jobs.values() if found.of_old_pool]:
                    self._job_failed(found, CtrError("the pool of workers has ended"))
            return
        for found in list(self.jobs.values()):
            self._job_failed(found, CtrError("the pool of workers has ended"))
        self.on_pool_lost()

    def _request_fields(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"body": body, "root": self.root, "systemd_cgroup": self.systemd_cgroup}

    def start_job(self, kind: str, connection: Connection | None, request: Packet, **fields: Any) -> Job:
        """Has a worker do something.

        Args:
            connection: who gets the answer; None for nobody.
            request: its fds go along.
        """
        self.job_count += 1
        started = Job(self.job_count, kind, connection, request)
        self.jobs[started.number] = started
        fds = {name: request.fd(name) for name in request.fd_names}
        if connection is not None and kind != "request":
            fds["connection"] = connection.wire.fileno()
            connection.give()
        self.send_job(fds, {"job": started.number, "kind": kind, **fields})
        request.close()
        return started

    def send_job(self, fds: dict[str, int], fields: dict[str, Any]) -> None:
        """Sends a job to the pool, now or when there is room; the fds stay the caller's."""
        if not self.unsent:
            try:
                self.ends.jobs.send("job", fds, **fields)
                return
            except ProtocolError as error:
                if error.errno != errno.EAGAIN:
                    raise
        # All workers are busy, and the socket is full.
        self.unsent.append(({name: os.dup(fd) for name, fd in fds.items()}, fields))
        if len(self.unsent) == 1:
            self.loop.add(self.ends.jobs.fileno(), lambda _: self._send_unsent(), WRITABLE)

    def _send_unsent(self) -> None:
        while self.unsent:
            fds, fields = self.unsent[0]
            try:
                self.ends.jobs.send("job", fds, **fields)
            except ProtocolError as error:
                if error.errno == errno.EAGAIN:
                    return
                raise
            self.unsent.popleft()
            for fd in fds.values():
                os.close(fd)
        self.loop.remove(self.ends.jobs.fileno())

    def _read_reports(self, ends: pool.Ends) -> None:
        while True:
            try:
                packet = ends.reports.receive()
            except ProtocolError as error:
                if error.errno != errno.EAGAIN:
                    raise
                return
            if packet is None:
                self.loop.remove(ends.reports.fileno())
                return
            with packet:
                found = self.jobs.get(packet.get("job", int, 0))
                if found is not None:
                    self._handle_report(found, packet)

    def _handle_report(self, found: Job, packet: Packet) -> None:
        if packet.type == "taken":
            found.pid = packet.get("pid", int, 0)
            self.jobs_by_pid[found.pid] = found
            if found.connection is None and found.ends_with_client:
                self._end_job(found)
        elif packet.type == "answer":
            body = packet.get("body", dict, {})
            if found.request.type == "exec":
                container_id = found.request.get("id", str, "")
                self.waits.exec_made(container_id, body["pid"])
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
        elif packet.type == "done":
            found.done = True
            if len(self.hub):
                # What it did is told before anything that happens next.
                self.registry.refresh()
            self._forget_job(found)

    def _read_control(self, ends: pool.Ends) -> None:
        while True:
            try:
                packet = ends.control.receive()
            except ProtocolError as error:
                if error.errno != errno.EAGAIN:
                    raise
                return
            if packet is None:
                self._read_reports(ends)
                self._pool_ended(ends)
                return
            with packet:
                # What it said before it ended comes first.
                self._read_reports(ends)
                found = self.jobs_by_pid.pop(packet.get("pid", int, 0), None)
                if found is not None and not found.done:
                    self._job_crashed(found, packet.get("status", int, 0))

    def _job_crashed(self, found: Job, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        self._job_failed(found, CtrError(f"the job that did this ended {how}"))

    def _job_failed(self, found: Job, error: CtrError) -> None:
        if found.connection is not None:
            found.connection.answer_error(found.request, error)
            if found.kind != "request":
                found.connection.close()
        self._forget_job(found)
        self.loop.call_later(HALF_MADE_AFTER + 1, self.undo_half_made)

    def _forget_job(self, found: Job) -> None:
        self.jobs.pop(found.number, None)
        if found.pid:
            self.jobs_by_pid.pop(found.pid, None)
        if found.connection is not None and found.kind != "request":
            # The job has the only end that is still spoken on.
            connection, found.connection = found.connection, None
            connection.close()
        elif found.kind == "request":
            following = self.order.done(found.owner, found.request)
            if following is not None and found.connection is not None:
                self._start_request(found.connection, following)

    def _end_job(self, found: Job) -> None:
        try:
            # With its hooks.
            os.killpg(found.pid, SIGTERM)
        except ProcessLookupError:
            pass

    # -- clients

    def _accept(self, _: int) -> None:
        for _count in range(ACCEPTED):
            try:
                connected, _address = self.listener.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            connected.setblocking(False)
            peer = Peer(connected)
            wire = Wire(connected.detach(), "client")
            connection = Connection(self.loop, wire, peer, self.root, self.handle, self.on_end)
            self.connections.add(connection)
            if not peer.may_connect(self.group):
                connection.fail(ProtocolError(f"uid {peer.uid} may not use this supervisor"))

    def on_end(self, connection: Connection) -> None:
        """A connection was closed, from either side."""
        self.connections.discard(connection)
        self.waits.forget(connection)
        self.order.forget(connection)
        self.wait_requests = [entry for entry in self.wait_requests if entry[0] is not connection]
        for subscription in connection.subscriptions.values():
            self.hub.unsubscribe(subscription)
        for found in list(self.jobs.values()):
            if found.connection is connection:
                found.connection = None
                if found.ends_with_client and found.pid:
                    self._end_job(found)

    def handle(self, connection: Connection, request: Packet) -> None:
        """One request of a client; owns the packet.

        Raises:
            CtrError: it can't be served; told to the client.
        """
        if request.type == "command":
            self._command(connection, request)
        elif request.type == "finish":
            fields = {name: request.body.get(name) for name in ("id", "root", "pid")}
            self.start_job("finish", connection, request, **fields)
        elif request.type in requests.HANDLERS:
            if not self.order.must_wait(connection, request):
                self._start_request(connection, request)
        else:
            answer = self.answers.get(request.type)
            if answer is None:
                raise NotSupported(f"no request is called {request.type}")
            with request:
                answer(connection, request)

    def _start_request(self, connection: Connection, request: Packet) -> None:
        self.start_job("request", connection, request, **self._request_fields(request.body))

    def kill_all(self, container_id: str) -> None:
        """Has every process in a container's cgroups killed; does not wait for it."""
        body = {"type": "kill", "id": container_id, "signal": "KILL", "all": True}
        self.start_job("request", None, Packet(body, {}), **self._request_fields(body))

    # -- what is answered at once

    def _ping(self, connection: Connection, request: Packet) -> None:
        connection.answer(request)

    def _status(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, **self.status())

    def _list(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, containers=self.registry.describe_all(as_answer=True))

    def _state(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, container=self.registry.describe(id_of(request), as_answer=True))

    def _config(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, config=self.registry.config(id_of(request)))

    def _features(self, connection: Connection, request: Packet) -> None:
        from ctr_supervisor.engine.features import features

        connection.answer(request, features=features())

    def wait(self, connection: Connection, request: Packet) -> None:
        """The request `wait`.

        Raises:
            CtrError: there is no such container or process.
        """
        entry = (connection, request.body)

        def answer(status: int | None) -> None:
            self.wait_requests.remove(entry)
            connection.answer(request, status=status)

        self.wait_requests.append(entry)

        try:
            if pid := request.get("pid", int, 0):
                self.waits.wait(id_of(request), pid, connection, answer)
            else:
                connection.when_closed.append(self.registry.wait(id_of(request), answer))
        except CtrError:
            self.wait_requests.remove(entry)
            raise

    def _subscribe(self, connection: Connection, request: Packet) -> None:
        seq = request.get("seq", int, 0)
        if seq in connection.subscriptions:
            raise ProtocolError(f"there is a subscription of seq {seq} on this connection")
        container_id = request.get("id", str, "")
        self.registry.refresh()
        # What happens once the client knows that it is told must be told.
        self.add_subscription(connection, seq, container_id)
        connection.answer(request)
        self.hub.resume()

    def add_subscription(self, connection: Connection, seq: int, container_id: str) -> None:
        """Has a client told of events, from the hub's next `resume` on."""

        def deliver(event: dict[str, Any]) -> bool:
            if connection.behind:
                return False
            connection.send("event", None, seq=seq, **event)
            return True

        made = connection.subscriptions[seq] = self.hub.subscribe(deliver, container_id, later=True)
        connection.when_ready.append(made.resume)

    def _unsubscribe(self, connection: Connection, request: Packet) -> None:
        found = connection.subscriptions.pop(request.get("to", int, 0), None)
        if found is None:
            raise ProtocolError("there is no such subscription on this connection")
        connection.when_ready.remove(found.resume)
        self.hub.unsubscribe(found)
        connection.answer(request)

    def child_ended(self, pid: int, status: int) -> None:
        """A child was reaped: the pool, a keeper, the process of an exec, or an orphan.

        Args:
            status: as from waitpid(2).
        """
        code = shell_status(status)
        container_id = self.waits.child_ended(pid, code)
        if container_id is not None:
            self.hub.happened("exec-exited", container_id, pid=pid, status=code)

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
            "jobs": len(self.jobs),
            "upgrades": self.upgrades,
            "commands": self.commands,
        }

    def close(self) -> None:
        """Lets go of clients and containers, which go on."""
        for connection in list(self.connections):
            connection.close()
        self.hub.close()
        self.registry.close()

    # -- the thin client

    def _command(self, connection: Connection, request: Packet) -> None:
        reason = self.reason_to_refuse(connection.peer, request)
        if reason:
            with request:
                connection.send("refuse", reason=reason)
            return
        self.commands += 1
        text = shown.answer(request.texts("argv"), self.default_root, self.registry)
        if text is not None:
            with request:
                data = text.encode("utf-8", "surrogateescape")
                if data:
                    connection.send("output", fd=1, data=data)
                connection.send("exit", status=0)
            return
        fields = {name: request.body.get(name) for name in ("argv", "env", "umask")}
        started = self.start_job("command", connection, request, **fields)
        started.ends_with_client = verb_of(request.texts("argv")) in END_WITH_CLIENT

    def reason_to_refuse(self, peer: Peer, request: Packet) -> str:
        """Why a command line can't be run in the client's place; empty when it can."""
        if peer.uid != os.geteuid():
            return f"the client is uid {peer.uid}"
        if any(entry.startswith(TOLD_BY_PID) for entry in request.texts("env")):
            return "the client has a notify socket or sockets of its own"
        verb = verb_of(request.texts("argv"))
        if verb in MADE_BY_CRIU:
            return f"{verb} makes or ends processes by CRIU, which is to be the caller's child"
        if "cwd" not in request.fd_names:
            return "the client has no working directory"
        try:
            if identity(str(peer.pid)) != self._surroundings:
                return "the client is in other namespaces, or has another root directory"
        except OSError as error:
            return f"the client can't be looked at: {error.strerror}"
        return ""


def id_of(request: Packet) -> str:
    """The container that a request is about.

    Raises:
        ProtocolError: it names none.
    """
    found: str = request.get("id", str, "")
    if not found:
        raise ProtocolError(f"{request.type} came without an id")
    return found


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
