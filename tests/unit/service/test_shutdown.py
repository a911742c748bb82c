"""The ordered end of containers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ctr_supervisor.service import shutdown as module
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.registry import Registry
from ctr_supervisor.service.shutdown import STOP_SIGNAL, Shutdown, stop_signal
from tests.support.slowness import SLOWNESS
from tests.unit.service.conftest import Pretender, serve_until


class Reaper:
    """Reaps the children of the test as they end, as a process number 1 does."""

    def __init__(self, loop: Loop, pretend: Pretender, registry: Registry) -> None:
        self.pretend = pretend
        self.registry = registry
        self.codes: dict[int, int] = {}
        loop.handle_signals([signal.SIGCHLD], self.reap)

    def reap(self, _: int) -> None:
        for pid in list(self.pretend.children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self.pretend.children.discard(pid)
                self.codes[pid] = os.waitstatus_to_exitcode(status)
                self.registry.reaped(pid, status)


@pytest.fixture
def reaper(loop: Loop, pretend: Pretender, registry: Registry) -> Callable[[], Reaper]:
    return lambda: Reaper(loop, pretend, registry)


def stubborn(pretend: Pretender, container_id: str, directory: Path) -> int:
    """A container that does not obey."""
    ready = directory / f"{container_id}-ready"
    os.mkfifo(ready)
    script = f"trap '' TERM; echo > {ready}; while true; do sleep 600 & wait $!; done"
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], {"PATH": "/bin:/usr/bin"}, setpgroup=0)
    ready.read_text()
    pretend.children.add(pid)
    pretend.create(container_id, pid=pid)
    pretend.start(container_id)
    return pid


def run(loop: Loop, registry: Registry, grace: float = 60) -> tuple[Shutdown, list[str]]:
    killed: list[str] = []
    done: list[Shutdown] = []
    made = Shutdown(loop, registry, killed.append, done.append, grace)
    made.start()
    serve_until(loop, lambda: bool(done))
    assert done == [made]
    return made, killed


def test_every_container_gets_its_stop_signal(
    pretend: Pretender, registry: Registry, loop: Loop, reaper: Callable[[], Reaper]
) -> None:
    usual = pretend.run("usual")
    other = pretend.run("other", annotations={STOP_SIGNAL: "SIGQUIT"})
    dead = pretend.run("dead")
    pretend.kill(dead)
    reaped = reaper()
    reaped.reap(0)
    made, killed = run(loop, registry)

    assert (sorted(made.stopped), made.killed, made.stuck, killed) == (["other", "usual"], [], [], [])
    assert (reaped.codes[usual], reaped.codes[other]) == (-signal.SIGTERM, -signal.SIGQUIT)


def test_what_does_not_obey_is_killed(
    pretend: Pretender, registry: Registry, loop: Loop, reaper: Callable[[], Reaper], directory: Path
) -> None:
    pid = stubborn(pretend, "stubborn", directory)
    pretend.run("good")
    reaped = reaper()
    try:
        made, killed = run(loop, registry, grace=0.05 * SLOWNESS)
    finally:
        os.killpg(pid, signal.SIGKILL)

    assert (made.stopped, made.killed, killed) == (["good"], ["stubborn"], ["stubborn"])
    assert reaped.codes[pid] == -signal.SIGKILL


def test_one_that_waits_for_its_start_is_killed_at_once(
    pretend: Pretender, registry: Registry, loop: Loop, reaper: Callable[[], Reaper]
) -> None:
    pretend.create("waits")
    reaper()
    made, killed = run(loop, registry)
    assert (made.killed, killed) == (["waits"], ["waits"])


def test_what_can_not_be_ended_is_given_up(
    pretend: Pretender, registry: Registry, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KILL_TIME", 0.02)
    # Nobody reaps it, so its end is not complete.
    pretend.create("zombie")
    made, _ = run(loop, registry, grace=0.02)
    assert made.stuck == ["zombie"]


def test_with_nothing_to_stop_it_is_done_at_once(registry: Registry, loop: Loop) -> None:
    done: list[Shutdown] = []
    Shutdown(loop, registry, lambda _: None, done.append).start()
    assert len(done) == 1


@pytest.mark.parametrize(
    ("annotations", "number"),
    [
        (None, signal.SIGTERM),
        ({}, signal.SIGTERM),
        ({STOP_SIGNAL: "SIGINT"}, signal.SIGINT),
        ({STOP_SIGNAL: "HUP"}, signal.SIGHUP),
        ({STOP_SIGNAL: "9"}, signal.SIGKILL),
        ({STOP_SIGNAL: "nonsense"}, signal.SIGTERM),
        ({STOP_SIGNAL: ""}, signal.SIGTERM),
    ],
)
def test_the_stop_signal_is_the_images(annotations: object, number: int) -> None:
    assert stop_signal({"annotations": annotations}) == number
