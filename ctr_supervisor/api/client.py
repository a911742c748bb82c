"""A running supervisor, as a blocking program sees it."""

from __future__ import annotations

import builtins
import itertools
import queue
import socket
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ctr_common.errors import CtrError, ProtocolError, WrongState
from ctr_common.fd import Fd
from ctr_common.version import VERSION
from ctr_common.wire import ERROR, Packet, Wire
from ctr_supervisor.api import ends, operations
from ctr_supervisor.api.container import Container, checkpoint_options, restore_options
from ctr_supervisor.api.events import FINAL, Event, EventStream
from ctr_supervisor.api.operations import Ask, Made, Operations

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.notifications import Notification
    from ctr_supervisor.api.process import Process
    from ctr_supervisor.api.types import (
        Config,
        ContainerState,
        Network,
        PressureLevel,
        Resources,
        Stats,
        Status,
        SupervisorStatus,
    )

T = TypeVar("T")

# A supervisor that listens and does not greet is stuck.
HELLO_TIMEOUT = 30.0


def connect(path: str | None = None) -> Supervisor:
    """Connects to a running `ctr-supervisor`.

    Args:
        path: of its socket; None for $CTRUN_SUPERVISOR where that is a path, else for that of this user's.

    Returns:
        The supervisor; to be closed, or used in a `with` block.

    Raises:
        ProtocolError: nobody listens there, or speaks another version.
    """
    return Supervisor(operations.socket_path(path))


def open_wire(path: str) -> tuple[socket.socket, Wire]:
    """Connects, and says hello.

    Raises:
        ProtocolError: nobody listens there.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connected.connect(path)
        # The socket stays the owner of the fd: it alone can be shut down.
        wire = Wire(connected.fileno(), "supervisor")
        wire.send("hello", version=1, client=f"ctr_supervisor {VERSION}")
    except OSError as error:
        connected.close()
        raise ProtocolError(
            "cannot connect to the supervisor", path=path, syscall="connect", errno=error.errno or 0
        ) from None
    except BaseException:
        connected.close()
        raise
    return connected, wire


class Connection:
    """One socket, used by many threads; one of its own reads from it.

    Args:
        path: of the supervisor's socket.

    Attributes:
        hello: the supervisor's greeting.
    """

    def __init__(self, path: str) -> None:
        self._socket, self._wire = open_wire(path)
        self._seq = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Packet]] = {}
        self._subscriptions: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
        self._failure: CtrError | None = None
        try:
            packet = self._wire.receive(HELLO_TIMEOUT)
            if packet is None:
                raise ProtocolError("the supervisor closed the connection")
            with packet:
                if packet.type == ERROR:
                    raise packet.error()
                self.hello = operations.check_hello(packet)
        except BaseException:
            self._socket.close()
            raise
        self._reader = threading.Thread(target=self._read, name="ctr-supervisor-client", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        failure: CtrError = ProtocolError("the supervisor closed the connection")
        try:
            while (packet := self._wire.receive()) is not None:
                if not self._dispatch(packet):
                    failure = packet.error()
                    break
        except ProtocolError as error:
            failure = error
        with self._lock:
            self._failure = failure
            pending, self._pending = self._pending, {}
            subscriptions, self._subscriptions = self._subscriptions, {}
        for future in pending.values():
            future.set_exception(_copy(failure))
        for events in subscriptions.values():
            events.put(None)

    def _dispatch(self, packet: Packet) -> bool:
        """Hands a message to whoever waits for it; False for an error that concerns the connection itself."""
        seq = packet.body.get("seq")
        if packet.type == "event":
            with packet, self._lock:
                events = self._subscriptions.get(seq) if isinstance(seq, int) else None
                if events is not None:
                    events.put(packet.body)
            return True
        with self._lock:
            future = self._pending.pop(seq, None) if isinstance(seq, int) else None
        if future is None:
            packet.close()
            return packet.type != ERROR or isinstance(seq, int)
        if packet.type == ERROR:
            packet.close()
            future.set_exception(packet.error())
        else:
            future.set_result(packet)
        return True

    def request(
        self, ask: Ask, timeout: float | None = None, events: queue.SimpleQueue[dict[str, Any] | None] | None = None
    ) -> tuple[int, Packet]:
        """Sends a request and waits for its answer; any number of threads at a time.

        Args:
            timeout: seconds; None waits as long as the connection lasts.
            events: gets the events that follow with the same seq.

        Returns:
            seq and answer, which the caller closes.

        Raises:
            CtrError: what the supervisor says.
            ProtocolError: the connection is gone.
            TimeoutError: no answer came in time.
        """
        future: Future[Packet] = Future()
        with self._lock:
            if self._failure is not None:
                raise _copy(self._failure)
            seq = next(self._seq)
            self._pending[seq] = future
            if events is not None:
                self._subscriptions[seq] = events
        try:
            self._wire.send(ask.type, ask.fds or None, **ask.fields, seq=seq)
            return seq, future.result(timeout)
        except BaseException as error:
            with self._lock:
                abandoned = self._pending.pop(seq, None) is None
                self._subscriptions.pop(seq, None)
            if abandoned and future.done() and future.exception() is None:
                future.result().close()
            if isinstance(error, FutureTimeout):
                raise TimeoutError(f"no answer to {ask.type} within {timeout:g} seconds") from None
            raise

    def forget(self, seq: int) -> None:
        """Nobody reads the events of a subscription any more."""
        with self._lock:
            found = self._subscriptions.pop(seq, None)
            gone = self._failure is not None
        if found is not None:
            found.put(None)
            if not gone:
                try:
                    self.request(Ask("unsubscribe", {"to": seq}))[1].close()
                except CtrError:
                    pass  # the connection has ended meanwhile

    def drive(self, operation: Generator[Ask, Packet, T]) -> T:
        """Carries an operation out."""
        try:
            ask = next(operation)
            while True:
                try:
                    _, packet = self.request(ask)
                except BaseException as error:
                    ask = operation.throw(error)
                    continue
                with packet:
                    ask = operation.send(packet)
        except StopIteration as done:
            result: T = done.value
            return result

    def close(self) -> None:
        """Ends the connection and its thread; does nothing the second time."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the supervisor has, or this is the second time
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._socket.close()


