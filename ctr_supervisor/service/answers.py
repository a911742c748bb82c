"""Requests that the supervisor answers by itself, from what it knows: none of them needs a job."""

from collections.abc import Callable
from typing import Any

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.wire import Packet
from ctr_supervisor.engine.notify import LEVELS
from ctr_supervisor.process.parent import shell_status
from ctr_supervisor.service.connection import Connection
from ctr_supervisor.service.events import Hub
from ctr_supervisor.service.registry import Registry
from ctr_supervisor.service.waits import Waits


class Wait:
    """A request `wait` that has no answer yet.

    Attributes:
        body: of the request, with the process that it is about.
        withdraw: call it to have its end told no more.
    """

    __slots__ = ("body", "withdraw")

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.withdraw: Callable[[], None] = lambda: None


class Answers:
    """Answers requests.

    Args:
        status: what the request `status` tells.

    Attributes:
        by_type: what is done with a request, by its type; may be added to.
    """

    def __init__(self, registry: Registry, hub: Hub, waits: Waits, status: Callable[[], dict[str, Any]]) -> None:
        self.registry = registry
        self.hub = hub
        self.waits = waits
        registry.teller.on_deleted = waits.container_deleted
        self._status_now = status
        self._waiting: dict[Connection, set[Wait]] = {}
        self.by_type: dict[str, Callable[[Connection, Packet], None]] = {
            "config": self._config,
            "features": self._features,
            "list": self._list,
            "ping": self._ping,
            "state": self._state,
            "status": self._status,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "unwait": self._unwait,
            "wait": self._wait,
        }

    def _ping(self, connection: Connection, request: Packet) -> None:
        connection.answer(request)

    def _status(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, **self._status_now())

    def _features(self, connection: Connection, request: Packet) -> None:
        from ctr_supervisor.engine.features import features

        connection.answer(request, features=features())

    # -- about containers

    def _list(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, containers=self.registry.describe_all(as_answer=True))

    def _state(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, container=self.registry.describe(id_of(request), as_answer=True))

    def _config(self, connection: Connection, request: Packet) -> None:
        connection.answer(request, config=self.registry.config(id_of(request)))

    # -- ends of processes

    def _wait(self, connection: Connection, request: Packet) -> None:
        made = Wait(request.body)

        def answer(status: int | None) -> None:
            self._no_longer(connection, made)
            connection.answer(request, status=status)

        self._waiting.setdefault(connection, set()).add(made)
        try:
            container_id = id_of(request)
            if pid := request.get("pid", int, 0):
                made.withdraw = self.registry.wait_for_process(container_id, pid, answer) or self.waits.wait(
                    container_id, pid, answer
                )
            else:
                if pid := self.registry.init_pid(container_id):
                    # Another program would take it for one about the next container of that id.
                    made.body = {**request.body, "pid": pid}
                made.withdraw = self.registry.wait(container_id, answer)
        except BaseException:
            self._no_longer(connection, made)
            raise

    def _unwait(self, connection: Connection, request: Packet) -> None:
        """Who waits with a patience of its own would otherwise leave something behind with each wait."""
        to = request.get("to", int, 0)
        for one in [one for one in self._waiting.get(connection, ()) if one.body.get("seq") == to]:
            one.withdraw()
            self._no_longer(connection, one)
        connection.answer(request)

    def _no_longer(self, connection: Connection, one: Wait) -> None:
        """Keeps nothing of a wait that is answered or withdrawn."""
        waiting = self._waiting.get(connection, set())
        waiting.discard(one)
        if not waiting:
            self._waiting.pop(connection, None)

    def child_ended(self, pid: int, status: int) -> None:
        """A child was reaped: the pool, a keeper, the process of an exec, or an orphan, such as a container.

        Args:
            status: as from waitpid(2).
        """
        code = shell_status(status)
        container_id = self.waits.child_ended(pid, code)
        if container_id is not None:
            self.hub.happened("exec-exited", container_id, pid=pid, status=code)
        else:
            self.registry.reaped(pid, status)

    # -- events

    def _subscribe(self, connection: Connection, request: Packet) -> None:
        seq = request.get("seq", int, 0)
        if seq in connection.subscriptions:
            raise ProtocolError(f"there is a subscription of seq {seq} on this connection")
        container_id = request.get("id", str, "")
        pressure = request.get("memory_pressure", str, "")
        if pressure not in ("", *LEVELS):
            raise ProtocolError(f"memory_pressure is {pressure}, expected one of {', '.join(LEVELS)}")
        self.registry.refresh()
        if pressure and container_id:
            self.hub.check_pressure(container_id, pressure)
        # What happens once the client knows that it is told must be told.
        self.add_subscription(connection, seq, container_id, pressure)
        connection.answer(request)
        self.hub.resume()

    def add_subscription(self, connection: Connection, seq: int, container_id: str, pressure: str) -> None:
        """Has a client told of events, from the hub's next `resume` on."""

        def deliver(event: dict[str, Any]) -> bool:
            if connection.behind:
                return False
            connection.send("event", None, seq=seq, **event)
            return True

        made = connection.subscriptions[seq] = self.hub.subscribe(deliver, container_id, pressure, later=True)
        connection.when_ready.append(made.resume)

    def _unsubscribe(self, connection: Connection, request: Packet) -> None:
        found = connection.subscriptions.pop(request.get("to", int, 0), None)
        if found is None:
            raise ProtocolError("there is no such subscription on this connection")
        connection.when_ready.remove(found.resume)
        self.hub.unsubscribe(found)
        connection.answer(request)

    # -- the rest

    def forget(self, connection: Connection) -> None:
        """Answers nothing more to a connection that is closed."""
        for one in self._waiting.pop(connection, ()):
            one.withdraw()
        for subscription in connection.subscriptions.values():
            self.hub.unsubscribe(subscription)

    def export(self, number_of: Callable[[Connection], int]) -> dict[str, Any]:
        """Who waits, for `restore` in another program.

        Args:
            number_of: what a connection is called there.
        """
        return {
            "waits": self.waits.export(),
            "deleted": self.waits.export_deleted(),
            "wait_requests": [
                [number_of(connection), one.body] for connection, waiting in self._waiting.items() for one in waiting
            ],
        }

    def restore(self, saved: dict[str, Any], connections: list[Connection]) -> None:
        """Has those told who waited in the program with that `export`.

        Args:
            connections: by their number.
        """
        self.waits.restore(saved["waits"])
        self.waits.restore_deleted(saved.get("deleted", []))
        for index, body in saved["wait_requests"]:
            packet = Packet(body, {})
            try:
                self._wait(connections[index], packet)
            except CtrError as error:
                connections[index].answer_error(packet, error)


def id_of(request: Packet) -> str:
    """The container that a request is about.

    Raises:
        ProtocolError: it names none.
    """
    found: str = request.get("id", str, "")
    if not found:
        raise ProtocolError(f"{request.type} came without an id")
    return found
