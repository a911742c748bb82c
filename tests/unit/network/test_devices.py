"""ctr_supervisor/network/devices.py, on devices of the real kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctr_common.errors import CtrError
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import CLONE_NEWNET
from ctr_supervisor.network import devices
from tests.support.command import run
from tests.support.forked import in_child, open_fds
from tests.support.networks import NetworkNamespace, own_links

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_network_namespaces]


@pytest.fixture
def container() -> Iterator[NetworkNamespace]:
    """The network namespace of a container."""
    with NetworkNamespace() as namespace:
        yield namespace


def on_host(work: Callable[[], Any]) -> Any:
    """What `work` returns in a network namespace that is the host's, with the devices dev0 and dev1."""

    def prepared() -> Any:
        _kernel.unshare(CLONE_NEWNET)
        for words in (
            "link add dev0 type veth peer name dev1",
            "link add br0 type bridge",
            "address add 10.9.0.2/24 dev dev0",
            "address add fd00::2/64 dev dev0 nodad",
            "link set dev0 up mtu 1400 master br0",
        ):
            run("ip", *words.split()).ok()
        return work()

    return in_child(prepared)


def refusal(wanted: Any, pid: int) -> list[str]:
    """Text and JSON path of the error that a move gives."""
    try:
        devices.move_in(wanted, pid)
    except CtrError as error:
        return [str(error), error.json_path]
    raise AssertionError("no error")


def settled(links: dict[str, Any]) -> dict[str, Any]:
    """The devices, without what a move cannot keep."""
    return {name: {key: value for key, value in link.items() if key != "index"} for name, link in links.items()}


def test_a_device_moves_with_its_addresses_and_is_up(container: NetworkNamespace):
    def work() -> Any:
        devices.move_in({"dev0": {}}, container.pid).close()
        return sorted(own_links()), container.links()["dev0"]

    host, inside = on_host(work)
    assert host == ["br0", "dev1", "lo"]
    assert (inside["addresses"], inside["up"], inside["mtu"]) == (["10.9.0.2/24", "fd00::2/64"], True, 1400)


def test_addresses_of_other_scopes_and_of_a_limited_life_stay_behind(container: NetworkNamespace):
    def work() -> Any:
        run("ip", "address", "add", "169.254.1.1/16", "dev", "dev0", "scope", "link").ok()
        run("ip", "address", "add", "10.8.0.2/24", "dev", "dev0", "valid_lft", "100", "preferred_lft", "100").ok()
        devices.move_in({"dev0": {}}, container.pid).close()
        return container.run("ip", "-4", "-oneline", "address", "show", "dev", "dev0").text

    text = on_host(work)
    assert "10.9.0.2/24" in text
    assert "169.254" not in text and "10.8" not in text


def test_what_a_user_says_about_an_address_is_kept(container: NetworkNamespace):
    def work() -> Any:
        run("ip", "address", "add", "10.7.0.2", "peer", "10.7.0.9", "dev", "dev0").ok()
        run("ip", "address", "add", "fd01::2/64", "dev", "dev0", "nodad", "noprefixroute").ok()
        devices.move_in({"dev0": {}}, container.pid).close()
        return container.run("ip", "-oneline", "address", "show", "dev", "dev0").text

    text = on_host(work)
    assert "10.7.0.2 peer 10.7.0.9/32" in text
    assert "nodad noprefixroute" in text


def test_a_device_gets_its_new_name_even_where_its_old_one_is_taken(container: NetworkNamespace):
    container.ip("link", "add", "dev0", "type", "veth", "peer", "name", "x0")

    def work() -> Any:
        devices.move_in({"dev0": {"name": "eth0"}}, container.pid).close()
        return container.links()["eth0"]["addresses"]

    assert on_host(work) == ["10.9.0.2/24", "fd00::2/64"]


