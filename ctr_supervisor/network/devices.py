"""`.linux.netDevices`: network devices of the host that move into the container's network namespace.

config-linux.md, "Network Devices": renamed where asked for, with their permanent addresses of global scope, and set up.
Afterwards they belong to the namespace: when it ends the kernel gives physical devices back and removes virtual ones.
"""

import os

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.spec.problems import member
from ctr_supervisor.network import job
from ctr_supervisor.network.links import IFF_UP, Links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import NetDevice

WHERE = ".linux.netDevices"
STEP = "move network device"

# In a name: the kernel puts the first free number there (dev_alloc_name() of net/core/dev.c).
TEMPLATE = "%d"


class MovedDevices:
    """Devices that are in a container's network namespace now, and the way back.

    It holds the namespace open: virtual devices would end with it, and then there is nothing to give back.
    """

    __slots__ = ("_netns", "_records")

    def __init__(self, netns: Fd, records: "list[dict[str, Any]]") -> None:
        self._netns = netns
        self._records = records

    def give_back(self) -> "list[CtrError]":
        """Moves them back to this namespace, as they were, but for routes; for a container that could not be made.

        Returns:
            What went wrong; a device that nobody can bring back does not keep the others.
        """
        if self._netns.number < 0:
            return []
        try:
            told = job.run(STEP, _give_back_all, self._records, self._netns.fileno())
        except CtrError as error:
            return [error]
        finally:
            self.close()
        return [CtrError(text, step=STEP) for text in told]

    def close(self) -> None:
        """Leaves them to the container; does nothing the second time."""
        self._netns.close()


def move_in(devices: "dict[str, NetDevice]", pid: int) -> MovedDevices:
    """Moves network devices into a process's network namespace.

    Args:
        devices: `.linux.netDevices`, validated.
        pid: a child of this process, so that its number can't have passed to another one.

    Returns:
        The devices; the caller closes it when the container is there, or lets it give them back.

    Raises:
        CtrError: one of them is missing or can't be moved; all are back then.
    """
    path = f"/proc/{pid}/ns/net"
    netns = Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        if os.path.samestat(os.fstat(netns.fileno()), os.stat("/proc/self/ns/net")):
            raise CtrError("the network namespace of the container is that of the host", step=STEP, json_path=WHERE)
        wanted = [(name, device.get("name") or name) for name, device in devices.items()]
        return MovedDevices(netns, job.run(STEP, _move_all, wanted, netns.fileno()))
    except BaseException:
        netns.close()
        raise


# -- inside of the job


def _move_all(wanted: "list[tuple[str, str]]", netns: int) -> "list[dict[str, Any]]":
    with Fd(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
        host = Links()
        inside = Links(netns)
        records: list[dict[str, Any]] = []
        try:
            for name, new in wanted:
                _move(host, inside, netns, name, new, records)
        except Exception as failure:
            error = job.as_error(failure, STEP)
            error.json_path = error.json_path or member(WHERE, name)
            told = _give_all_back(host, inside, home.fileno(), records)
            if told:
                error.hint = "; ".join(told)
            raise error from None
    return records


def _move(host: Links, inside: Links, netns: int, name: str, new: str, records: "list[dict[str, Any]]") -> None:
    """Moves one device; what is to be given back is in `records`, whatever happens."""
    link = host.find(name)
    if link is None:
        raise CtrError(f"link not found for interface {name} on runtime namespace", step=STEP)
    if TEMPLATE not in new and inside.find(new) is not None:
        raise CtrError(f"the network namespace of the container has an interface {new} already", step=STEP)
    record = {
        "name": link.get_attr("IFLA_IFNAME"),
        "up": bool(link["flags"] & IFF_UP),
        "master": link.get_attr("IFLA_MASTER") or 0,
        # Before the move, which takes the device down and its addresses away.
        "addresses": host.addresses(link["index"]),
    }
    before = inside.indexes()
    try:
        # Both in one request. The kernel closes the device itself, once it knows that it can go.
        host.set(link["index"], net_ns_fd=netns, ifname=new)
    finally:
        # Where only the new name was refused the device is there all the same. Its index stays unless it is taken.
        arrived = inside.indexes() - before
        if arrived:
            record["index"] = link["index"] if link["index"] in arrived else min(arrived)
            records.append(record)
    for address in record["addresses"]:
        inside.add_address(record["index"], address)
    inside.set(record["index"], state="up")


def _give_back_all(records: "list[dict[str, Any]]", netns: int) -> "list[str]":
    with Fd(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
        host = Links()
        return _give_all_back(host, Links(netns), home.fileno(), records)


def _give_all_back(host: Links, inside: Links, home: int, records: "list[dict[str, Any]]") -> "list[str]":
    told = []
    for record in reversed(records):
        try:
            _give_back(host, inside, home, record)
        except CtrError as error:
            told.append(f"network device {record['name']} could not be given back as it was: {error}")
    return told


def _give_back(host: Links, inside: Links, home: int, record: "dict[str, Any]") -> None:
    inside.set(record["index"], net_ns_fd=home, ifname=record["name"])
    link = host.find(record["name"])
    if link is None:
        raise CtrError("it vanished")
    if record["master"]:
        host.set(link["index"], master=record["master"])
    for address in record["addresses"]:
        host.add_address(link["index"], address)
    if record["up"]:
        host.set(link["index"], state="up")
