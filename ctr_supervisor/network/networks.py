"""Networks of libcontainer's kind, through their life: create, initialize, detach, attach, destroy, statistics.

    create        on the host: the veth pair, one end a port of the bridge, the other one in the container's namespace
    initialize    in the container's namespace: hardware address, addresses, MTU, up, default routes
    detach        the host's end leaves the bridge: nothing comes in or goes out (while a checkpoint is written)
    attach        it is a port of the bridge again (after a checkpoint or a restore)
    destroy       the pair is gone; usually it went with the container's namespace

All take what `config.check` returned, or what `create` made of it: the engine keeps that in state.json as `networks`.
"""

import os

from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_supervisor.network import job
from ctr_supervisor.network.config import LOOPBACK, VETH
from ctr_supervisor.network.links import AF_INET6, ENODEV, IFA_F_NODAD, Links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ctr_supervisor.network.config import Network

STEP = "set up network"
SYS_CLASS_NET = "/sys/class/net"
HAIRPIN = 1  # BRIDGE_MODE_HAIRPIN

# What the host's end sent is what the container received.
STATISTICS = (
    ("RxBytes", "tx_bytes"),
    ("RxPackets", "tx_packets"),
    ("RxErrors", "tx_errors"),
    ("RxDropped", "tx_dropped"),
    ("TxBytes", "rx_bytes"),
    ("TxPackets", "rx_packets"),
    ("TxErrors", "rx_errors"),
    ("TxDropped", "rx_dropped"),
)


def set_up(networks: "Sequence[Network]", pid: int) -> "list[Network]":
    """`create` and `initialize` in one go.

    Args:
        networks: as `config.check` returned them.
        pid: a child of this process, in the network namespace that gets them.

    Returns:
        The networks as they are to be kept.

    Raises:
        CtrError: one of them could not be made; none is there then.
    """
    made: list[Network] = _in_namespace(pid, _set_up, networks)
    return made


def create(networks: "Sequence[Network]", pid: int) -> "list[Network]":
    """Makes the veth pairs; arguments, value and errors as of `set_up`."""
    made: list[Network] = _in_namespace(pid, _create, networks)
    return made


def initialize(networks: "Sequence[Network]", pid: int) -> None:
    """Configures the container's ends.

    Raises:
        CtrError: the kernel refused something.
    """
    _in_namespace(pid, _initialize, networks)


def detach(networks: "Sequence[Network]") -> None:
    """Takes the host's ends out of their bridges.

    Raises:
        CtrError: one of them is not there.
    """
    pairs = [network for network in networks if network["type"] == VETH]
    if pairs:
        job.run("detach network", _detach, pairs)


def attach(networks: "Sequence[Network]") -> "list[Network]":
    """Makes the host's ends ports of their bridges, and sets them up.

    Returns:
        The networks as they are to be kept: after a restore the ends are new ones.

    Raises:
        CtrError: an end or a bridge is not there.
    """
    if not any(network["type"] == VETH for network in networks):
        return list(networks)
    attached: list[Network] = job.run("attach network", _attach, list(networks))
    return attached


def destroy(networks: "Sequence[Network]") -> None:
    """Removes the veth pairs that are still there; may be run twice.

    Raises:
        CtrError: the kernel refused.
    """
    left = [network["host_interface_index"] for network in networks if _is_there(network)]
    if left:
        job.run("remove network", _delete, left)


def statistics(networks: "Sequence[Network]", sys_class_net: str = SYS_CLASS_NET) -> "list[dict[str, Any]]":
    """What went through the veth pairs, as the container sees it.

    Args:
        sys_class_net: where sysfs shows the interfaces of the host.

    Returns:
        For each pair libcontainer's keys: Name (of the host's end), RxBytes, RxPackets, RxErrors, RxDropped, TxBytes, …

    Raises:
        CtrError: an interface is not there.
    """
    found = []
    for network in networks:
        if network["type"] != VETH:
            continue
        name = network["host_interface_name"]
        entry: dict[str, Any] = {"Name": name}
        for key, file in STATISTICS:
            path = f"{sys_class_net}/{name}/statistics/{file}"
            try:
                with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
                    entry[key] = int(os.read(fd.fileno(), 64))
            except OSError as error:
                raise CtrError.from_os_error(error, f"read statistics of interface {name}", path) from None
        found.append(entry)
    return found


def veth_pairs(networks: "Sequence[Network]") -> "list[tuple[str, str]]":
    """(name in the container, name on the host) of each pair, as a restore has to make them again."""
    return [(network["name"], network["host_interface_name"]) for network in networks if network["type"] == VETH]


