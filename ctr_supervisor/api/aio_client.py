"""A running supervisor, for asyncio."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ctr_supervisor.api import operations
from ctr_supervisor.api.aio_base import Container, EventStream
from ctr_supervisor.api.aio_connection import Connection
from ctr_supervisor.api.aio_supervised import SupervisedContainer, SupervisedEvents
from ctr_supervisor.api.connection import HELLO_TIMEOUT, open_wire
from ctr_supervisor.api.operations import Ask, Operations

if TYPE_CHECKING:
    from ctr_supervisor.api.types import Config, Network, SupervisorStatus


async def connect(path: str | None = None) -> Supervisor:
    """Connects to a running `ctr-supervisor`; see `connect` of this package."""
    connected, wire = await asyncio.to_thread(open_wire, operations.socket_path(path))
    connection = Connection(connected, wire)
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            await connection.greeted
    except BaseException:
        connection.close()
        raise
    return Supervisor(connection)


class Supervisor:
    """A running `ctr-supervisor`; from `connect`. As the `Supervisor` of this package, with coroutines.

    Args:
        connection: to it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        """A container, which is made when its init process is started; see `Supervisor.create`."""
        waiting = operations.pending(
            id,
            config,
            bundle,
            networks,
            systemd_cgroup=systemd_cgroup,
            no_pivot=no_pivot,
            no_new_keyring=no_new_keyring,
        )
        return SupervisedContainer(self._connection, Operations(id, waiting))

    async def load(self, id: str) -> Container:
        """A container that is there; see `Supervisor.load`."""
        await self._connection.drive(Operations(id).state())
        return SupervisedContainer(self._connection, Operations(id))

    async def list(self) -> builtins.list[Container]:
        """All containers; see `Supervisor.list`."""
        states = (await self.request("list")).get("containers", [])
        return [SupervisedContainer(self._connection, Operations(state["id"])) for state in states]

    async def events(self) -> EventStream:
        """What happens to any container from now on."""
        return await SupervisedEvents.begin(self._connection, None, None)

    async def status(self) -> SupervisorStatus:
        """What it tells of itself."""
        return cast("SupervisorStatus", operations.told_by(await self.request("status")))

    async def features(self) -> dict[str, Any]:
        """What it can do; see `Supervisor.features`."""
        found: dict[str, Any] = (await self.request("features")).get("features", {})
        return found

    async def ping(self) -> None:
        """Makes sure that it answers."""
        await self.request("ping")

    async def upgrade(self) -> None:
        """Has it replace itself; see `Supervisor.upgrade`."""
        await self.request("upgrade")

    async def shutdown(self, *, containers: bool = False, grace: float = 10.0) -> None:
        """Ends it; see `Supervisor.shutdown`."""
        await self.request("shutdown", containers=containers, grace=grace)

    async def request(self, type: str, **fields: Any) -> dict[str, Any]:
        """Sends any request without fds; see `Supervisor.request`."""
        with (await self._connection.request(Ask(type, fields)))[1] as packet:
            return packet.body

    def close(self) -> None:
        """Ends the connection; containers go on."""
        self._connection.close()
