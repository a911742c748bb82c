"""How a container ended that is deleted before anybody could write that down; the kernel here tells nobody."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ctr_common.kernel import _kernel
from ctr_common.wire import decode, encode
from ctr_supervisor.process.status import read_stat
from ctr_supervisor.service import main
from ctr_supervisor.service import observer as module
from ctr_supervisor.service import waits as waits_module
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.registry import Registry
from ctr_supervisor.service.waits import Waits
from tests.unit.service.conftest import Pretender, serve_until

Events = list[dict[str, Any]]
NewRegistry = Callable[..., Registry]

EXITED, DELETED = ("exited", 137), ("deleted", None)


class Kept:
    """A running container with a keeper that is a child of this process."""

    def __init__(self, pretend: Pretender, container_id: str = "c") -> None:
        self.pretend = pretend
        self.id = container_id
        self.keeper = subprocess.Popen(
            ["/bin/sh", "-c", "sleep 600 & echo $!; wait $!"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A loop of another test has blocked SIGCHLD, without which no shell hears of its child.
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),  # noqa: PLW1509 - no threads here
        )
        assert self.keeper.stdout is not None
        self.pid = int(self.keeper.stdout.readline())
        pretend.run(container_id, pid=self.pid, keeper_pid=self.keeper.pid)

    def kill(self) -> None:
        """Ends it; the keeper has reaped it then, and is a zombie."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.keeper.pid, os.WEXITED | os.WNOWAIT)

    def kill_and_delete(self) -> None:
        self.kill()
        self.pretend.delete(self.id)

    def reap(self) -> int:
        """Reaps the keeper; its wait status."""
        _, status = os.waitpid(self.keeper.pid, 0)
        self.keeper.returncode = 0
        return status

    def end(self) -> None:
        if self.keeper.returncode is None:
            self.keeper.kill()
            self.keeper.wait()
        if read_stat(self.pid) is not None:
            os.kill(self.pid, signal.SIGKILL)
        assert self.keeper.stdout is not None
        self.keeper.stdout.close()


@pytest.fixture(autouse=True)
def kernel_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pidfd: int) -> int:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(_kernel, "pidfd_info", refuse)
    monkeypatch.setattr(module, "KEEPER_TIME", 60)


@pytest.fixture
def kept(pretend: Pretender, registry: Registry) -> Iterator[Kept]:
    registry.refresh()  # what is there before is no news
    made = Kept(pretend)
    yield made
    made.end()


def seen(told: Events) -> list[tuple[str, int | None]]:
    """Names and statuses of events."""
    return [(event["event"], event.get("status")) for event in told]


@pytest.mark.parametrize("noticed", [False, True])
def test_the_end_of_a_keeper_is_that_of_its_deleted_container(
    kept: Kept, registry: Registry, told: Events, noticed: bool
) -> None:
    ends: list[int | None] = []
    registry.wait("c", ends.append)
    kept.kill()
    if noticed:
        assert registry.status("c") == "stopped"
    kept.pretend.delete("c")
    assert registry.ids() == []
    assert (seen(told)[2:], ends) == ([], [])
    registry.wait_for_process("c", kept.pid, ends.append)
    registry.reaped(kept.keeper.pid, kept.reap())

    assert seen(told)[2:] == [EXITED, DELETED]
    assert ends == [137, 137]
    assert registry.wait_for_process("c", kept.pid, ends.append) is None


def test_a_keeper_may_be_reaped_before_anybody_looks(kept: Kept, registry: Registry, told: Events) -> None:
    registry.refresh()
    deleted: list[tuple[str, int, int]] = []
    registry.teller.on_deleted = lambda *what: deleted.append(what)
    kept.kill_and_delete()
    registry.reaped(kept.keeper.pid, kept.reap())

    assert seen(told)[2:] == [EXITED, DELETED]
    assert deleted == [("c", kept.pid, 137)]


def test_a_job_that_is_heard_before_a_keeper_loses_nothing(kept: Kept, registry: Registry, told: Events) -> None:
    registry.refresh()
    kept.kill_and_delete()
    supervisor: Any = SimpleNamespace(
        dispatch=SimpleNamespace(hear=registry.refresh), answers=SimpleNamespace(child_ended=registry.reaped)
    )
    main.reap(supervisor, SimpleNamespace(child_ended=lambda *_: False))  # type: ignore[arg-type]
    kept.keeper.returncode = 0

    assert seen(told)[2:] == [EXITED, DELETED]


