"""What a supervisor has, as data and fds: how another program in its process goes on where it was (upgrade.py)."""

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ctr_common.errors import CtrError, ProtocolError
from ctr_common.wire import Packet, Wire
from ctr_supervisor.service import pool
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
    connections = list(supervisor.connections)
    numbers = {connection: index for index, connection in enumerate(connections)}
    pools = [
        [
            -1 if ends is not supervisor.ends else keep(ends.jobs.fileno()),
            keep(ends.reports.fileno()),
            keep(ends.control.fileno()),
        ]
        for ends in (supervisor.ends, *supervisor.old_pools)
    ]
    jobs = [
        {
            "number": found.number,
            "kind": found.kind,
            "connection": -1 if found.connection is None else numbers[found.connection],
            "request": found.request.body,
            "pid": found.pid,
            "ends_with_client": found.ends_with_client,
            "done": found.done,
        }
        for found in supervisor.jobs.values()
    ]
    queued = [
        [numbers[connection], request.body, {name: keep(request.fd(name)) for name in request.fd_names}]
        for connection in connections
        for request in supervisor.order.of(connection)
    ]
    return {
        "started": supervisor.started,
        "upgrades": supervisor.upgrades,
        "commands": supervisor.commands,
        "job_count": supervisor.job_count,
        "connections": [connection.export(keep) for connection in connections],
        "jobs": jobs,
        "pools": pools,
        "unsent": [[{name: keep(fd) for name, fd in fds.items()}, fields] for fds, fields in supervisor.unsent],
        "queued": queued,
        "waits": supervisor.waits.export(),
        "wait_requests": [[numbers[connection], body] for connection, body in supervisor.wait_requests],
        "registry": supervisor.registry.export(keep),
    }


def restore(supervisor: "Supervisor", saved: dict[str, Any]) -> None:
    """Goes on where the supervisor with that `export` was.

    Args:
        supervisor: a new one, with the registry that goes on from `saved` too.
    """
    supervisor.started = saved["started"]
    supervisor.upgrades = saved["upgrades"] + 1
    supervisor.commands = saved["commands"]
    supervisor.job_count = saved["job_count"]
    from ctr_supervisor.service.supervisor import Job

    supervisor.waits.restore(saved["waits"])
    connections = [restore_connection(supervisor, one) for one in saved["connections"]]
    for one in saved["jobs"]:
        connection = connections[one["connection"]] if one["connection"] >= 0 else None
        found = supervisor.jobs[one["number"]] = Job(one["number"], one["kind"], connection, Packet(one["request"], {}))
        found.pid = one["pid"]
        found.ends_with_client = one["ends_with_client"]
        found.done = one["done"]
        found.of_old_pool = True
        if found.pid:
            supervisor.jobs_by_pid[found.pid] = found
        if connection is not None and found.kind == "request":
            supervisor.order.must_wait(connection, found.request)
    for jobs, reports, control in saved["pools"]:
        ends = pool.Ends(jobs, reports, control)
        supervisor.old_pools.append(ends)
        supervisor.listen_to(ends)
        if jobs >= 0:
            try:
                ends.control.send("retire")
            except ProtocolError:
                # It is gone, which is read in its turn.
                pass
            ends.jobs.close()
    for fds, fields in saved["unsent"]:
        supervisor.jobs[fields["job"]].of_old_pool = False
        supervisor.send_job(fds, fields)
        for fd in fds.values():
            os.close(fd)
    for index, body, fds in saved["queued"]:
        supervisor.handle(connections[index], Packet(body, fds))
    for index, body in saved["wait_requests"]:
        packet = Packet(body, {})
        try:
            supervisor.wait(connections[index], packet)
        except CtrError as error:
            connections[index].answer_error(packet, error)
    supervisor.hub.resume()
    supervisor.connections_by_number = connections


def restore_connection(supervisor: "Supervisor", saved: dict[str, Any]) -> Connection:
    """A client's connection, with its subscriptions."""
    wire = Wire(saved["fd"], "client")
    with socket.socket(fileno=os.dup(wire.fileno())) as connected:
        peer = Peer(connected)
    connection = Connection(supervisor.loop, wire, peer, supervisor.root, supervisor.handle, supervisor.on_end)
    supervisor.connections.add(connection)
    connection.restore(saved)
    for seq, container_id, queue, lost in saved["subscriptions"]:
        supervisor.add_subscription(connection, seq, container_id)
        connection.subscriptions[seq].restore(queue, lost)
    return connection
