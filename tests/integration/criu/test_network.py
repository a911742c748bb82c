"""Connections and network namespaces over a checkpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.criu.conftest import Restorable
from tests.support import criu
from tests.support.bundles import Config, Mutator
from tests.support.networks import NetworkNamespace
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_criu,
    pytest.mark.needs_network_namespaces,
    pytest.mark.usefixtures("no_leaks"),
]
covers = pytest.mark.covers

CLIENT = (
    "mkfifo /dev/shm/in; exec 3<>/dev/shm/in; nc 127.0.0.1 7000 <&3 >/dev/shm/out; echo $? > /dev/shm/ended; sleep 1000"
)


@pytest.fixture
def box(box: Restorable) -> Restorable:
    """A container, and a CRIU that can save its sockets on this kernel."""
    box.criu = ["--criu", str(criu.find_for_network())]
    return box


@pytest.fixture
def network() -> Iterator[NetworkNamespace]:
    """A network namespace with a loopback interface that is up."""
    with NetworkNamespace() as namespace:
        namespace.ip("link", "set", "lo", "up")
        yield namespace


def within(path: Path) -> Mutator:
    """A configuration that joins a network namespace."""

    def mutate(config: Config) -> None:
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = str(path)

    return mutate


class Server:
    """Takes one connection outside of the container; what is written to it goes there, and the other way round."""

    def __init__(self, network: NetworkNamespace) -> None:
        self.process = subprocess.Popen(
            network.command("busybox", "nc", "-l", "-p", "7000"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        until("the server listens", lambda: "1B58" in network.run("cat", "/proc/net/tcp", "/proc/net/tcp6").text)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()


def exchange(box: Restorable, server: Server, word: str) -> None:
    """Something goes through the connection, both ways."""
    server.say(f"to {word}")
    until("it came", lambda: f"to {word}" in box.inside("cat", "/dev/shm/out"))
    box.inside("sh", "-c", f"echo from {word} > /dev/shm/in")
    assert server.hear() == f"from {word}"


@covers("checkpoint --tcp-established", "restore --tcp-established")
def test_an_established_connection_goes_on(box: Restorable, network: NetworkNamespace) -> None:
    with Server(network) as server:
        box.run(CLIENT, within(network.path))
        exchange(box, server, "before")
        refusal = box.checkpoint()
        assert refusal.code == 1
        assert "TCP" in refusal.err
        found = box.ctrun(*box.criu, "checkpoint", "--check", "--format", "json", box.container_id)
        assert found.code == 1
        assert {entry["cause"] for entry in json.loads(found.out)} == {"tcp"}
        exchange(box, server, "after the refusal")
        box.checkpoint("--tcp-established").ok()
        server.say("while it is away")
        box.restore("--tcp-established").ok()
        until("what was sent meanwhile", lambda: "while it is away" in box.inside("cat", "/dev/shm/out"))
        exchange(box, server, "after")
        box.end()


@covers("checkpoint --tcp-close", "restore --tcp-close")
def test_a_connection_can_be_given_up(box: Restorable, network: NetworkNamespace) -> None:
    with Server(network) as server:
        box.run(CLIENT, within(network.path))
        exchange(box, server, "before")
        box.checkpoint("--tcp-close").ok()
        box.restore("--tcp-close").ok()
        until("the client has ended", lambda: box.ctrun("exec", box.container_id, "cat", "/dev/shm/ended").code == 0)
        box.end()


def rules(network: NetworkNamespace) -> set[str]:
    """In which ways CRIU has locked the network."""
    tables = network.run("nft", "list", "tables").out
    chains = network.run("iptables-save").out
    return {way for way, found in (("nftables", "CRIU" in tables), ("iptables", ":CRIU" in chains)) if found}


@pytest.mark.needs_command("iptables-save", "nft")
@pytest.mark.parametrize(
    "way",
    ["iptables", "nftables", "skip"],
)
@covers("checkpoint --network-lock", "restore --network-lock")
def test_the_network_is_locked_in_the_way_that_is_asked_for(
    box: Restorable, network: NetworkNamespace, way: str
) -> None:
    with Server(network) as server:
        box.run(CLIENT, within(network.path))
        exchange(box, server, "before")
        box.checkpoint("--tcp-established", "--network-lock", way).ok()
        # Until the restore nobody shall answer the peer that the connection is gone.
        assert rules(network) == {"iptables": {"iptables"}, "nftables": {"nftables"}, "skip": set()}[way]
        box.restore("--tcp-established", "--network-lock", way).ok()
        assert rules(network) == set()
        exchange(box, server, "after")
        box.end()


@pytest.mark.needs_command("musl-gcc")
@covers("checkpoint --tcp-skip-in-flight")
def test_a_connection_that_nobody_has_accepted_is_dropped(
    holding: Callable[..., Restorable], network: NetworkNamespace
) -> None:
    box = holding("listen", "7002", mutate=within(network.path))
    with subprocess.Popen(network.command("busybox", "nc", "127.0.0.1", "7002"), stdin=subprocess.PIPE) as client:
        until("it is connected", lambda: network.run("cat", "/proc/net/tcp").text.count("1B5A") > 2)
        found = box.ctrun(*box.criu, "checkpoint", "--check", "--format", "json", box.container_id)
        assert [entry["cause"] for entry in json.loads(found.out)] == ["tcp-in-flight"]
        result = box.checkpoint("--tcp-established")
        assert result.code == 1
        assert "In-flight connection" in result.err
        box.checkpoint("--tcp-skip-in-flight", "--tcp-established").ok()
        client.kill()
    box.restore("--tcp-established").ok()
    box.end()


def test_a_listening_server_in_a_named_network_namespace_is_restored_there(
    box: Restorable, network: NetworkNamespace
) -> None:
    box.run("echo hello > /dev/shm/page; exec httpd -f -p 7001 -h /dev/shm", within(network.path))
    fetch = network.command("timeout", "2", "busybox", "wget", "-q", "-O-", "http://127.0.0.1:7001/page")

    def page() -> str:
        return subprocess.run(fetch, capture_output=True, text=True, timeout=30, check=False).stdout

    until("the server answers", lambda: page() == "hello\n")
    box.checkpoint().ok()
    assert page() == ""
    box.restore().ok()
    until("the server answers again", lambda: page() == "hello\n")
    assert Path(f"/proc/{box.pid}/ns/net").stat().st_ino == network.path.stat().st_ino
    box.end()


def test_a_restore_goes_to_another_network_namespace_and_state_directory(
    box: Restorable, network: NetworkNamespace, directory: Path, new_container_id: Callable[[], str]
) -> None:
    box.run("echo hello > /dev/shm/page; exec httpd -f -p 7001 -h /dev/shm", within(network.path))
    until("the server listens", lambda: "1B59" in network.run("cat", "/proc/net/tcp6").text)
    box.checkpoint().ok()
    with NetworkNamespace() as other:
        other.ip("link", "set", "lo", "up")
        config = json.loads((box.bundle / "config.json").read_text())
        within(other.path)(config)
        (box.bundle / "config.json").write_text(json.dumps(config))
        elsewhere = type(box.ctrun)(box.ctrun.path, directory / "elsewhere")
        box.ctrun = elsewhere
        box.restore().ok()
        assert Path(f"/proc/{box.pid}/ns/net").stat().st_ino == other.path.stat().st_ino
        fetched = other.run("busybox", "wget", "-q", "-O-", "http://127.0.0.1:7001/page")
        assert fetched.text == "hello"
        box.end()


def test_a_restore_fails_clearly_when_the_network_namespace_is_gone(box: Restorable) -> None:
    with NetworkNamespace() as network:
        box.run("sleep 1000", within(network.path))
        box.checkpoint().ok()
        path = network.path
    result = box.restore()
    assert result.code == 1
    assert f".linux.namespaces[1].path: namespace path: lstat {path}: no such file or directory" in result.err
    assert box.status == ""
    assert not (box.ctrun.state_root / box.container_id).exists()


@covers("checkpoint --empty-ns", "restore --empty-ns")
def test_the_contents_of_a_network_namespace_can_be_left_out(box: Restorable) -> None:
    box.count().counts()
    box.inside("ip", "link", "show", "lo")
    assert "UP" in box.inside("ip", "link", "show", "lo")
    box.checkpoint("--empty-ns", "network").ok()
    box.restore("--empty-ns", "network").ok()
    assert "UP" not in box.inside("ip", "link", "show", "lo")
    box.end()