def _copy(error: CtrError) -> CtrError:
    """The same error for one more thread: a traceback belongs to one."""
    from ctr_common.errors import from_dict

    return from_dict(error.as_dict())


class Supervisor:
    """A running `ctr-supervisor`; from `connect`.

    Containers that are made here belong to the supervisor: they go on when this program ends. Any thread may use it,
    and several at once.

    Every method raises `ProtocolError` when the supervisor is gone, and otherwise what the supervisor says.

    Args:
        path: of its socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = Connection(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}>"

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            self.close()

    @property
    def root(self) -> str:
        """Its state root."""
        return str(self._connection.hello.get("root", ""))

    @property
    def capabilities(self) -> builtins.list[str]:
        """What it can do: words of docs/PROTOCOL.md."""
        return [str(word) for word in self._connection.hello.get("capabilities", [])]

    def create(
        self,
        id: str,
        config: Config,
        *,
        bundle: str | None = None,
        networks: Sequence[Network] = (),
        systemd_cgroup: bool = False,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
    ) -> Container:
        """A container, which the supervisor makes, and learns of, when its init process is started.

        Arguments, value and errors are those of `create` in this package; the id is taken by the start.
        """
        waiting = operations.pending(
            id,
            config,
            bundle,
            networks,
            systemd_cgroup=systemd_cgroup,
            no_pivot=no_pivot,
            no_new_keyring=no_new_keyring,
        )
        return SupervisedContainer(self, self._connection, Operations(id, waiting))

    def load(self, id: str) -> Container:
        """A container that is there, whoever made it.

        Raises:
            ContainerNotFound: there is none of that id.
        """
        container = SupervisedContainer(self, self._connection, Operations(id))
        self._connection.drive(Operations(id).state())
        return container

    def list(self) -> builtins.list[Container]:
        """All containers under its state root, sorted by id, whoever made them."""
        with self._connection.request(Ask("list"))[1] as packet:
            states = packet.get("containers", builtins.list, [])
        return [SupervisedContainer(self, self._connection, Operations(state["id"])) for state in states]

    def events(self) -> EventStream:
        """What happens to any container from now on; to be closed, or used in a `with` block."""
        return SupervisedEvents(self._connection, None)

    def status(self) -> SupervisorStatus:
        """What it tells of itself."""
        with self._connection.request(Ask("status"))[1] as packet:
            fields = {name: value for name, value in packet.body.items() if name not in ("type", "seq")}
        return cast("SupervisorStatus", fields)

    def features(self) -> dict[str, Any]:
        """What it can do (runtime-spec, features.md), as `ctrun features` prints it."""
        with self._connection.request(Ask("features"))[1] as packet:
            found: dict[str, Any] = packet.get("features", dict, {})
        return found

    def ping(self, timeout: float | None = None) -> None:
        """Makes sure that it answers.

        Args:
            timeout: seconds; None waits as long as the connection lasts.

        Raises:
            TimeoutError: it did not in that time.
        """
        self._connection.request(Ask("ping"), timeout)[1].close()

    def upgrade(self) -> None:
        """Has it replace itself by the program that is installed now; containers and connections go on."""
        self._connection.request(Ask("upgrade"))[1].close()

    def shutdown(self, *, containers: bool = False, grace: float = 10.0) -> None:
        """Ends it.

        Args:
            containers: stop them, too.
            grace: seconds that they get for that.
        """
        self._connection.request(Ask("shutdown", {"containers": containers, "grace": grace}))[1].close()

    def request(self, type: str, **fields: Any) -> dict[str, Any]:
        """Sends any request (docs/PROTOCOL.md) without fds.

        Args:
            type: of the message.
            fields: of the message.

        Returns:
            The whole answer; fds that come with it are closed.
        """
        with self._connection.request(Ask(type, fields))[1] as packet:
            return packet.body

    def close(self) -> None:
        """Ends the connection; containers go on. Does nothing the second time."""
        self._connection.close()


class Remote:
    """A process that the supervisor, or a keeper of its, is the parent of.

    Args:
        container: its operations.
        pidfd: owned here from now on.
        init: whether it is the container's init process.
    """

    def __init__(self, connection: Connection, container: Operations, pid: int, pidfd: Fd, *, init: bool) -> None:
        self.pid = pid
        self._connection = connection
        self._container = container
        self._pidfd = pidfd
        self._init = init
        self._status: int | None = None

    def fileno(self) -> int:
        """The pidfd.

        Raises:
            ValueError: the handle was closed.
        """
        return self._pidfd.fileno()

    def status(self) -> int:
        """The exit status of the process, which has ended.

        Raises:
            WrongState: nobody knows it.
        """
        if self._status is None:
            try:
                known = self._connection.drive(self._container.wait(0 if self._init else self.pid))
            except CtrError:
                known = None  # the container is gone; the kernel may still know
            self._status = known if known is not None else ends.status_of_other(self.fileno(), "")
        if self._status is None:
            raise WrongState(f"the exit status of process {self.pid} is lost")
        return self._status

    def close(self) -> None:
        """Lets go of it; it goes on."""
        self._pidfd.close()


class SupervisedEvents(EventStream):
    """A subscription.

    Args:
        container: whose events alone; None for all.
        interval: seconds between statistics of that container; None for none.
    """

    def __init__(self, connection: Connection, container: Operations | None, interval: float | None = None) -> None:
        self._connection = connection
        self._container = container
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._interval = interval
        self._due = None if interval is None else time.monotonic() + interval
        self._ended = False
        fields = {"id": container.id} if container is not None else {}
        self._seq, packet = connection.request(Ask("subscribe", fields), None, self._events)
        packet.close()

    def next(self, timeout: float | None = None) -> Event | None:
        """See the base."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            limits = [each for each in (deadline, self._due) if each is not None]
            try:
                told = self._events.get(timeout=max(0.0, min(limits) - time.monotonic()) if limits else None)
            except queue.Empty:
                if self._due is not None and time.monotonic() >= self._due:
                    event = self._stats()
                    if event is not None:
                        return event
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                continue
            if told is None:
                self._ended = True
                break
            event = event_of(told)
            if self._container is not None and event.type in FINAL:
                self.close()
            return event
        return None

    def _stats(self) -> Event | None:
        assert self._container is not None
        assert self._interval is not None
        self._due = time.monotonic() + self._interval
        try:
            stats = self._connection.drive(self._container.stats())
        except CtrError:
            return None  # it has ended; the event of that comes
        return Event("stats", self._container.id, time.time(), {"stats": stats})

    def close(self) -> None:
        """Ends the subscription."""
        self._ended = True
        self._connection.forget(self._seq)


