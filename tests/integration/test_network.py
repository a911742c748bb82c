"""Network devices of the host, and networks of libcontainer's kind, in whole containers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles, Config
from tests.support.command import Result, run
from tests.support.networks import NetworkNamespace
from tests.support.runtime import ROOT, Runtime

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.needs_network_namespaces,
    pytest.mark.usefixtures("no_leaks"),
]
covers = pytest.mark.covers

NETWORK = {"type": "veth", "name": "eth0", "bridge": "br0", "host_interface_name": "host0", "address": "10.0.0.2/24"}

# The Python API's way in: networks are no part of the specification's configuration.
CREATE = """
import json, sys
sys.path += json.loads(sys.argv[1])
from ctr_common.errors import CtrError
from ctr_supervisor.engine import create, options, runtime
try:
    create.create(
        runtime.Runtime(sys.argv[2]), sys.argv[3], sys.argv[4], options.CreateOptions(networks=json.loads(sys.argv[5]))
    )
except CtrError as error:
    raise SystemExit(str(error))
"""


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """A network namespace that is the host's for a test, with a bridge br0 and the devices dev0 and dev1."""
    with NetworkNamespace() as namespace:
        for words in (
            "link add dev0 type veth peer name dev1",
            "link add br0 type bridge",
            "address add 10.0.0.1/24 dev br0",
            "address add 10.9.0.2/24 dev dev0",
            "address add fd00::2/64 dev dev0 nodad",
            "link set dev0 up mtu 1400",
            "link set br0 up",
        ):
            namespace.ip(*words.split())
        yield namespace


@pytest.fixture
def there(host: NetworkNamespace, ctrun: Runtime) -> Callable[..., Result]:
    """Runs ctrun on that host."""
    return lambda *args: run(*host.command(ctrun.path, *ctrun.globals, *args))


@pytest.fixture
def create(host: NetworkNamespace, ctrun: Runtime) -> Callable[..., Result]:
    """Creates a container with networks on that host."""

    def with_networks(container: str, bundle: Path, *networks: dict[str, Any]) -> Result:
        packages = [path for path in sys.path if path.endswith("-packages")]
        arguments = [json.dumps([str(ROOT), *packages]), str(ctrun.state_root), container, str(bundle)]
        return run(*host.command(sys.executable, "-IS", "-c", CREATE, *arguments, json.dumps(networks)))

    return with_networks


def with_devices(devices: dict[str, Any], hooks: dict[str, Any] | None = None) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        config["linux"]["netDevices"] = devices
        if hooks:
            config["hooks"] = hooks

    return change


def kept(host: NetworkNamespace) -> dict[str, Any]:
    """What is to be the same after a failure; indexes change when a device comes back."""
    return {name: {**link, "index": None} for name, link in host.links().items()}


@covers(".linux.netDevices.*.name")
def test_a_device_of_the_host_is_in_the_container_under_its_new_name(
    there: Callable[..., Result], bundle: Bundles, container_id: str
):
    made = bundle(with_devices({"dev0": {"name": "eth9"}}), args=["ip", "address", "show", "dev", "eth9"])
    text = there("run", "-b", made, container_id).text
    assert "UP" in text and "mtu 1400" in text
    assert "inet 10.9.0.2/24 scope global eth9" in text
    assert "inet6 fd00::2/64 scope global" in text


@covers(".linux.netDevices.*.name")
def test_a_device_keeps_its_name_unless_it_gets_another(
    there: Callable[..., Result], host: NetworkNamespace, bundle: Bundles, container_id: str
):
    there("create", "-b", bundle(with_devices({"dev0": {}, "dev1": {}})), container_id).ok()
    assert sorted(host.links()) == ["br0", "lo"]
    pid = json.loads(there("state", container_id).text)["pid"]
    inside = run("nsenter", f"--net=/proc/{pid}/ns/net", "ls", "/proc/self/net/dev_snmp6").text
    assert set(inside.split()) == {"lo", "dev0", "dev1"}
    there("delete", "--force", container_id).ok()


