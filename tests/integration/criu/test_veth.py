"""Networks of libcontainer's kind, and pid namespaces of somebody else's, around checkpoint and restore."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.criu.conftest import LIMIT, Restorable
from tests.support import criu, leaks
from tests.support.bundles import Config
from tests.support.command import Result, run
from tests.support.networks import NetworkNamespace
from tests.support.runtime import ROOT
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_criu,
    pytest.mark.needs_network_namespaces,
    pytest.mark.usefixtures("no_leaks"),
]

NETWORK = {"type": "veth", "name": "eth0", "bridge": "br0", "host_interface_name": "host0", "address": "10.0.0.2/24"}

# The Python API's way in: networks are no part of the specification's configuration.
MAKE = """
import json, os, sys
told = json.loads(sys.argv[1])
sys.path += told["path"]
from ctr_common.errors import CtrError
from ctr_supervisor.engine import create, restore, runtime
from ctr_supervisor.engine.criu_options import RestoreOptions
from ctr_supervisor.engine.options import CreateOptions
options = CreateOptions(networks=told["networks"])
ours = runtime.Runtime(told["root"])
try:
    if told["images"]:
        ours.criu = told["criu"]
        flags = RestoreOptions(told["images"], told["work"])
        restore.restore(ours, told["id"], told["bundle"], options, flags, detach=True)
    else:
        create.create(ours, told["id"], told["bundle"], options)
except CtrError as error:
    with open(told["said"], "w") as said:
        said.write(str(error))
"""


@pytest.fixture
def host() -> Iterator[NetworkNamespace]:
    """A network namespace that is the host's for a test, with a bridge br0."""
    with NetworkNamespace() as namespace:
        for words in (
            "link set lo up",
            "link add br0 type bridge",
            "address add 10.0.0.1/24 dev br0",
            "link set br0 up",
        ):
            namespace.ip(*words.split())
        yield namespace


@pytest.fixture
def there(box: Restorable, host: NetworkNamespace) -> Callable[..., Result]:
    """Runs ctrun on that host."""
    box.criu = ["--criu", str(criu.find_for_network())]
    ctrun = box.ctrun
    return lambda *args: run(*host.command(ctrun.path, *ctrun.globals, *box.criu, *args), timeout=LIMIT)


@pytest.fixture
def make(box: Restorable, host: NetworkNamespace) -> Callable[..., None]:
    """Creates the container with its network on that host, or restores it there."""

    def made(*, restored: bool = False) -> None:
        told: dict[str, Any] = {
            "path": [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))],
            "networks": [NETWORK],
            "root": str(box.ctrun.state_root),
            "id": box.container_id,
            "bundle": str(box.bundle),
            "images": str(box.images) if restored else "",
            "work": str(box.work),
            "criu": box.criu[1],
            "said": str(box.directory / "said"),
        }
        argv = host.command(sys.executable, "-IS", "-c", MAKE, json.dumps(told))
        null = subprocess.DEVNULL
        # The container gets all three, and files and pipes of ours can't be saved.
        subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=LIMIT, check=True)
        said = box.directory / "said"
        assert not said.exists(), said.read_text()

    return made


def link(host: NetworkNamespace, name: str) -> dict[str, Any]:
    """What `ip` tells of an interface of the host's, {} where there is none."""
    result = host.run("ip", "-json", "link", "show", "dev", name)
    return dict(json.loads(result.out)[0]) if result.code == 0 else {}


def begin(box: Restorable, host: NetworkNamespace, there: Callable[..., Result], make: Callable[..., None]) -> None:
    """The container runs, and the host reaches it."""
    box.bundle = box.bundles(args=["sh", "-c", "while :; do sleep 1000; done"])
    make()
    there("start", box.container_id).ok()
    assert link(host, "host0")["master"] == "br0"
    until("it answers", lambda: answers(host))


def answers(host: NetworkNamespace) -> bool:
    """Whether the container answers the host."""
    return host.run("busybox", "ping", "-c", "1", "-W", "1", "10.0.0.2").code == 0


def where(box: Restorable) -> list[str | Path]:
    """The flags for the folders."""
    return ["--image-path", box.images, "--work-path", box.work]


