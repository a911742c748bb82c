"""The registry: containers as the kernel and the state directories have them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import ContainerNotFound, StateError, UsageError
from ctr_common.kernel import _kernel
from ctr_common.kernel import constants as k
from ctr_supervisor.engine import list as listing
from ctr_supervisor.engine import state as stating
from ctr_supervisor.engine.runtime import Runtime
from ctr_supervisor.service import observer as module
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.pidfds import kernel_tells_statuses
from ctr_supervisor.service.registry import Registry
from tests.support.slowness import SLOWNESS
from tests.unit.service.conftest import Pretender, serve_until

Events = list[dict[str, Any]]
NewRegistry = Callable[..., Registry]

needs_statuses = pytest.mark.skipif(not kernel_tells_statuses(), reason="needs Linux 6.15")


def names(told: Events) -> list[tuple[str, str]]:
    return [(event["id"], event["event"]) for event in told]


def check_same(registry: Registry, pretend: Pretender) -> None:
    """The engine says the same of everything."""
    runtime = Runtime(str(pretend.root))
    expected = listing.list_containers(runtime)
    assert registry.describe_all() == expected
    for described in expected:
        one = registry.describe(described["id"])
        assert one == stating.state(runtime, described["id"])
        assert list(one) == list(described)


def test_it_says_of_every_container_what_the_engine_says(pretend: Pretender, new_registry: NewRegistry) -> None:
    pretend.create("waits", annotations={"a": "b"})
    pretend.run("runs")
    pretend.kill(pretend.run("zombie"))
    pid = pretend.run("gone")
    pretend.kill(pid)
    pretend.reap(pid)
    holder = pretend.begin("half")
    pretend.begin("abandoned").unlock()
    registry = new_registry()

    check_same(registry, pretend)
    assert {one["id"]: one["status"] for one in registry.describe_all()} == {
        "waits": "created",
        "runs": "running",
        "zombie": "stopped",
        "gone": "stopped",
        "half": "creating",
        "abandoned": "stopped",
    }
    holder.unlock()


def test_an_answer_is_right_at_every_moment(pretend: Pretender, registry: Registry) -> None:
    with pytest.raises(ContainerNotFound):
        registry.describe("c")
    directory = pretend.begin("c")
    check_same(registry, pretend)
    directory.remove()
    pid = pretend.create("c")
    check_same(registry, pretend)
    assert registry.status("c") == "created"
    pretend.start("c")
    check_same(registry, pretend)
    assert (registry.status("c"), registry.pid("c")) == ("running", pid)
    pretend.kill(pid)
    check_same(registry, pretend)
    assert (registry.status("c"), registry.pid("c")) == ("stopped", 0)
    pretend.delete("c")
    with pytest.raises(ContainerNotFound):
        registry.describe("c")
    assert registry.describe_all() == []


def test_another_container_of_the_same_id_is_another_one(pretend: Pretender, registry: Registry, told: Events) -> None:
    first = pretend.run("c")
    assert registry.pid("c") == first
    pretend.delete("c")
    second = pretend.create("c")

    assert (registry.pid("c"), registry.status("c")) == (second, "created")
    assert names(told) == [
        ("c", "created"),
        ("c", "started"),
        ("c", "exited"),
        ("c", "deleted"),
        ("c", "created"),
    ]


def test_what_was_so_before_is_not_told(pretend: Pretender, new_registry: NewRegistry, told: Events) -> None:
    pretend.run("runs")
    pretend.kill(pretend.run("zombie"))
    new_registry().refresh()
    assert told == []


def test_the_life_of_a_container_is_told(pretend: Pretender, registry: Registry, loop: Loop, told: Events) -> None:
    registry.tell_at_once(True)
    pid = pretend.create("c")
    serve_until(loop, lambda: len(told) == 1)
    pretend.start("c")
    serve_until(loop, lambda: len(told) == 2)
    pretend.kill(pid)
    pretend.reap(pid)
    serve_until(loop, lambda: len(told) == 3)
    pretend.delete("c")
    serve_until(loop, lambda: len(told) == 4)

    assert names(told) == [("c", "created"), ("c", "started"), ("c", "exited"), ("c", "deleted")]
    assert told[0]["pid"] == told[1]["pid"] == told[2]["pid"] == pid
    if kernel_tells_statuses():
        assert told[2]["status"] == 137
    assert all(abs(event["time"] - time.time()) < 60 for event in told)


def test_a_life_that_was_over_before_anybody_looked_is_told_in_order(
    pretend: Pretender, registry: Registry, loop: Loop, told: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPER_TIME", 0.02)
    pid = pretend.run("c")
    pretend.kill(pid)
    pretend.reap(pid)
    registry.refresh()
    serve_until(loop, lambda: len(told) == 3)
    assert names(told) == [("c", "created"), ("c", "started"), ("c", "exited")]
    assert "status" not in told[2]


def test_a_keeper_may_write_later_than_anybody_looks(
    pretend: Pretender, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPER_TIME", 60)
    pid = pretend.run("c")
    pretend.kill(pid)
    pretend.reap(pid)
    ends: list[int | None] = []
    registry.wait("c", ends.append)
    assert (registry.status("c"), ends) == ("stopped", [])
    pretend.directory("c").write("exit-status", b"1792\n")
    registry.refresh()
    assert ends == [7]


@needs_statuses
def test_one_that_ended_before_anybody_looked_but_is_not_reaped_is_heard_to_the_end(
    pretend: Pretender, registry: Registry, told: Events
) -> None:
    pid = pretend.run("c")
    pretend.kill(pid)
    assert registry.status("c") == "stopped"
    pretend.reap(pid)
    assert registry.exit_status("c") == 137
    assert told[-1]["status"] == 137


@needs_statuses
def test_the_end_of_a_container_of_others_is_known_and_written_down(
    pretend: Pretender, registry: Registry, loop: Loop
) -> None:
    pid = pretend.run("c")
    registry.refresh()
    pretend.kill(pid)
    assert registry.describe("c")["status"] == "stopped"
    assert registry.exit_status("c") is None
    pretend.reap(pid)

    assert registry.exit_status("c") == 137
    assert registry.describe("c", as_answer=True)["exit_status"] == 137
    file = pretend.root / "c/exit-status"
    assert not file.exists()
    serve_until(loop, file.exists)
    assert file.read_text() == "9\n"
    assert sorted(os.listdir(file.parent)) == ["exit-status", "lock", "state.json"]


@needs_statuses
def test_an_exit_status_is_not_written_into_the_directory_of_another_container(
    pretend: Pretender, registry: Registry
) -> None:
    pid = pretend.run("c")
    registry.refresh()
    pretend.kill(pid)
    pretend.reap(pid)
    registry.refresh()
    pretend.delete("c")
    pretend.run("c")
    registry.record()

    assert not (pretend.root / "c/exit-status").exists()


def test_the_status_that_a_keeper_wrote_is_read(pretend: Pretender, new_registry: NewRegistry) -> None:
    pid = pretend.run("c")
    pretend.kill(pid)
    pretend.reap(pid)
    pretend.directory("c").write("exit-status", b"256\n")

    assert new_registry().exit_status("c") == 1


def test_a_kernel_that_tells_no_statuses_leaves_it_to_the_keeper(
    pretend: Pretender, new_registry: NewRegistry, loop: Loop, told: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "kernel_tells_statuses", lambda: False)
    monkeypatch.setattr(module, "KEEPER_TIME", 60)
    registry = new_registry()
    pid = pretend.run("c")
    registry.refresh()
    pretend.kill(pid)
    pretend.reap(pid)
    registry.refresh()
    assert ("c", "exited") not in names(told)
    pretend.directory("c").write("exit-status", b"512\n")
    serve_until(loop, lambda: ("c", "exited") in names(told))

    assert told[-1]["status"] == 2


def test_without_keeper_and_kernel_the_end_is_told_without_a_status(
    pretend: Pretender, new_registry: NewRegistry, loop: Loop, told: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "kernel_tells_statuses", lambda: False)
    monkeypatch.setattr(module, "KEEPER_TIME", 0.02)
    registry = new_registry()
    pid = pretend.run("c")
    registry.refresh()
    pretend.kill(pid)
    serve_until(loop, lambda: ("c", "exited") in names(told))

    assert "status" not in told[-1]


@needs_statuses
def test_the_start_of_a_container_that_ends_at_once_is_told_first(
    pretend: Pretender, registry: Registry, loop: Loop, told: Events
) -> None:
    """Whoever starts it removes the fifo when it runs, so perhaps after its end."""
    pid = pretend.create("c")
    registry.refresh()
    starter = pretend.directory("c")
    starter.lock()
    pretend.kill(pid)
    pretend.reap(pid)
    registry.refresh()
    assert names(told) == [("c", "created")]
    assert registry.exit_status("c") == 137
    starter.remove_fifo()
    starter.unlock()
    serve_until(loop, lambda: ("c", "exited") in names(told))

    assert names(told) == [("c", "created"), ("c", "started"), ("c", "exited")]


@needs_statuses
def test_a_starter_that_hangs_holds_up_nobody_who_waits(
    pretend: Pretender, registry: Registry, loop: Loop, told: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.Observer._tell_end, "__defaults__", (0.1,))
    pid = pretend.create("c")
    statuses: list[int | None] = []
    registry.wait("c", statuses.append)
    hanging = pretend.directory("c")
    hanging.lock()
    pretend.kill(pid)
    pretend.reap(pid)
    serve_until(loop, lambda: statuses == [137])
    hanging.unlock()

    assert names(told) == [("c", "created"), ("c", "exited")]


@needs_statuses
def test_a_container_that_is_killed_before_its_start_was_never_started(
    pretend: Pretender, registry: Registry, loop: Loop, told: Events
) -> None:
    """Also where somebody has the lock, and lets it go without a start."""
    pid = pretend.create("c")
    registry.refresh()
    other = pretend.directory("c")
    other.lock()
    pretend.kill(pid)
    pretend.reap(pid)
    registry.refresh()
    other.unlock()
    serve_until(loop, lambda: ("c", "exited") in names(told))

    assert names(told) == [("c", "created"), ("c", "exited")]


@pytest.mark.parametrize("noticed", [False, True])
def test_who_reaps_a_container_tells_its_status_where_the_kernel_does_not(
    pretend: Pretender, new_registry: NewRegistry, told: Events, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """As a process number 1, which adopts the containers of its clients."""
    monkeypatch.setattr(module, "kernel_tells_statuses", lambda: False)
    monkeypatch.setattr(module, "KEEPER_TIME", 60)
    registry = new_registry()
    pid = pretend.run("c")
    registry.refresh()
    pretend.kill(pid)
    if noticed:
        registry.refresh()
    pretend.reap(pid)
    registry.reaped(pid, 9)

    assert (told[-1]["event"], told[-1]["status"]) == ("exited", 137)
    assert registry.exit_status("c") == 137
    registry.record()
    assert (pretend.root / "c/exit-status").read_text() == "9\n"
    registry.reaped(pid, 0)
    registry.reaped(1 << 30, 0)
    assert registry.exit_status("c") == 137


@pytest.mark.parametrize("text", ["", "abc", "9" * 40])
def test_a_torn_status_file_is_no_status(pretend: Pretender, new_registry: NewRegistry, text: str) -> None:
    pid = pretend.run("c")
    pretend.kill(pid)
    pretend.reap(pid)
    (pretend.root / "c/exit-status").write_text(text)
    assert new_registry().exit_status("c") is None


@needs_statuses
def test_waiting_ends_with_the_exit_status(pretend: Pretender, registry: Registry, loop: Loop) -> None:
    pid = pretend.run("c")
    ends: list[int | None] = []
    registry.wait("c", ends.append)
    registry.wait("c", ends.append)()
    registry.refresh()
    assert ends == []
    pretend.kill(pid)
    pretend.reap(pid)
    serve_until(loop, lambda: bool(ends))
    registry.wait("c", ends.append)

    assert ends == [137, 137]


def test_waiting_ends_when_the_container_is_deleted(pretend: Pretender, registry: Registry) -> None:
    pretend.run("c")
    ends: list[int | None] = []
    registry.wait("c", ends.append)
    pretend.delete("c")
    registry.refresh()
    assert ends == [None]


def test_half_made_containers_without_a_creator_are_found(pretend: Pretender, registry: Registry) -> None:
    held = pretend.begin("held")
    pretend.begin("abandoned").unlock()
    pretend.begin("torn").unlock()
    (pretend.root / "torn/state.json").unlink()
    pretend.begin("of-a-later-release", version=99).unlock()
    (pretend.root / "of-a-later-release/state.json").write_text('{"version": 99}')
    pretend.create("waits")

    assert registry.half_made() == []
    assert registry.half_made(older_than=0) == ["abandoned", "torn"]
    held.unlock()
    assert registry.half_made(older_than=0) == ["abandoned", "held", "torn"]


def test_what_no_container_can_be_called_is_left_alone(pretend: Pretender, registry: Registry) -> None:
    (pretend.root / "no id").mkdir()
    (pretend.root / "file").touch()
    (pretend.root / "link").symlink_to("/")

    assert registry.ids() == []
    with pytest.raises(UsageError):
        registry.describe("no id")


def test_an_unreadable_state_is_the_error_of_that_container_alone(pretend: Pretender, registry: Registry) -> None:
    pretend.run("good")
    pretend.run("bad")
    (pretend.root / "bad/state.json").write_text("{")
    warnings: list[str] = []

    assert [one["id"] for one in registry.describe_all(warnings.append)] == ["good"]
    assert len(warnings) == 1
    assert "load container bad" in warnings[0]
    with pytest.raises(StateError):
        registry.describe("bad")


def test_more_containers_than_fds_are_known_all_the_same(
    pretend: Pretender, new_registry: NewRegistry, loop: Loop, told: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEPER_TIME", 0.02)
    registry = new_registry(fds=1)
    pids = [pretend.run(f"c{number}") for number in range(3)]
    registry.refresh()
    assert registry.count() == (3, 3)
    check_same(registry, pretend)
    for pid in pids:
        pretend.kill(pid)
        pretend.reap(pid)
    assert registry.count() == (3, 0)
    check_same(registry, pretend)
    exited = [(f"c{number}", "exited") for number in range(3)]
    serve_until(loop, lambda: sorted(name for name in names(told) if name[1] == "exited") == exited)


def test_without_inotify_it_looks_each_time(
    pretend: Pretender, new_registry: NewRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(flags: int = 0) -> int:
        raise OSError(24, "too many")

    monkeypatch.setattr(_kernel, "inotify_init", refuse)
    registry = new_registry()
    pid = pretend.run("c")
    check_same(registry, pretend)
    pretend.kill(pid)
    check_same(registry, pretend)
    pretend.delete("c")
    check_same(registry, pretend)


def test_without_watches_left_it_looks_at_what_is_not_watched(
    pretend: Pretender, new_registry: NewRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = _kernel.inotify_add_watch
    monkeypatch.setattr(
        _kernel,
        "inotify_add_watch",
        lambda fd, path, mask: original(fd, path, mask) if path == str(pretend.root) else _raise(28),
    )
    registry = new_registry()
    pretend.create("c")
    check_same(registry, pretend)
    pretend.start("c")
    check_same(registry, pretend)
    pretend.delete("c")
    check_same(registry, pretend)


def _raise(number: int) -> int:
    raise OSError(number, "")


def test_events_that_the_kernel_lost_are_made_up_for(
    pretend: Pretender, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend.run("old")
    registry.refresh()
    pretend.delete("old")
    pretend.run("new")
    _kernel.read_inotify(registry.observer._changes.fileno())
    answers = iter([[(-1, k.IN_Q_OVERFLOW, "")]])
    monkeypatch.setattr(_kernel, "read_inotify", lambda fd: next(answers, None) or _raise(errno.EAGAIN))

    assert registry.ids() == ["new"]


def test_a_state_root_that_is_made_again_is_seen(pretend: Pretender, registry: Registry) -> None:
    pretend.run("old")
    pretend.root.rename(pretend.root.with_name("moved"))
    assert registry.ids() == []
    pretend.root.mkdir()
    pretend.run("new")
    assert registry.ids() == ["new"]
    pretend.delete("new")
    assert registry.ids() == []


def test_a_look_at_everything_that_can_not_be_done_is_done_later(
    pretend: Pretender,
    registry: Registry,
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pretend.run("old")
    assert registry.ids() == ["old"]

    def no_fd(root: str) -> list[str]:
        raise StateError("cannot list containers", path=root, errno=errno.EMFILE)

    monkeypatch.setattr(module, "SCAN_PAUSE", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr(module, "ids", no_fd)
        pretend.root.rename(pretend.root.with_name("moved"))
        for _ in range(10):
            assert registry.ids() == ["old"]
        told = capfd.readouterr().err
        assert told.count("\n") == 1
        assert "too many open files" in told
        # Once more in vain.
        serve_until(loop, lambda: "too many open files" in capfd.readouterr().err)
        pretend.root.mkdir()
        pretend.run("new")
    serve_until(loop, lambda: list(registry.observer.entries) == ["new"])
    loop.run_once(0)
    pretend.delete("new")
    assert registry.ids() == []
    assert loop._patience(None) is None


def test_nothing_happens_while_nothing_happens(pretend: Pretender, registry: Registry, loop: Loop) -> None:
    for number in range(5):
        pretend.run(f"c{number}")
    registry.refresh()
    loop.run_once(0)
    # nothing is due: neither an event nor a timer
    assert loop._epoll.poll(0) == []
    assert loop._patience(None) is None


def test_it_lets_go_of_all_fds(pretend: Pretender, loop: Loop, directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        pretend.kill(pretend.run(f"c{number}"))
        pretend.run(f"d{number}")
    registry = Registry(str(pretend.root), loop)
    registry.describe_all()
    registry.close()

    assert len(os.listdir("/proc/self/fd")) == before


def test_the_budget_of_answers_is_kept(pretend: Pretender, new_registry: NewRegistry) -> None:
    pid = pretend.create("first")
    for number in range(999):
        pretend.create(f"c{number}", pid=pid)
    registry = new_registry()
    registry.describe_all()
    took = min(cpu_of(registry.describe_all) for _ in range(5))
    one = min(cpu_of(lambda: registry.describe("c500")) for _ in range(5))

    # the budget is a third of it; slow machines and loaded ones are let off
    assert took < 0.030 * SLOWNESS, took
    assert one < 0.0006 * SLOWNESS, one


def cpu_of(call: Callable[[], Any]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before