def event_of(told: dict[str, Any]) -> Event:
    """An event as the protocol has it."""
    data = {name: value for name, value in told.items() if name not in ("type", "seq", "event", "id", "time")}
    return Event(str(told.get("event", "")), str(told.get("id", "")), float(told.get("time", 0)), data)


class SupervisedContainer(Container):
    """A container of a supervisor.

    Args:
        supervisor: kept open as long as the container is in use.
        operations: what can be asked about it.
    """

    def __init__(self, supervisor: Supervisor, connection: Connection, operations: Operations) -> None:
        self._supervisor = supervisor
        self._connection = connection
        self._ops = operations
        self._init: Process | None = None
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        """Its id."""
        return self._ops.id

    @property
    def status(self) -> Status:
        """See the base."""
        return self._connection.drive(self._ops.status())

    @property
    def state(self) -> ContainerState:
        """See the base."""
        return self._connection.drive(self._ops.state())

    @property
    def config(self) -> Config:
        """See the base."""
        return self._connection.drive(self._ops.config())

    @property
    def pid(self) -> int:
        """See the base."""
        return self._connection.drive(self._ops.pid())

    @property
    def exit_status(self) -> int | None:
        """See the base."""
        return self._connection.drive(self._ops.exit_status())

    def _started(self, process: Process, made: Made) -> Process:
        handle = Remote(self._connection, self._ops, made.pid, made.pidfd, init=process.init)
        process.started(handle, made.streams.files(), made.console)
        if process.init:
            self._init = process
        return process

    def _start(self, process: Process, *, at_once: bool) -> Process:
        if not process.init:
            return self._started(process, self._connection.drive(self._ops.start(process)))
        # Two threads that start the same container: the second one shall see what the first one did.
        with self._lock:
            return self._started(process, self._connection.drive(self._ops.start(process, at_once=at_once)))

    def start(self, process: Process) -> Process:
        """See the base."""
        return self._start(process, at_once=False)

    def run(self, process: Process) -> Process:
        """See the base; in one request."""
        return self._start(process, at_once=True)

    def exec(self) -> None:
        """See the base."""
        self._connection.drive(self._ops.exec())

    def _abandon(self, process: Process) -> None:
        """Never: the supervisor does."""

    def wait(self, timeout: float | None = None) -> int | None:
        """See the base."""
        if self._init is not None and timeout is not None:
            try:
                return self._init.wait(timeout)
            except ValueError:
                pass  # its handle was closed
        if timeout is None:
            return self._connection.drive(self._ops.wait())
        operation = self._ops.wait()
        _, packet = self._connection.request(next(operation), timeout)
        with packet:
            status: int | None = packet.get("status", int)
            return status

    def signal(self, signal: int | str, *, all: bool = False) -> None:
        """See the base."""
        self._connection.drive(self._ops.signal(signal, all=all))

    def pause(self) -> None:
        """See the base."""
        self._connection.drive(self._ops.pause())

    def resume(self) -> None:
        """See the base."""
        self._connection.drive(self._ops.resume())

    def destroy(self, *, force: bool = False) -> None:
        """See the base."""
        self._connection.drive(self._ops.destroy(force=force))

    def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """See the base."""
        self._connection.drive(self._ops.set(resources, l3_cache_schema, mem_bw_schema))

    def stats(self) -> Stats:
        """See the base."""
        return self._connection.drive(self._ops.stats())

    def processes(self) -> list[int]:
        """See the base."""
        return self._connection.drive(self._ops.processes())

    def events(self, interval: float | None = None) -> EventStream:
        """See the base."""
        return SupervisedEvents(self._connection, self._ops, interval)

    # Notifications are fds of the kernel's: this program has them made for itself, if it may.

    def _here(self) -> Container:
        from ctr_supervisor.api import direct

        return direct.load(self._supervisor.root, self.id)

    def notify_oom(self) -> Notification:
        """See the base."""
        return self._here().notify_oom()

    def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See the base."""
        return self._here().notify_memory_pressure(level)

    def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return self._connection.drive(self._ops.checkpoint(checkpoint_options(options)))

    def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return self._connection.drive(self._ops.checkpoint(checkpoint_options(options), pre_dump=True))

    def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """See the base."""
        wanted = restore_options(options, process)
        with self._lock:
            return self._started(process, self._connection.drive(self._ops.restore(process, wanted)))