def _is_there(network: "Network") -> bool:
    """Whether the host's end still exists; its name alone may be another interface's by now."""
    import _socket

    try:
        return _socket.if_nametoindex(network.get("host_interface_name", "")) == network.get("host_interface_index")
    except OSError:
        return False


def _in_namespace(pid: int, work: "Callable[..., Any]", networks: "Sequence[Network]") -> "Any":
    with Fd(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
        return job.run(STEP, work, list(networks), netns.fileno())


# -- inside of the job


def _set_up(networks: "list[Network]", netns: int) -> "list[Network]":
    host = Links()
    made = _create(networks, netns, host)
    try:
        _initialize(made, netns)
    except BaseException:
        for network in made:
            if network["type"] == VETH:
                host.delete(network["host_interface_index"])
        raise
    return made


def _create(networks: "list[Network]", netns: int, host: "Links | None" = None) -> "list[Network]":
    host = host or Links()
    made: list[Network] = []
    try:
        for network in networks:
            made.append(_create_pair(host, network, netns) if network["type"] == VETH else network)
    except BaseException:
        for network in made:
            if network["type"] == VETH:
                host.delete(network["host_interface_index"])
        raise
    return made


def _create_pair(host: Links, network: "Network", netns: int) -> "Network":
    properties: dict[str, Any] = {"ifname": network["host_interface_name"], "kind": VETH}
    if network.get("tx_queue_len"):
        properties["txqlen"] = network["tx_queue_len"]
    # The other end is born in the container's namespace, so the host never has an interface under its name.
    host.add(**properties, peer={"ifname": network["name"], "net_ns_fd": netns})
    try:
        return _attach_pair(host, network)
    except BaseException:
        host.delete(_index(host, network["host_interface_name"]))
        raise


def _attach(networks: "list[Network]") -> "list[Network]":
    host = Links()
    return [_attach_pair(host, network) if network["type"] == VETH else network for network in networks]


def _attach_pair(host: Links, network: "Network") -> "Network":
    bridge = host.find(network["bridge"])
    if bridge is None:
        raise CtrError(f"link not found for bridge {network['bridge']}")
    if bridge.get(("linkinfo", "kind")) != "bridge":
        raise CtrError(f"{network['bridge']} is not a bridge")
    index = _index(host, network["host_interface_name"])
    host.set(index, master=bridge["index"])
    if network.get("mtu"):
        host.set(index, mtu=network["mtu"])
    if network.get("hairpin_mode"):
        host.set_port(index, mode=HAIRPIN)
    host.set(index, state="up")
    attached = network.copy()
    attached["host_interface_index"] = index
    return attached


def _detach(networks: "list[Network]") -> None:
    host = Links()
    for network in networks:
        host.set(_index(host, network["host_interface_name"]), master=0)


def _delete(indexes: "list[int]") -> None:
    host = Links()
    for index in indexes:
        try:
            host.delete(index)
        except CtrError as error:
            # The kernel may be at it already, since the container's namespace ended.
            if error.errno != ENODEV:
                raise


def _initialize(networks: "list[Network]", netns: int) -> None:
    inside = Links(netns)
    for network in networks:
        if network["type"] == LOOPBACK:
            inside.set(_index(inside, "lo"), state="up")
        else:
            _initialize_veth(inside, network)


def _initialize_veth(inside: Links, network: "Network") -> None:
    index = _index(inside, network["name"])
    if network.get("mac_address"):
        inside.set(index, address=network["mac_address"])
    if network.get("mtu"):
        inside.set(index, mtu=network["mtu"])
    if network.get("address"):
        inside.add_address(index, _address(network["address"]))
    if network.get("ipv6_address"):
        # On a link that was made this moment nobody else can have the address, and the container's first process
        # should find it usable rather than tentative.
        inside.add_address(index, {**_address(network["ipv6_address"]), "family": AF_INET6, "ifa_flags": IFA_F_NODAD})
    inside.set(index, state="up")
    if network.get("gateway"):
        inside.add_route(dst="default", gateway=network["gateway"], oif=index)
    if network.get("ipv6_gateway"):
        inside.add_route(dst="default", gateway=network["ipv6_gateway"], oif=index, family=AF_INET6)


def _address(text: str) -> "dict[str, Any]":
    address, _, length = text.partition("/")
    return {"address": address, "prefixlen": int(length)}


def _index(links: Links, name: str) -> int:
    link = links.find(name)
    if link is None:
        raise CtrError(f"link not found for interface {name}")
    return int(link["index"])
