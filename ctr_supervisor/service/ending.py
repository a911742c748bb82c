"""The end of the supervisor: by a signal, or by the request `shutdown`; with the containers where that is asked for."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ctr_common.wire import Packet
from ctr_supervisor.service import pid1
from ctr_supervisor.service.shutdown import GRACE, Shutdown

if TYPE_CHECKING:
    from ctr_supervisor.service.connection import Connection
    from ctr_supervisor.service.supervisor import Supervisor


class Ending:
    """Stops the loop when all is done that has to be done before.

    Args:
        on_begin: called when the end has begun.
        containers: signals end the containers too, as those to a process number 1 must.

    Attributes:
        number: the signal that began it, 0 for none.
        second: one that cut the grace time short, 0 for none.
        shutdown: the end of the containers, where they end too.
    """

    def __init__(self, supervisor: "Supervisor", on_begin: Callable[[], None], *, containers: bool) -> None:
        self.supervisor = supervisor
        self.number = 0
        self.second = 0
        self.shutdown: Shutdown | None = None
        self._containers = containers
        self._on_begin = on_begin
        self._asked: list[tuple[Connection, Packet]] = []

    @property
    def status(self) -> int:
        """The exit status; see `pid1.exit_status`."""
        return pid1.exit_status(self.shutdown is not None and bool(self.shutdown.stuck), self.second)

    def on_signal(self, number: int) -> None:
        """A signal that asks for the end; the second one does not wait for containers any longer."""
        if self.shutdown is not None:
            self.second = number
            self.shutdown.kill()
        elif self._containers:
            self.number = number
            self._begin(GRACE)
        else:
            self.number = number
            self._on_begin()
            self.supervisor.loop.stop()

    def on_request(self, connection: "Connection", request: Packet) -> None:
        """The request `shutdown`: answered when the containers have ended.

        Raises:
            ProtocolError: a field is wrong.
        """
        grace = request.body.get("grace", GRACE)
        seconds = float(grace) if isinstance(grace, int | float) else float(request.get("grace", float, GRACE))
        if not request.get("containers", bool, self._containers):
            connection.answer(request, stopped=[], killed=[], stuck=[])
            self._on_begin()
            self.supervisor.loop.stop()
            return
        self._asked.append((connection, request))
        if self.shutdown is None:
            self._begin(max(0.0, seconds))

    def _begin(self, grace: float) -> None:
        self._on_begin()
        supervisor = self.supervisor
        self.shutdown = Shutdown(supervisor.loop, supervisor.registry, supervisor.kill_all, self._done, grace)
        self.shutdown.start()

    def _done(self, shutdown: Shutdown) -> None:
        for connection, request in self._asked:
            connection.answer(request, stopped=shutdown.stopped, killed=shutdown.killed, stuck=shutdown.stuck)
        self.supervisor.loop.stop()