def test_a_device_moves_into_a_user_namespaces_container(
    there: Callable[..., Result], bundle: Bundles, container_id: str
):
    def change(config: Config) -> None:
        with_devices({"dev0": {"name": "eth0"}})(config)
        config["linux"]["namespaces"].append({"type": "user"})
        for key in ("uidMappings", "gidMappings"):
            config["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    made = bundle(change, args=["ip", "address", "show", "dev", "eth0"])
    os.chmod(made, 0o755)
    assert "10.9.0.2/24" in there("run", "-b", made, container_id).text


def test_a_device_can_move_into_a_namespace_that_is_joined(
    there: Callable[..., Result], bundle: Bundles, container_id: str
):
    with NetworkNamespace() as joined:

        def change(config: Config) -> None:
            with_devices({"dev0": {"name": "eth0"}})(config)
            for entry in config["linux"]["namespaces"]:
                if entry["type"] == "network":
                    entry["path"] = str(joined.path)

        there("run", "-b", bundle(change), container_id).ok()
        # it is the namespace's now, not the container's
        assert joined.links()["eth0"]["addresses"] == ["10.9.0.2/24", "fd00::2/64"]


def test_the_first_hooks_find_the_device_in_the_container(
    there: Callable[..., Result], bundle: Bundles, container_id: str, directory: Path
):
    seen = directory / "seen"
    script = f"nsenter --net=/proc/$(jq .pid)/ns/net ip -oneline -4 address show dev eth0 >{seen}"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"PATH={os.environ['PATH']}"]}
    there("run", "-b", bundle(with_devices({"dev0": {"name": "eth0"}}, {"createRuntime": [hook]})), container_id).ok()
    assert "10.9.0.2/24" in seen.read_text()


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"dev9": {}}, "move network device: link not found for interface dev9 on runtime namespace"),
        ({"dev0": {}, "dev9": {}}, "move network device: link not found for interface dev9 on runtime namespace"),
        ({"dev0": {"name": "lo"}}, "has an interface lo already"),
    ],
)
def test_a_device_that_cannot_move_leaves_all_where_they_were(
    devices: dict,
    message: str,
    there: Callable[..., Result],
    host: NetworkNamespace,
    bundle: Bundles,
    container_id: str,
    ctrun: Runtime,
):
    before = kept(host)
    result = there("run", "-b", bundle(with_devices(devices)), container_id)
    assert result.code == 1
    assert message in result.err
    assert ": .linux.netDevices.dev" in result.err
    assert "unable to start container process" in result.err
    assert kept(host) == before
    assert ctrun.status(container_id) == ""


def test_a_container_that_fails_later_gives_the_device_back(
    there: Callable[..., Result], host: NetworkNamespace, bundle: Bundles, container_id: str
):
    before = kept(host)
    hook = {"path": "/bin/false"}
    made = bundle(with_devices({"dev0": {"name": "eth0"}}, {"createRuntime": [hook]}))
    assert there("run", "-b", made, container_id).code == 1
    assert kept(host) == before


def test_a_container_whose_process_cannot_be_executed_gives_the_device_back(
    there: Callable[..., Result], host: NetworkNamespace, bundle: Bundles, container_id: str
):
    before = kept(host)
    made = bundle(with_devices({"dev0": {"name": "eth0"}}), args=["/no/such"])
    assert there("create", "-b", made, container_id).code == 1
    assert kept(host) == before


def test_a_container_has_the_networks_that_it_was_created_with(
    create: Callable[..., Result], there: Callable[..., Result], host: NetworkNamespace, bundle: Bundles,
    container_id: str, ctrun: Runtime,
):  # fmt: skip
    create(container_id, bundle(), {"type": "loopback"}, {**NETWORK, "mtu": 1300}).ok()
    end = host.links()["host0"]
    assert (end["master"], end["mtu"]) == ("br0", 1300)
    state = json.loads((ctrun.state_root / container_id / "state.json").read_text())
    assert state["networks"] == [
        {"type": "loopback"},
        {**NETWORK, "mtu": 1300, "host_interface_index": end["index"]},
    ]
    there("delete", "--force", container_id).ok()
    assert "host0" not in host.links()


def test_a_process_of_the_container_reaches_the_bridge(
    create: Callable[..., Result], there: Callable[..., Result], bundle: Bundles, container_id: str
):
    create(container_id, bundle(args=["sleep", "100"]), {**NETWORK, "gateway": "10.0.0.1"}).ok()
    there("start", container_id).ok()
    command = "ip route; arping -c1 -w5 -I eth0 10.0.0.1"
    text = there("exec", "--cap", "CAP_NET_RAW", container_id, "sh", "-c", command).text
    assert "default via 10.0.0.1 dev eth0" in text
    assert "Received 1" in text
    there("delete", "--force", container_id).ok()


def test_networks_go_with_the_container_even_where_the_namespace_stays(
    create: Callable[..., Result], there: Callable[..., Result], host: NetworkNamespace, bundle: Bundles,
    container_id: str,
):  # fmt: skip
    with NetworkNamespace() as joined:

        def change(config: Config) -> None:
            for entry in config["linux"]["namespaces"]:
                if entry["type"] == "network":
                    entry["path"] = str(joined.path)

        create(container_id, bundle(change), NETWORK).ok()
        assert "eth0" in joined.links()
        there("delete", "--force", container_id).ok()
        assert sorted(joined.links()) == ["lo"]
        assert "host0" not in host.links()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bridge": "br9"}, "link not found for bridge br9"),
        ({"bridge": ""}, ".networks[0].bridge: bridge is not specified"),
    ],
)
def test_a_network_that_cannot_be_made_leaves_nothing(
    change: dict, message: str, create: Callable[..., Result], host: NetworkNamespace, bundle: Bundles,
    container_id: str, ctrun: Runtime,
):  # fmt: skip
    result = create(container_id, bundle(), {**NETWORK, **change})
    assert result.code == 1
    assert message in result.err
    assert "host0" not in host.links()
    assert ctrun.status(container_id) == ""


def test_a_creation_that_fails_later_removes_its_networks(
    create: Callable[..., Result], host: NetworkNamespace, bundle: Bundles, container_id: str
):
    def change(config: Config) -> None:
        config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}

    assert create(container_id, bundle(change), NETWORK).code == 1
    assert "host0" not in host.links()
