"""ctr_supervisor/network/networks.py, on bridges and veth pairs of the real kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CtrError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC
from ctr_supervisor.network import networks
from tests.support.command import run
from tests.support.forked import in_child
from tests.support.networks import NetworkNamespace, own_links

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_network_namespaces]

VETH: Any = {
    "type": "veth",
    "name": "eth0",
    "bridge": "br0",
    "host_interface_name": "host0",
    "mac_address": "02:42:ac:11:00:02",
    "address": "10.0.0.2/24",
    "gateway": "10.0.0.1",
    "ipv6_address": "fd00::2/64",
    "ipv6_gateway": "fd00::1",
    "mtu": 1400,
    "tx_queue_len": 77,
    "hairpin_mode": True,
}
PLAIN: Any = {"type": "veth", "name": "eth0", "bridge": "br0", "host_interface_name": "host0"}


@pytest.fixture
def container() -> Iterator[NetworkNamespace]:
    """The network namespace of a container."""
    with NetworkNamespace() as namespace:
        yield namespace


def on_host(work: Callable[[], Any]) -> Any:
    """What `work` returns in a network namespace that is the host's, with a bridge br0."""

    def prepared() -> Any:
        _kernel.unshare(CLONE_NEWNET)
        run("ip", "link", "add", "br0", "type", "bridge").ok()
        run("ip", "address", "add", "10.0.0.1/24", "dev", "br0").ok()
        run("ip", "link", "set", "br0", "up").ok()
        return work()

    return in_child(prepared)


def refusal(work: Callable[..., Any], *arguments: Any) -> str:
    """The text of the error that `work` raises."""
    try:
        work(*arguments)
    except CtrError as error:
        return str(error)
    raise AssertionError("no error")


def test_create_makes_a_pair_from_the_bridge_into_the_container(container: NetworkNamespace):
    made, host = on_host(lambda: (networks.create([VETH], container.pid), own_links()))
    assert made == [{**VETH, "host_interface_index": host["host0"]["index"]}]
    end = host["host0"]
    assert (end["master"], end["up"], end["mtu"], end["txqlen"], end["hairpin"]) == ("br0", True, 1400, 77, True)
    assert set(host) == {"lo", "br0", "host0"}


def test_initialize_configures_the_containers_end(container: NetworkNamespace):
    def work() -> Any:
        made = networks.create([VETH], container.pid)
        before = container.links()["eth0"]
        networks.initialize(made, container.pid)
        return before, container.links()["eth0"], container.routes()

    before, after, routes = on_host(work)
    assert (before["up"], before["addresses"]) == (False, [])
    assert after["addresses"] == ["10.0.0.2/24", "fd00::2/64"]
    assert (after["up"], after["mtu"], after["mac"]) == (True, 1400, "02:42:ac:11:00:02")
    assert [(route["gateway"], route["dev"]) for route in routes] == [("10.0.0.1", "eth0"), ("fd00::1", "eth0")]


def test_the_loopback_is_set_up(container: NetworkNamespace):
    assert not container.links()["lo"]["up"]
    assert networks.set_up([{"type": "loopback"}], container.pid) == [{"type": "loopback"}]
    assert container.links()["lo"]["up"]


def test_the_container_reaches_the_bridge(container: NetworkNamespace):
    def work() -> int:
        networks.set_up([{"type": "loopback"}, VETH], container.pid)
        return container.run("busybox", "ping", "-c1", "-W5", "10.0.0.1").code

    assert on_host(work) == 0


def test_a_pair_needs_no_more_than_names(container: NetworkNamespace):
    def work() -> Any:
        networks.set_up([PLAIN], container.pid)
        return own_links()["host0"], container.links()["eth0"]

    host, inside = on_host(work)
    assert host["up"] and inside["up"]
    assert (host["mtu"], inside["mtu"], inside["addresses"], host["hairpin"]) == (1500, 1500, [], False)


def test_detach_takes_the_pair_off_the_bridge_and_attach_puts_it_back(container: NetworkNamespace):
    def work() -> Any:
        made = networks.set_up([{"type": "loopback"}, VETH], container.pid)
        networks.detach(made)
        detached = own_links()["host0"]
        attached = networks.attach(made)
        return made == attached, detached, own_links()["host0"]

    same, detached, attached = on_host(work)
    assert same
    assert detached["master"] is None
    assert (attached["master"], attached["hairpin"], attached["up"]) == ("br0", True, True)


def test_destroy_removes_the_pair_and_may_be_run_twice(container: NetworkNamespace):
    def work() -> Any:
        made = networks.set_up([VETH], container.pid)
        networks.destroy(made)
        networks.destroy(made)
        return sorted(own_links()), sorted(container.links())

    assert on_host(work) == [["br0", "lo"], ["lo"]]


