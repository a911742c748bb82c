"""A running supervisor, as a blocking program sees it."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ctr_supervisor.api import operations
from ctr_supervisor.api.connection import Connection
from ctr_supervisor.api.container import Container
from ctr_supervisor.api.events import EventStream
from ctr_supervisor.api.operations import Ask, Operations
from ctr_supervisor.api.supervised import SupervisedContainer, SupervisedEvents

if TYPE_CHECKING:
    from ctr_supervisor.api.types import Config, Network, SupervisorStatus


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
        states = self.request("list").get("containers", [])
        return [SupervisedContainer(self, self._connection, Operations(state["id"])) for state in states]

    def events(self) -> EventStream:
        """What happens to any container from now on; to be closed, or used in a `with` block."""
        return SupervisedEvents(self._connection, None)

    def status(self) -> SupervisorStatus:
        """What it tells of itself."""
        return cast("SupervisorStatus", operations.told_by(self.request("status")))

    def features(self) -> dict[str, Any]:
        """What it can do (runtime-spec, features.md), as `ctrun features` prints it."""
        found: dict[str, Any] = self.request("features").get("features", {})
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
        self.request("upgrade")

    def shutdown(self, *, containers: bool = False, grace: float = 10.0) -> None:
        """Ends it.

        Args:
            containers: stop them, too.
            grace: seconds that they get for that.
        """
        self.request("shutdown", containers=containers, grace=grace)

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
