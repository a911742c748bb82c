"""Windows that are resized all the time, of clients of a supervisor: at any moment, and whatever becomes of them."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ctr_supervisor.process.status import read_stat
from tests.support.bundles import Bundles
from tests.support.runtime import Runtime, runtime_under_test
from tests.support.supervised import Client, Supervisor
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]

# Rows and columns: nothing, the most that there is, and what is usual.
SIZES = [(0, 0), (24, 80), (65535, 65535), (1, 65535), (50, 132), (65535, 1)]
TIMES = 300

# Tells its size whenever it is told that there is another one, and at a word.
SCRIPT = (
    "trap 'echo \"<$(stty size)>\"' WINCH; echo ready-$((1 + 1)); "
    'while :; do read -t 60 line || continue; case "$line" in end) exit 5;; size) echo "[$(stty size)]";; esac; done'
)


@contextmanager
def storm(terminal: Terminal) -> Iterator[Callable[[], int]]:
    """Resizes a window as fast as it can; gives the number of times, and leaves when that is TIMES at least."""
    over = threading.Event()
    count = itertools.count()
    done = 0

    def resize() -> None:
        nonlocal done
        while not over.is_set() or done < TIMES:
            terminal.resize(*SIZES[next(count) % len(SIZES)])
            done += 1
            over.wait(0.0005)

    thread = threading.Thread(target=resize)
    thread.start()
    try:
        yield lambda: done
    finally:
        over.set()
        thread.join()


def settled(terminal: Terminal, rows: int, columns: int) -> None:
    """Sets a last size, which must be that of the container, and known there by the signal."""
    before = len(terminal.seen)
    terminal.resize(rows, columns)
    terminal.expect(f"<{rows} {columns}>", after=before)
    terminal.type("size\n").expect(f"[{rows} {columns}]", after=before)


def gone(terminal: Terminal) -> None:
    """Ends what runs in it."""
    terminal.type("end\n")
    assert terminal.wait() == 5


@pytest.fixture
def on_terminal(
    supervisor: Supervisor, bundle: Bundles, direct: Runtime, container_id: str
) -> Callable[[str], Terminal]:
    """`run` or `exec`, with a terminal, of SCRIPT by a client on a terminal of its own."""
    made = itertools.count()

    def start(verb: str) -> Terminal:
        def terminal(config: dict[str, Any]) -> None:
            config["process"]["terminal"] = True

        argv: list[str | Path] = [runtime_under_test(), "--root", supervisor.root, f"--supervisor={supervisor.socket}"]
        words = ["sh", "-c", SCRIPT]
        if verb == "exec":
            if not next(made):
                direct("run", "-d", "-b", bundle(args=["sleep", "600"]), container_id).ok()
            return Terminal(*argv, "exec", "-t", container_id, *words)
        return Terminal(*argv, "run", "-b", bundle(terminal, args=words), f"{container_id}-{next(made)}")

    return start


class Kept:
    """What a supervisor and its pool hold, to be compared with later.

    Args:
        client: the only one.
    """

    def __init__(self, supervisor: Supervisor, client: Client) -> None:
        self.supervisor = supervisor
        self.client = client
        until("nothing else is under way", self.is_quiet)
        # It keeps the freezer of each container open that it was asked about.
        client.ask("list")
        self.before = self.look()

    def is_quiet(self) -> bool:
        status = self.client.ask("status")
        return (status["jobs"], status["clients"]) == (0, 1)

    def look(self) -> tuple[int, int, int]:
        """fds, threads, children."""
        threads = len(os.listdir(f"/proc/{self.supervisor.pid}/task"))
        return self.supervisor.fds(), threads, len(self.supervisor.pool())

    def is_back(self) -> None:
        """Waits until it is as before."""
        until(f"it holds {self.before} again", lambda: self.is_quiet() and self.look() == self.before)


VERBS = pytest.mark.parametrize("verb", ["run", "exec"])


@VERBS
def test_a_window_may_change_all_the_time_from_before_there_is_a_container(
    supervisor: Supervisor, client: Client, on_terminal: Callable[[str], Terminal], verb: str
) -> None:
    # What belongs to the container of an exec is there by then.
    with on_terminal(verb) as first:
        first.expect("ready-2")
        gone(first)
    kept = Kept(supervisor, client)
    for number in range(3):
        with on_terminal(verb) as terminal:
            with storm(terminal) as times:
                terminal.expect("ready-2")
            assert times() >= TIMES
            settled(terminal, 31 + number, 97)
            gone(terminal)
    kept.is_back()


@VERBS
def test_a_window_may_change_while_the_supervisor_goes_on_as_another_program(
    client: Client, on_terminal: Callable[[str], Terminal], verb: str
) -> None:
    with on_terminal(verb) as terminal:
        with storm(terminal):
            # One before the container has its console, as a rule, and one after it.
            client.ask("upgrade")
            terminal.expect("ready-2")
            client.ask("upgrade")
        settled(terminal, 42, 43)
        gone(terminal)
    assert client.ask("status")["jobs"] == 0


@VERBS
def test_a_window_may_change_when_the_process_has_ended(on_terminal: Callable[[str], Terminal], verb: str) -> None:
    with on_terminal(verb) as terminal:
        terminal.expect("ready-2")
        with storm(terminal):
            gone(terminal)


def is_stopped(pid: int) -> bool:
    found = read_stat(pid)
    return found is not None and found[0] == b"T"


def client_of(terminal: Terminal) -> int:
    """The client itself, which setsid(1) becomes."""
    pid = terminal.process.pid
    until("it is executed", lambda: Path(f"/proc/{pid}/comm").read_text() == "ctrun\n")
    return pid


@VERBS
def test_a_client_that_is_stopped_holds_up_nobody_and_has_the_last_size_when_it_goes_on(
    client: Client, on_terminal: Callable[[str], Terminal], verb: str
) -> None:
    with on_terminal(verb) as stopped, on_terminal(verb) as other:
        stopped.expect("ready-2")
        other.expect("ready-2")
        pid = client_of(stopped)
        os.kill(pid, signal.SIGSTOP)
        until("it is stopped", lambda: is_stopped(pid))
        with storm(stopped):
            client.ask("list")
            settled(other, 20, 21)
        stopped.resize(38, 39)
        os.kill(pid, signal.SIGCONT)
        stopped.expect("<38 39>")
        gone(stopped)
        gone(other)


@VERBS
def test_a_client_that_vanishes_meanwhile_leaves_nothing_behind(
    supervisor: Supervisor, client: Client, on_terminal: Callable[[str], Terminal], verb: str
) -> None:
    with on_terminal(verb) as first:
        first.expect("ready-2")
        gone(first)
    kept = Kept(supervisor, client)
    for ready in (False, True, True):
        with on_terminal(verb) as terminal, storm(terminal):
            if ready:
                terminal.expect("ready-2")
            os.kill(client_of(terminal), signal.SIGKILL)
            terminal.wait()
    for one in client.ask("list")["containers"]:
        if verb == "run":
            client.ask("delete", id=one["id"], force=True)
        else:
            assert one["status"] == "running"
    kept.is_back()
