"""Networks of libcontainer's kind: what a caller of the API may ask for, beside the specification's configuration.

A network is a mapping, or an object with attributes, of:
    type                 "loopback", or "veth": a pair, one end a port of a bridge, the other in the container
    name                 of the interface in the container
    bridge               of the host, there already
    mac_address          of the interface in the container; the kernel's choice if empty
    address              in CIDR notation: 10.0.0.2/24
    gateway              of the default route
    ipv6_address, ipv6_gateway
    mtu                  in bytes, of both ends; 0 for the kernel's default
    tx_queue_len         of the host's end, in packets; 0 for the kernel's default
    host_interface_name  of the host's end; made up if empty
    hairpin_mode         the bridge may send a frame back out of the port that it came from
For a loopback only the type counts.
"""

import os

from ctr_common.spec.problems import Problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypedDict

    from ctr_common.spec.types import Config

    class Network(TypedDict, total=False):
        """One network; see the module's text."""

        type: str
        name: str
        bridge: str
        mac_address: str
        address: str
        gateway: str
        ipv6_address: str
        ipv6_gateway: str
        mtu: int
        tx_queue_len: int
        host_interface_name: str
        hairpin_mode: bool
        # Added by the engine: tells the host's end from another interface that got its name later.
        host_interface_index: int


LOOPBACK = "loopback"
VETH = "veth"
TYPES = (LOOPBACK, VETH)

KEYS: "dict[str, type]" = {
    "type": str,
    "name": str,
    "bridge": str,
    "mac_address": str,
    "address": str,
    "gateway": str,
    "ipv6_address": str,
    "ipv6_gateway": str,
    "mtu": int,
    "tx_queue_len": int,
    "host_interface_name": str,
    "hairpin_mode": bool,
}

NAME_MAX = 15  # IFNAMSIZ less the NUL
MTU_MAX = 65535
UINT32_MAX = 2**32 - 1


def check(networks: "Iterable[Mapping[str, Any] | object]", config: "Config") -> "list[Network]":
    """The networks as plain data, complete: every veth has a name on the host.

    Args:
        networks: as the API's caller gave them.
        config: of the container that gets them.

    Raises:
        ConfigError: something in them is wrong; `problems` has all of it, with paths such as `.networks[0].bridge`.
    """
    problems = Problems()
    checked: list[Network] = []
    for index, network in enumerate(networks):
        where = f".networks[{index}]"
        plain = _plain(network, where, problems)
        if plain.get("type") == VETH:
            _check_veth(plain, where, problems)
        checked.append(plain)
    kinds = [entry["type"] for entry in (config.get("linux") or {}).get("namespaces") or ()]
    if checked and "network" not in kinds:
        problems.add(".networks", "unable to apply network settings without a private NET namespace")
    for key in ("name", "host_interface_name"):
        used: dict[object, int] = {}
        for index, entry in enumerate(checked):
            value = entry.get(key)
            if entry.get("type") == VETH and value and used.setdefault(value, index) != index:
                problems.add(f".networks[{index}].{key}", f"{value} is that of .networks[{used[value]}] already")
    problems.raise_first()
    return checked


def _plain(network: "Mapping[str, Any] | object", where: str, problems: Problems) -> "Network":
    """Those keys of a network that say something."""
    if hasattr(network, "keys"):
        given = {str(key): network[key] for key in network}  # type: ignore[attr-defined,index]
        for key in given:
            if key not in KEYS:
                problems.add(f"{where}.{key}", "is not a property of a network")
    else:
        given = {key: getattr(network, key) for key in KEYS if hasattr(network, key)}
    plain: Network = {}
    for key, kind in KEYS.items():
        value = given.get(key)
        if value is None:
            continue
        if type(value) is not kind:
            problems.add(f"{where}.{key}", f"expected a value of type {kind.__name__}, got {value!r}")
        elif value:
            plain[key] = value  # type: ignore[literal-required]
    if plain.get("type") not in TYPES:
        problems.add(f"{where}.type", f"unknown type {given.get('type')!r}, expected loopback or veth")
    return plain


def _check_veth(network: "Network", where: str, problems: Problems) -> None:
    """Checks all but what only the kernel knows, and makes up a name for the host's end where there is none."""
    import ipaddress

    if "bridge" not in network:
        problems.add(f"{where}.bridge", "bridge is not specified")
    if "name" not in network:
        problems.add(f"{where}.name", "is missing")
    network.setdefault("host_interface_name", f"veth{os.urandom(4).hex()[:7]}")
    for field, name in (
        ("name", network.get("name")),
        ("bridge", network.get("bridge")),
        ("host_interface_name", network["host_interface_name"]),
    ):
        if name is not None and not is_interface_name(name):
            problems.add(f"{where}.{field}", f"{name!r} is not a name for a network device")
    for key, parse in (
        ("address", ipaddress.IPv4Interface),
        ("gateway", ipaddress.IPv4Address),
        ("ipv6_address", ipaddress.IPv6Interface),
        ("ipv6_gateway", ipaddress.IPv6Address),
    ):
        text = str(network.get(key) or "")
        if not text:
            continue
        try:
            parse(text)
        except ValueError as error:
            problems.add(f"{where}.{key}", str(error))
        else:
            if key.endswith("address") and "/" not in text:
                problems.add(f"{where}.{key}", f"invalid CIDR address: {text}")
    mac = network.get("mac_address")
    if mac and not is_mac_address(mac):
        problems.add(f"{where}.mac_address", f"{mac!r} is not the hardware address of one interface")
    for number, value, limit in (
        ("mtu", network.get("mtu", 0), MTU_MAX),
        ("tx_queue_len", network.get("tx_queue_len", 0), UINT32_MAX),
    ):
        if not 0 <= value <= limit:
            problems.add(f"{where}.{number}", f"expected a number from 0 to {limit}, got {value}")


def is_interface_name(name: str) -> bool:
    """Whether the kernel takes it for an interface (dev_valid_name() of net/core/dev.c)."""
    return (
        0 < len(name.encode()) <= NAME_MAX
        and name not in (".", "..")
        and not any(char in "/:%" or char.isspace() for char in name)
    )


def is_mac_address(text: str) -> bool:
    """Whether it is an Ethernet address in the usual notation, and not one of a group."""
    parts = text.split(":")
    if len(parts) != 6 or not all(len(part) == 2 for part in parts):
        return False
    try:
        first, *rest = (int(part, 16) for part in parts)
    except ValueError:
        return False
    return not first & 1 and any((first, *rest))
