"""What a supervisor has, as data and fds: how another program in its process goes on where it was (upgrade.py)."""

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ctr_common.wire import Packet, Wire
from ctr_supervisor.service.connection import Connection, Peer

if TYPE_CHECKING:
    from ctr_supervisor.service.supervisor import Supervisor

# Told of a fd, and returns it.
Keep = Callable[[int], int]


def export(supervisor: "Supervisor", keep: Keep) -> dict[str, Any]:
    """What the next program needs to go on, for `restore`.

    Args:
        keep: told of every fd that the next program is to have.
    """
    # First: what it finds is told to the others.
    registry = supervisor.registry.export(keep)
    connections = list(supervisor.connections)
    numbers = {connection: index for index, connection in enumerate(connections)}
    return {
        "started": supervisor.started,
        "upgrades": supervisor.upgrades,
        "commands": supervisor.commands.taken,
        "connections": [connection.export(keep) for connection in connections],
        **supervisor.dispatch.export(keep, numbers.__getitem__),
        "queued": [
            [numbers[connection], request.body, {name: keep(request.fd(name)) for name in request.fd_names}]
            for connection in connections
            for request in supervisor.order.of(connection)
        ],
        **supervisor.answers.export(numbers.__getitem__),
        "registry": registry,
    }


def restore(supervisor: "Supervisor", saved: dict[str, Any]) -> list[Connection]:
    """Goes on where the supervisor with that `export` was.

    Args:
        supervisor: a new one, with the registry that goes on from `saved` too.

    Returns:
        The connections, in the order in which they were exported.
    """
    supervisor.started = saved["started"]
    supervisor.upgrades = saved["upgrades"] + 1
    supervisor.commands.taken = saved["commands"]
    connections = [restore_connection(supervisor, one) for one in saved["connections"]]
    supervisor.dispatch.restore(saved, connections)
    for found in supervisor.dispatch.jobs.values():
        if found.connection is not None and found.kind == "request":
            supervisor.order.must_wait(found.connection, found.request)
    for index, body, fds in saved["queued"]:
        supervisor.handle(connections[index], Packet(body, fds))
    supervisor.answers.restore(saved, connections)
    supervisor.hub.resume()
    return connections


def restore_connection(supervisor: "Supervisor", saved: dict[str, Any]) -> Connection:
    """A client's connection, with its subscriptions."""
    wire = Wire(saved["fd"], "client")
    with socket.socket(fileno=os.dup(wire.fileno())) as connected:
        peer = Peer(connected)
    connection = supervisor.add_connection(peer, wire)
    connection.restore(saved)
    for seq, container_id, queue, lost, pressure in saved["subscriptions"]:
        supervisor.answers.add_subscription(connection, seq, container_id, pressure)
        connection.subscriptions[seq].restore(queue, lost)
    return connection