def test_a_container_that_is_there_still_learns_from_its_keeper_too(kept: Kept, registry: Registry) -> None:
    registry.refresh()
    kept.kill()
    registry.reaped(kept.keeper.pid, kept.reap())

    assert registry.exit_status("c") == 137


def test_a_keeper_that_is_not_reaped_holds_up_nobody_for_long(
    kept: Kept, registry: Registry, loop: Loop, told: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPER_TIME", 0.02)
    ends: list[int | None] = []
    registry.wait("c", ends.append)
    kept.kill_and_delete()
    registry.refresh()
    serve_until(loop, lambda: bool(ends))

    assert ends == [None]
    assert seen(told)[2:] == [("exited", None), DELETED]
    registry.reaped(kept.keeper.pid, kept.reap())
    assert len(told) == 4


def test_where_the_keeper_is_gone_nothing_is_waited_for(kept: Kept, registry: Registry, told: Events) -> None:
    registry.refresh()
    kept.kill_and_delete()
    kept.reap()
    registry.refresh()

    assert seen(told)[2:] == [("exited", None), DELETED]


def test_a_keeper_that_was_killed_tells_nothing(kept: Kept, registry: Registry, told: Events) -> None:
    registry.refresh()
    kept.keeper.kill()
    registry.reaped(kept.keeper.pid, kept.reap())

    assert registry.status("c") == "running"
    assert len(told) == 2


def test_another_process_with_a_keepers_pid_tells_nothing(kept: Kept, registry: Registry) -> None:
    registry.refresh()
    registry.reaped(kept.keeper.pid, 0)

    assert registry.status("c") == "running"


def test_a_child_of_our_own_is_its_own_keeper(pretend: Pretender, registry: Registry, told: Events) -> None:
    """As a process number 1 has them, or a supervisor that has restored a container."""
    pid = pretend.run("c")
    registry.refresh()
    pretend.kill(pid)
    pretend.delete("c")
    registry.refresh()
    assert len(told) == 2
    pretend.reap(pid)
    registry.reaped(pid, 9)

    assert seen(told)[2:] == [EXITED, DELETED]


def test_events_of_a_deleted_container_come_before_those_of_the_next_one(
    kept: Kept, registry: Registry, pretend: Pretender, told: Events
) -> None:
    ends: list[int | None] = []
    registry.wait("c", ends.append)
    kept.kill_and_delete()
    registry.refresh()
    next_pid = pretend.create("c")
    assert registry.pid("c") == next_pid
    assert seen(told)[2:] == [("exited", None), DELETED, ("created", None)]
    assert ends == []
    registry.reaped(kept.keeper.pid, kept.reap())

    assert ends == [137]
    assert len(told) == 5
    assert registry.status("c") == "created"


def test_another_program_hears_the_keeper_too(
    kept: Kept, registry: Registry, new_registry: NewRegistry, told: Events
) -> None:
    registry.refresh()
    kept.kill_and_delete()
    saved = decode(encode({"type": "x", "registry": registry.export(os.dup)}))["registry"]
    second = new_registry(saved=saved)
    ends: list[int | None] = []
    assert second.ids() == []
    second.wait_for_process("c", kept.pid, ends.append)
    second.reaped(kept.keeper.pid, kept.reap())

    assert ends == [137]
    assert seen(told)[2:] == [EXITED, DELETED]


def test_how_a_deleted_container_ended_is_remembered_in_another_program_too() -> None:
    before, after = Waits(), Waits()
    before.container_deleted("c", 5, 3)
    before.container_deleted("c", 6, 4)
    after.container_deleted("c", 7, 5)
    after.restore_deleted(decode(encode({"type": "x", "deleted": before.export_deleted()}))["deleted"])
    ends: list[int] = []
    for pid in (7, 6, 5):
        after.wait("c", pid, ends.append)
    assert ends == [5, 4, 3]


def test_only_the_last_deleted_containers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits_module, "REMEMBERED", 3)
    waits = Waits()
    for pid in range(10):
        waits.container_deleted("c", pid, 0)
    assert [pid for _, pid, _ in waits.export_deleted()] == [7, 8, 9]