def test_destroy_leaves_another_interface_that_has_the_name_now(container: NetworkNamespace):
    def work() -> Any:
        made = networks.set_up([PLAIN], container.pid)
        networks.destroy(made)
        run("ip", "link", "add", "host0", "type", "veth", "peer", "name", "other").ok()
        networks.destroy(made)
        return "host0" in own_links()

    assert on_host(work)


def test_destroy_does_not_mind_that_the_kernel_was_faster(container: NetworkNamespace, monkeypatch: pytest.MonkeyPatch):
    def work() -> Any:
        made = networks.set_up([PLAIN], container.pid)
        networks.destroy(made)
        monkeypatch.setattr(networks, "_is_there", lambda _: True)
        networks.destroy(made)
        return sorted(own_links())

    assert on_host(work) == ["br0", "lo"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bridge": "br1"}, "set up network: link not found for bridge br1"),
        ({"bridge": "lo"}, "set up network: lo is not a bridge"),
        ({"name": "lo"}, "set up network: add host0: file exists"),
        ({"host_interface_name": "br0"}, "set up network: add br0: file exists"),
        ({"gateway": "192.0.2.1"}, "set up network: add route dst=default gateway=192.0.2.1"),
        ({"mtu": 60}, "set up network: set mtu=60"),
    ],
)
def test_a_network_that_cannot_be_made_leaves_nothing(change: dict, text: str, container: NetworkNamespace):
    good = {**PLAIN, "name": "eth1", "host_interface_name": "host1"}
    said, host = on_host(
        lambda: (refusal(networks.set_up, [good, {**VETH, **change}], container.pid), sorted(own_links()))
    )
    assert said.startswith(text)
    assert host == ["br0", "lo"]
    assert sorted(container.links()) == ["lo"]


def test_attach_needs_the_pair():
    text = on_host(lambda: refusal(networks.attach, [VETH]))
    assert text == "attach network: link not found for interface host0"


def test_what_the_host_sends_is_what_the_container_receives(container: NetworkNamespace, tmp_path: Path):
    def work() -> Any:
        # what sysfs shows belongs to the namespace of the one who mounts it
        _kernel.unshare(CLONE_NEWNS)
        _kernel.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
        _kernel.mount("sysfs", str(tmp_path), "sysfs", 0, None)
        made = networks.set_up([{"type": "loopback"}, VETH], container.pid)
        container.run("busybox", "ping", "-c2", "-i0.1", "-W5", "-s1000", "10.0.0.1").ok()
        sent, received = (
            int((tmp_path / f"class/net/host0/statistics/{name}_packets").read_text()) for name in ("tx", "rx")
        )
        return networks.statistics(made, str(tmp_path / "class/net")), sent, received

    statistics, sent, received = on_host(work)
    assert list(statistics[0]) == [
        "Name", "RxBytes", "RxPackets", "RxErrors", "RxDropped", "TxBytes", "TxPackets", "TxErrors", "TxDropped"
    ]  # fmt: skip
    assert statistics[0]["Name"] == "host0"
    assert statistics[0]["RxBytes"] >= 2000 and statistics[0]["TxBytes"] >= 2000
    assert 2 <= statistics[0]["RxPackets"] <= sent
    assert 2 <= statistics[0]["TxPackets"] <= received


def test_the_directions_are_not_mixed_up(tmp_path: Path):
    directory = tmp_path / "host0/statistics"
    directory.mkdir(parents=True)
    for number, name in enumerate(("bytes", "packets", "errors", "dropped"), 1):
        (directory / f"tx_{name}").write_text(f"{number}\n")
        (directory / f"rx_{name}").write_text(f"{number * 10}\n")
    assert networks.statistics([{"type": "loopback"}, PLAIN], str(tmp_path)) == [
        {
            "Name": "host0",
            **dict(zip(("RxBytes", "RxPackets", "RxErrors", "RxDropped"), (1, 2, 3, 4), strict=True)),
            **dict(zip(("TxBytes", "TxPackets", "TxErrors", "TxDropped"), (10, 20, 30, 40), strict=True)),
        }
    ]


def test_statistics_of_an_interface_that_is_gone_are_an_error(tmp_path: Path):
    with pytest.raises(CtrError, match="read statistics of interface host0"):
        networks.statistics([PLAIN], str(tmp_path))


def test_a_restore_learns_which_ends_belong_together():
    assert networks.veth_pairs([{"type": "loopback"}, PLAIN]) == [("eth0", "host0")]
