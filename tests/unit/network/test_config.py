"""ctr_supervisor/network/config.py: what a caller may ask for as networks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ctr_common.errors import ConfigError
from ctr_supervisor.network.config import check, is_interface_name, is_mac_address

CONFIG: Any = {"linux": {"namespaces": [{"type": "network"}]}}
VETH = {"type": "veth", "name": "eth0", "bridge": "br0", "host_interface_name": "host0"}


def problem(network: object) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        check([network], CONFIG)
    found: tuple[str, str] = caught.value.problems[0]
    return found


def test_the_loopback_of_libcontainers_example_is_a_network():
    loopback = {"type": "loopback", "address": "127.0.0.1/0", "gateway": "localhost"}
    assert check([loopback], CONFIG) == [loopback]


def test_a_veth_with_all_that_it_can_have_comes_back_as_it_is():
    network = {
        **VETH,
        "mac_address": "02:42:ac:11:00:02",
        "address": "10.0.0.2/24",
        "gateway": "10.0.0.1",
        "ipv6_address": "fd00::2/64",
        "ipv6_gateway": "fd00::1",
        "mtu": 1400,
        "tx_queue_len": 100,
        "hairpin_mode": True,
    }
    assert check([network], CONFIG) == [network]


def test_an_object_with_attributes_will_do():
    assert check([SimpleNamespace(**VETH, mtu=0, address=None)], CONFIG) == [VETH]


def test_the_hosts_end_gets_a_name_where_it_has_none():
    first, second = check(
        [{**VETH, "host_interface_name": ""}, {"type": "veth", "name": "eth1", "bridge": "br0"}], CONFIG
    )
    assert is_interface_name(first["host_interface_name"])
    assert first["host_interface_name"] != second["host_interface_name"]


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"type": "macvlan"}, "type", "unknown type 'macvlan'"),
        ({"type": None}, "type", "unknown type"),
        ({"bridge": ""}, "bridge", "bridge is not specified"),
        ({"name": ""}, "name", "is missing"),
        ({"name": "a/b"}, "name", "not a name"),
        ({"bridge": "x" * 16}, "bridge", "not a name"),
        ({"host_interface_name": "veth%d"}, "host_interface_name", "not a name"),
        ({"address": "10.0.0.2"}, "address", "invalid CIDR address"),
        ({"address": "10.0.0.300/24"}, "address", "10.0.0.300"),
        ({"gateway": "10.0.0.1/24"}, "gateway", "10.0.0.1/24"),
        ({"ipv6_address": "10.0.0.2/24"}, "ipv6_address", "10.0.0.2"),
        ({"ipv6_gateway": "router"}, "ipv6_gateway", "router"),
        ({"mac_address": "01:00:5e:00:00:01"}, "mac_address", "not the hardware address"),
        ({"mtu": 70000}, "mtu", "from 0 to 65535"),
        ({"mtu": "1500"}, "mtu", "expected a value of type int"),
        ({"hairpin_mode": 1}, "hairpin_mode", "expected a value of type bool"),
        ({"tx_queue_len": -1}, "tx_queue_len", "from 0 to"),
        ({"vlan": 5}, "vlan", "not a property"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change: dict, key: str, message: str):
    where, text = problem({**VETH, **change})
    assert where == f".networks[0].{key}"
    assert message in text


@pytest.mark.parametrize("key", ["name", "host_interface_name"])
def test_two_networks_have_two_names(key: str):
    other = {**VETH, "name": "eth1", "host_interface_name": "host1", key: VETH[key]}
    with pytest.raises(ConfigError, match="is that of .networks.0. already"):
        check([VETH, other], CONFIG)


def test_networks_need_a_network_namespace():
    with pytest.raises(ConfigError, match="unable to apply network settings without a private NET namespace"):
        check([VETH], {"linux": {"namespaces": [{"type": "mount"}]}})


@pytest.mark.parametrize("text", ["", "02:42:ac:11:00", "2:42:ac:11:00:02", "00:00:00:00:00:00", "zz:42:ac:11:00:02"])
def test_other_things_are_no_hardware_address(text: str):
    assert not is_mac_address(text)
