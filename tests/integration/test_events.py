"""`events` of real containers: statistics, OOM kills, memory pressure, and when it ends."""

from __future__ import annotations

import fcntl
import json
import operator
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common.errors import CgroupError, ContainerNotFound, WrongState
from ctr_supervisor.cgroups import stats as cgroup_stats
from ctr_supervisor.engine import container as containers
from ctr_supervisor.engine import events, notify, stats
from ctr_supervisor.engine.runtime import Runtime as Engine
from tests.support.bundles import Bundles
from tests.support.cgroups import in_v2_view
from tests.support.runtime import Runtime
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_limits]
covers = pytest.mark.covers

MIB = 1 << 20
FAR_OFF = "1000h"
PATIENCE = 60  # seconds; an emulated processor is slow

Start = Callable[..., str]


@pytest.fixture
def start(ctrun: Runtime, bundle: Bundles, container_id: str) -> Start:
    """Runs the container with limits and returns its id."""

    def run(script: str = "exec sleep 1000", *, runtime: Runtime | None = None, **resources: Any) -> str:
        def mutate(config: dict[str, Any]) -> None:
            config["linux"]["cgroupsPath"] = f"/{container_id}"
            config["linux"]["resources"].update(resources)

        (runtime or ctrun)("run", "-d", "-b", bundle(mutate, args=["sh", "-c", script]), container_id).ok()
        return container_id

    return run


