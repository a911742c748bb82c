"""The supervisor as the first process of a pid namespace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.runtime import Runtime
from tests.support.supervised import Client, Supervisor
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]

Cheap = Callable[..., Path]
UNSHARE = [shutil.which("unshare") or "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


class First(Supervisor):
    """A supervisor behind `unshare -pf --mount-proc`."""

    @property
    def inner(self) -> int:
        """Pid of the supervisor itself, as the host sees it."""
        (pid,) = self.pool()
        return pid

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in its namespaces."""
        return subprocess.run(
            ["nsenter", "-t", str(self.inner), "-p", "-m", *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def first(directory: Path, direct: Runtime) -> Iterator[First]:
    made = First(directory)
    made.start(wrapper=UNSHARE)
    yield made
    made.kill()


def run(client: Client, container_id: str, bundle: Path) -> int:
    pid: int = client.ask("run", id=container_id, bundle=str(bundle))["pid"]
    return pid


def test_it_is_process_number_one(first: First) -> None:
    with first.client() as client:
        assert client.ask("status")["pid"] == 1


def test_it_reaps_orphans(first: First) -> None:
    # The shell's child is orphaned, and then ends.
    assert first.inside("sh", "-c", "sh -c 'sleep 0.1' & true").returncode == 0

    def zombies() -> str:
        return first.inside("sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep ') Z '").stdout

    until("orphans are reaped", lambda: "sleep" not in zombies() and "(sh)" not in zombies())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPWR])
def test_a_signal_ends_its_containers_in_order_and_then_itself(
    first: First, cheap_bundle: Cheap, container_id: str, directory: Path, number: int
) -> None:
    proof = directory / "proof"
    bundle = cheap_bundle("sh", "-c", "trap 'echo obeyed; exit 0' TERM; while true; do sleep 0.05; done")
    with first.client() as client, open(proof, "w") as out:
        pid = client.ask("run", {"stdout": out.fileno()}, id=container_id, bundle=str(bundle))["pid"]
        until("the trap is set", lambda: inside_caught(first, pid))
        os.kill(first.inner, number)
        assert first.process is not None
        assert first.process.wait(30) == 0
    assert proof.read_text() == "obeyed\n"


def inside_caught(first: First, pid: int) -> bool:
    status = first.inside("cat", f"/proc/{pid}/status").stdout
    found = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(found) and bool(int(found[0], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_second_signal_does_not_wait_and_shows_in_the_exit_status(
    first: First, cheap_bundle: Cheap, container_id: str
) -> None:
    bundle = cheap_bundle("sleep", "600")
    with first.client() as client:
        run(client, container_id, bundle)
        os.kill(first.inner, signal.SIGTERM)
        until("it has begun to end", lambda: "about to end" in str(client.failure("upgrade")))
        os.kill(first.inner, signal.SIGINT)
        assert first.process is not None
        assert first.process.wait(30) == 128 + signal.SIGINT


def test_mounts_that_are_there_are_left_alone(first: First) -> None:
    mine = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    theirs = {line.split()[4] for line in Path(f"/proc/{first.inner}/mountinfo").read_text().splitlines()}
    assert theirs - mine <= {"/proc"}


def test_without_a_proc_of_its_own_it_says_what_is_missing(directory: Path) -> None:
    supervisor = Supervisor(directory)
    result = subprocess.run(
        [*UNSHARE[:-1], *supervisor.argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "--mount-proc" in result.stderr


def test_what_is_missing_in_an_empty_root_is_mounted(directory: Path) -> None:
    """In a root with nothing but empty directories, as an image that is booted has them."""
    program = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[1])
from ctr_supervisor.service import pid1
root = sys.argv[2]
os.makedirs(root, exist_ok=True)
from ctr_common.kernel import _kernel
_kernel.mount("tmpfs", root, "tmpfs", 0, None)
os.chroot(root)
os.chdir("/")
problems = pid1.prepare()
mounts = {line.split()[1]: line.split()[2] for line in open("/proc/self/mounts")}
again = pid1.prepare()
print(json.dumps([problems, mounts, sum(1 for _ in open("/proc/self/mounts")) == len(mounts)]))
"""
    import sys

    argv = [*UNSHARE, sys.executable, "-c", program, json.dumps([p for p in sys.path if p]), str(directory / "root")]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    problems, mounts, once = json.loads(result.stdout)
    assert problems == []
    assert once
    assert {name: mounts[name] for name in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run")} == {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "devtmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/run": "tmpfs",
    }
    assert mounts["/sys/fs/cgroup"] == "cgroup2"


def test_it_can_be_upgraded(first: First, cheap_bundle: Cheap, container_id: str) -> None:
    with first.client() as client:
        run(client, container_id, cheap_bundle("sleep", "600"))
        assert client.ask("upgrade")["upgrades"] == 1
        assert client.ask("state", id=container_id)["container"]["status"] == "running"