def test_a_veth_pair_is_made_again_and_is_a_port_of_its_bridge(
    box: Restorable, host: NetworkNamespace, there: Callable[..., Result], make: Callable[..., None]
) -> None:
    begin(box, host, there, make)
    there("checkpoint", *where(box), box.container_id).ok()
    until("its end on the host is gone", lambda: not link(host, "host0"))
    make(restored=True)
    assert (link(host, "host0")["master"], "UP" in link(host, "host0")["flags"]) == ("br0", True)
    until("it answers", lambda: answers(host))
    state = json.loads((box.ctrun.state_root / box.container_id / "state.json").read_text())
    assert [network["host_interface_index"] for network in state["networks"]] == [link(host, "host0")["ifindex"]]
    there("delete", "--force", box.container_id).ok()
    assert link(host, "host0") == {}


def test_a_veth_pair_is_out_of_its_bridge_while_the_container_is_saved(
    box: Restorable, host: NetworkNamespace, there: Callable[..., Result], make: Callable[..., None]
) -> None:
    begin(box, host, there, make)
    with subprocess.Popen(host.command("ip", "-o", "monitor", "link"), stdout=subprocess.PIPE, text=True) as monitor:
        until("it watches", lambda: watches(monitor.pid))
        there("checkpoint", "--leave-running", *where(box), box.container_id).ok()
        assert link(host, "host0")["master"] == "br0"
        monitor.terminate()
        told = [line for line in monitor.communicate(timeout=10)[0].splitlines() if " host0@" in line]
    away = next(number for number, line in enumerate(told) if "master br0" not in line)
    assert any("master br0" in line for line in told[away:])
    until("it answers", lambda: answers(host))
    there("delete", "--force", box.container_id).ok()


def watches(pid: int) -> bool:
    """Whether a process has joined a multicast group of rtnetlink."""
    sockets = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
    return any(int(line.split()[2]) == pid and int(line.split()[3], 16) for line in sockets)


def test_a_veth_pair_is_back_in_its_bridge_after_a_checkpoint_that_failed(
    box: Restorable, host: NetworkNamespace, there: Callable[..., Result], make: Callable[..., None]
) -> None:
    begin(box, host, there, make)
    program = box.directory / "dying-criu"
    log = box.work / "dump.log"
    waiting = f'while ! grep -qs "Running network-lock scripts" {log}; do :; done'
    real = shlex.quote(box.criu[1])
    program.write_text(f'#!/bin/sh\n[ "$1" != swrk ] || ({waiting}; kill -9 $$) &\nexec {real} "$@"\n')
    program.chmod(0o755)
    box.criu = ["--criu", str(program)]
    result = there("checkpoint", *where(box), box.container_id)
    assert result.code == 1
    assert "criu was killed by signal 9" in result.err
    assert link(host, "host0")["master"] == "br0"
    until("it answers", lambda: answers(host))
    there("delete", "--force", box.container_id).ok()


# Pid 1 of a pid namespace that waits for whoever is left to it.
INIT = """
import os, signal, sys
signal.signal(signal.SIGCHLD, lambda *_: None)
print("ready", flush=True)
while True:
    signal.sigtimedwait([signal.SIGCHLD], 0.1)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
"""


def test_a_container_is_restored_into_the_pid_namespace_of_somebody_else(box: Restorable) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", INIT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        namespace = Path(f"/proc/{holder.pid}/ns/pid_for_children")
        inode = os.stat(namespace).st_ino

        def joining(config: Config) -> None:
            for entry in config["linux"]["namespaces"]:
                if entry["type"] == "pid":
                    entry["path"] = str(namespace)

        known = set(leaks.descendants())
        box.count(joining)
        before = box.counts()
        assert Path(f"/proc/{box.pid}/ns/pid").stat().st_ino == inode
        box.checkpoint().ok()
        # Its pids are free once it is buried.
        until("nobody is left in it", lambda: buried(known, inode))
        box.restore().ok()
        assert Path(f"/proc/{box.pid}/ns/pid").stat().st_ino == inode
        assert box.counts() >= before
        box.end()
        holder.kill()


def buried(known: set[int], inode: int) -> bool:
    """Buries orphans of ours; whether the pid namespace has but its first process then."""
    leaks.reap(known)
    return len(members(inode)) == 1


def members(inode: int) -> list[str]:
    """Pids of the processes in a pid namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "ns/pid").stat().st_ino == inode:
                found.append(entry.name)
        except OSError:
            continue
    return found