class Following:
    """A running `events`, and what it prints."""

    def __init__(self, ctrun: Runtime, *args: str) -> None:
        self.child = subprocess.Popen(
            [ctrun.path, "events", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.rest = b""

    def line(self) -> dict[str, Any]:
        """The next event."""
        assert self.child.stdout
        while b"\n" not in self.rest:
            assert select.select([self.child.stdout], [], [], PATIENCE)[0], "no event"
            data = self.child.stdout.read(65536)
            assert data, f"no more events: {self.child.stderr and self.child.stderr.read()!r}"
            self.rest += data
        first, _, self.rest = self.rest.partition(b"\n")
        event: dict[str, Any] = json.loads(first)
        return event

    def listens(self) -> bool:
        """Whether it waits in poll(2), so that it has registered for all that it waits for."""
        wchan = Path(f"/proc/{self.child.pid}/wchan").read_text()
        return "poll" in wchan

    def close(self) -> None:
        self.child.kill()
        self.child.communicate(timeout=PATIENCE)


@pytest.fixture
def follow(ctrun: Runtime) -> Iterator[Callable[..., Following]]:
    """Starts `events` in the background and waits until it listens, if its first statistics are far off."""
    running: list[Following] = []

    def run(*args: str) -> Following:
        made = Following(ctrun, *args)
        running.append(made)
        if FAR_OFF in args:
            until("it listens", made.listens, limit=PATIENCE)
        return made

    yield run
    for made in running:
        made.close()


@covers("events --stats", "verb events")
def test_statistics_are_printed_once(start: Start, ctrun: Runtime):
    limit, pids = 64 * MIB, 40
    container = start(memory={"limit": limit}, pids={"limit": pids})
    (line,) = ctrun("events", "--stats", container).lines
    event = json.loads(line)
    assert line.startswith(f'{{"type":"stats","id":"{container}","data":{{"cpu":{{"usage":{{"total":')
    assert list(event["data"]) == [
        *("cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"),
        *(["rdma"] if "rdma" in event["data"] else []),
        *("intel_rdt", "network_interfaces"),
    ]
    assert event["data"]["memory"]["usage"]["limit"] == limit
    assert event["data"]["memory"]["usage"]["usage"] > 0
    assert event["data"]["pids"] == {"current": 1, "limit": pids}
    assert event["data"]["cpu"]["usage"]["total"] > 0
    assert (event["data"]["intel_rdt"], event["data"]["network_interfaces"]) == ({}, None)


@pytest.mark.needs_runc
def test_statistics_are_those_of_runc(start: Start, runc: Runtime):
    container = start(
        "cat /bin/busybox >/dev/null; exec sleep 1000",
        runtime=runc,
        memory={"limit": 64 * MIB},
        cpu={"quota": 50000},
        pids={"limit": 40},
    )
    paths = json.loads((runc.state_root / container / "state.json").read_text())["cgroup_paths"]

    def both() -> tuple[dict[str, Any], dict[str, Any]]:
        theirs = json.loads(runc("events", "--stats", container).text)["data"]
        ours = cgroup_stats.read(paths)
        del theirs["intel_rdt"], theirs["network_interfaces"]
        if list(paths) == [""]:
            # runc has no cpus and memory nodes there, and older ones neither peaks nor pressure.
            ours = _less(ours, theirs)
        elif "hugetlb" not in paths:
            # Of a hybrid host's v2 hierarchy runc takes no notice.
            ours["hugetlb"] = theirs["hugetlb"]
        return ours, theirs

    # The numbers move until the container sleeps, and a little after.
    until("both see the same", lambda: operator.eq(*both()), limit=PATIENCE)
    runc("delete", "--force", container).ok()


def _less(ours: Any, theirs: Any) -> Any:
    """Ours without what theirs lacks."""
    if isinstance(ours, dict):
        return {key: _less(value, theirs[key]) for key, value in ours.items() if key in theirs}
    return ours


@covers("events --interval")
def test_statistics_come_at_the_interval_until_the_container_ends(
    start: Start, ctrun: Runtime, follow: Callable[..., Following]
):
    container = start()
    following = follow("--interval", "50ms", container)
    for _ in range(3):
        assert following.line()["type"] == "stats"
    ctrun("kill", container, "KILL").ok()
    assert following.child.wait(PATIENCE) == 0


def unread(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)


def test_a_reader_that_does_not_read_does_not_hide_the_end(
    start: Start, ctrun: Runtime, follow: Callable[..., Following]
):
    container = start()
    following = follow("--interval", "1ms", container)
    assert following.child.stdout
    pipe = following.child.stdout.fileno()
    until("the pipe fills", lambda: unread(pipe) > 20000, limit=PATIENCE)
    ctrun("delete", "--force", container).ok()
    assert following.child.wait(PATIENCE) == 0


@pytest.mark.needs_direct
def test_it_ends_with_a_container_that_does_nothing_in_between(
    start: Start, ctrun: Runtime, follow: Callable[..., Following]
):
    container = start()
    following = follow("--interval", FAR_OFF, container)
    ctrun("delete", "--force", container).ok()
    out, err = following.child.communicate(timeout=PATIENCE)
    assert (following.child.returncode, out, err) == (0, b"", b"")


@pytest.mark.needs_direct
def test_a_kill_for_lack_of_memory_is_an_event(start: Start, ctrun: Runtime, follow: Callable[..., Following]):
    container = start(memory={"limit": 16 * MIB, "swap": 16 * MIB})
    following = follow("--interval", FAR_OFF, container)
    assert ctrun("exec", container, "tail", "/dev/zero").code == 137
    assert following.line() == {"type": "oom", "id": container}


@pytest.mark.needs_direct
def test_a_container_that_dies_of_it_has_its_event_before_the_end(
    start: Start, ctrun: Runtime, directory: Path, follow: Callable[..., Following]
):
    container = start(
        "while [ ! -e /dev/shm/go ]; do sleep 0.02; done; exec tail /dev/zero",
        memory={"limit": 16 * MIB, "swap": 16 * MIB},
    )
    following = follow("--interval", FAR_OFF, container)
    ctrun("exec", container, "touch", "/dev/shm/go").ok()
    assert following.line() == {"type": "oom", "id": container}
    assert following.child.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.needs_direct
def test_a_signal_ends_it(start: Start, follow: Callable[..., Following], number: signal.Signals):
    following = follow("--interval", FAR_OFF, start())
    following.child.send_signal(number)
    assert following.child.wait(PATIENCE) in (-number, 128 + number)


@pytest.mark.needs_direct
def test_it_ends_when_nobody_reads_any_more(start: Start, follow: Callable[..., Following]):
    following = follow("--interval", FAR_OFF, start())
    assert following.child.stdout
    following.child.stdout.close()
    following.child.stdout = None
    assert following.child.wait(PATIENCE) == 0


def test_a_paused_container_has_statistics(start: Start, ctrun: Runtime):
    container = start()
    ctrun("pause", container).ok()
    assert json.loads(ctrun("events", "--stats", container).text)["data"]["pids"]["current"] == 1


@pytest.mark.needs_runc
@pytest.mark.parametrize(
    "args",
    [["--interval", "0"], ["--interval", "-1s", "--stats"], ["--interval", "5"], ["--stats", "x"], ["-x"]],
    ids=" ".join,
)
def test_wrong_arguments_end_as_with_runc(start: Start, ctrun: Runtime, runc: Runtime, args: list[str]):
    ours = ctrun("events", *args, start())
    ctrun.remove(ours.argv[-1])
    theirs = runc("events", *args, start(runtime=runc))
    assert (ours.code, _message(ours.err)) == (theirs.code, _message(theirs.err))


def _message(text: str) -> str:
    # runc tells under which path it was called
    return re.sub(r'time="[^"]*" ', "", text).replace("ctrun", "runc").replace(str(shutil.which("runc")), "runc")


@pytest.mark.parametrize("flags", [[], ["--stats"]], ids=str)
def test_a_stopped_container_has_none(start: Start, ctrun: Runtime, flags: list[str]):
    container = start("true")
    until("it stopped", lambda: ctrun.status(container) == "stopped")
    result = ctrun("events", *flags, container)
    assert result.code == 1
    assert f"container with id {container} is not running" in result.err


# -- the functions behind it


def engine_of(ctrun: Runtime) -> Engine:
    return Engine(str(ctrun.state_root))


def readable(notification: notify.Notification, seconds: float = PATIENCE) -> bool:
    poll = select.poll()
    poll.register(notification.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_statistics_and_events_of_no_container(ctrun: Runtime, container_id: str):
    with pytest.raises(ContainerNotFound):
        stats.stats(engine_of(ctrun), container_id)
    with pytest.raises(ContainerNotFound):
        next(events.events(engine_of(ctrun), container_id, 1))


def test_statistics_of_a_stopped_container(start: Start, ctrun: Runtime):
    container = start("true")
    until("it stopped", lambda: ctrun.status(container) == "stopped")
    with pytest.raises(WrongState, match="is not running"):
        stats.stats(engine_of(ctrun), container)


def test_a_notification_is_quiet_until_it_happens_and_once_it_was_taken(start: Start, ctrun: Runtime):
    container = start(memory={"limit": 16 * MIB, "swap": 16 * MIB})
    with notify.notify_oom(containers.load(engine_of(ctrun), container)) as oom:
        assert not readable(oom, 0)
        assert oom.take() == 0
        ctrun("exec", container, "tail", "/dev/zero")
        assert readable(oom)
        assert oom.take() >= 1
        assert not readable(oom, 0)
        assert oom.take() == 0
        assert not oom.gone


def test_a_notification_tells_when_the_cgroup_is_gone(start: Start, ctrun: Runtime):
    container = start()
    with notify.notify_oom(containers.load(engine_of(ctrun), container)) as oom:
        ctrun("delete", "--force", container).ok()
        assert readable(oom)
        assert oom.take() == 0
        assert oom.gone


def test_a_closed_notification_leaves_no_fd(start: Start, ctrun: Runtime):
    container = containers.load(engine_of(ctrun), start())
    before = os.listdir("/proc/self/fd")
    for make in (notify.notify_oom, lambda found: notify.notify_memory_pressure(found, notify.LOW)):
        make(container).close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("level", notify.LEVELS)
def test_memory_pressure_is_told_by_level(start: Start, ctrun: Runtime, directory: Path, level: str):
    container = start(memory={"limit": 16 * MIB, "swap": 16 * MIB})
    with notify.notify_memory_pressure(containers.load(engine_of(ctrun), container), level) as pressure:
        assert not readable(pressure, 0)
        # Anonymous memory up to the limit: the kernel finds less and less to reclaim, and nothing in the end.
        ctrun("exec", container, "tail", "/dev/zero")
        if list(containers.load(engine_of(ctrun), container).cgroups.paths) == [""]:
            # How long the container stalled before it was killed is up to the machine.
            assert pressure.take() in (0, 1)
            return
        assert readable(pressure)
        assert pressure.take() >= 1


def test_an_unknown_level_is_refused(start: Start, ctrun: Runtime):
    with pytest.raises(CgroupError, match='invalid pressure level "odd", expected one of low, medium, critical'):
        notify.notify_memory_pressure(containers.load(engine_of(ctrun), start()), "odd")


def test_a_container_without_a_memory_cgroup_is_an_error():
    with pytest.raises(CgroupError, match="the container has no memory cgroup"):
        notify.oom({"pids": "/sys/fs/cgroup/pids/x"})


def test_a_pressure_file_of_cgroup_v2_is_quiet_until_the_cgroup_goes():
    def look(box: Any) -> None:
        path = box.created().paths[""]
        for level in notify.LEVELS:
            with notify.memory_pressure({"": path}, level) as pressure:
                assert not readable(pressure, 0)
        with notify.memory_pressure({"": path}, notify.LOW) as pressure:
            os.rmdir(path)
            assert readable(pressure)
            assert pressure.take() == 0
            assert pressure.gone

    in_v2_view(look)


def test_stalls_of_cgroup_v2_are_told_again_and_again():
    # Of the CPU, which are easier to have than those of memory, and are told in the same way.
    def look(box: Any) -> None:
        cgroup = box.created()
        with notify._Stalls(cgroup.paths[""], notify.LOW, "cpu.pressure") as pressure:
            for _ in range(3 * (os.cpu_count() or 1)):
                cgroup.apply(box.process("sh", "-c", "while :; do :; done").pid)
            for _ in range(2):
                assert readable(pressure)
                assert pressure.take() == 1

    in_v2_view(look)


@pytest.mark.needs_cgroup_v2
def test_a_container_that_is_held_up_for_memory_is_under_pressure(start: Start, ctrun: Runtime):
    container = start("exec tail /dev/zero", memory={"limit": 256 * MIB}, unified={"memory.high": str(8 * MIB)})
    with notify.notify_memory_pressure(containers.load(engine_of(ctrun), container), notify.LOW) as pressure:
        assert readable(pressure)
        assert pressure.take() == 1