def test_a_template_lets_the_kernel_choose_the_name(container: NetworkNamespace):
    container.ip("link", "add", "eth0", "type", "veth", "peer", "name", "x0")

    def work() -> Any:
        devices.move_in({"dev0": {"name": "eth%d"}, "dev1": {"name": "eth%d"}}, container.pid).close()
        return {name: link["addresses"] for name, link in container.links().items() if name.startswith("eth")}

    assert on_host(work) == {"eth0": [], "eth1": ["10.9.0.2/24", "fd00::2/64"], "eth2": []}


def test_an_index_that_is_taken_in_the_container_changes(container: NetworkNamespace):
    # dev1 and dev0 have 2 and 3 on the host
    container.ip("link", "add", "x1", "index", "3", "type", "veth", "peer", "name", "x0")

    def work() -> Any:
        assert own_links()["dev0"]["index"] == 3
        devices.move_in({"dev0": {}}, container.pid).close()
        return container.links()["dev0"]

    inside = on_host(work)
    assert inside["index"] != 3
    assert (inside["addresses"], inside["up"]) == (["10.9.0.2/24", "fd00::2/64"], True)


def test_a_missing_device_is_named(container: NetworkNamespace):
    assert on_host(lambda: refusal({"dev9": {}}, container.pid)) == [
        ".linux.netDevices.dev9: move network device: link not found for interface dev9 on runtime namespace",
        ".linux.netDevices.dev9",
    ]


@pytest.mark.parametrize("wanted", [{"dev0": {"name": "x0"}}, {"dev0": {}, "dev1": {"name": "x0"}}])
def test_a_name_that_is_taken_is_refused_and_the_devices_are_back_as_they_were(
    wanted: Any, container: NetworkNamespace
):
    container.ip("link", "add", "x0", "type", "veth", "peer", "name", "x1")

    def work() -> Any:
        before = own_links()
        return refusal(wanted, container.pid), before, own_links()

    (text, _), before, after = on_host(work)
    assert "the network namespace of the container has an interface x0 already" in text
    assert settled(after) == settled(before)
    assert sorted(container.links()) == ["lo", "x0", "x1"]


def test_a_name_that_only_the_kernel_refuses_leaves_the_device_where_it_was(container: NetworkNamespace):
    def work() -> Any:
        before = own_links()
        return refusal({"dev0": {"name": "%d%d"}}, container.pid), before, own_links()

    (text, where), before, after = on_host(work)
    assert where == ".linux.netDevices.dev0"
    assert "invalid argument" in text
    assert settled(after) == settled(before)
    assert sorted(container.links()) == ["lo"]


def test_the_loopback_does_not_move(container: NetworkNamespace):
    text, where = on_host(lambda: refusal({"lo": {"name": "lo1"}}, container.pid))
    assert where == ".linux.netDevices.lo"
    assert "invalid argument" in text


def test_the_hosts_own_namespace_is_refused():
    text, where = on_host(lambda: refusal({"dev0": {}}, os.getpid()))
    assert where == ".linux.netDevices"
    assert "is that of the host" in text


def test_devices_can_be_given_back_after_the_container_is_gone():
    def work() -> Any:
        before = own_links()
        fds = open_fds()
        with NetworkNamespace() as container:
            moved = devices.move_in({"dev0": {"name": "eth0"}}, container.pid)
        told = [str(error) for error in moved.give_back()]
        told += [str(error) for error in moved.give_back()]
        assert open_fds() == fds
        return told, before, own_links()

    told, before, after = on_host(work)
    assert told == []
    assert settled(after) == settled(before)


def test_a_device_that_nobody_can_give_back_is_told_of(container: NetworkNamespace):
    def work() -> Any:
        moved = devices.move_in({"dev0": {"name": "eth0"}}, container.pid)
        run("ip", "link", "add", "dev0", "type", "veth", "peer", "name", "x1").ok()
        return [str(error) for error in moved.give_back()]

    (text,) = on_host(work)
    assert "network device dev0 could not be given back as it was" in text
    assert "file exists" in text
