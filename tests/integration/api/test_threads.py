"""The API in programs with threads, handlers and fds of their own: safe, and without a trace."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ctr_supervisor as api
from ctr_common.kernel import _kernel
from ctr_common.kernel.constants import PR_GET_DUMPABLE
from ctr_supervisor.api.events import DirectEvents
from ctr_supervisor.service.pidfds import kernel_tells_statuses
from tests.integration.api.conftest import Make, init, open_fds, script, zombies
from tests.support import leaks
from tests.support.bundles import Config
from tests.support.runtime import Runtime
from tests.support.waiting import until

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_busybox,
    pytest.mark.needs_ctr_init,
    pytest.mark.usefixtures("nothing_left"),
]

# The kernel tells how a process ended that somebody else has reaped.
needs_statuses = pytest.mark.skipif(not kernel_tells_statuses(), reason="needs Linux 6.15")

PR_GET_CHILD_SUBREAPER = 37
THREADS = 6


@pytest.fixture
def busy() -> Iterator[None]:
    """Another thread that does things all the time, so that a fork would find locks held."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            [str(number) for number in range(100)]
            stop.wait(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_many_threads_make_containers_of_their_own(make: Make):
    containers = [make() for _ in range(2 * THREADS)]

    def life(number: int) -> int:
        container = containers[number]
        with container.run(init(f"exit {number}")) as process:
            status = process.wait(60)
        container.destroy()
        return status

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(life, range(2 * THREADS))) == list(range(2 * THREADS))


def test_many_threads_execute_in_one_container(make: Make):
    container = make()

    def execute(number: int) -> tuple[bytes | None, int]:
        with container.run(script(f"echo {number}; exit {number}", stdout=api.PIPE)) as process:
            return process.communicate(timeout=60)[0], process.wait()

    with container.run(init()), ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(execute, range(3 * THREADS))) == [
            (f"{number}\n".encode(), number) for number in range(3 * THREADS)
        ]


def test_of_many_starts_of_one_container_one_succeeds(make: Make):
    container = make()

    def start(_: int) -> api.Process | None:
        try:
            return container.start(init())
        except api.WrongState:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        started = [process for process in pool.map(start, range(THREADS)) if process is not None]
    assert len(started) == 1
    assert container.status == "created"
    container.destroy()
    started[0].close()


def test_a_start_and_a_destruction_at_once_leave_a_container_or_none(make: Make):
    for _ in range(5):
        container = make()
        with ThreadPoolExecutor(2) as pool:
            starting = pool.submit(container.start, init())
            destroying = pool.submit(container.destroy, force=True)
            destroying.result(60)
            error = starting.exception(60)
        if error is None:
            starting.result().close()
        else:
            assert isinstance(error, api.ContainerNotFound | api.StateError), error
        container.destroy(force=True)


def test_an_exec_and_the_end_at_once_give_a_process_or_an_error(make: Make):
    for _ in range(5):
        container = make()
        with container.run(init()) as first, ThreadPoolExecutor(2) as pool:
            executing = pool.submit(container.start, script("exit 3"))
            pool.submit(first.signal, "KILL").result(60)
            error = executing.exception(60)
            if error is None:
                with executing.result() as other:
                    assert other.wait(60) in (3, 128 + signal.SIGKILL)
            else:
                assert isinstance(error, api.CtrError), error
            assert first.wait(60) == 128 + signal.SIGKILL
        container.destroy()


def test_a_wait_is_told_to_every_thread(make: Make):
    container = make()
    with container.run(init("read x; exit 6", stdin=api.PIPE)) as process, ThreadPoolExecutor(THREADS) as pool:
        waits = [pool.submit(process.wait, 60) for _ in range(3)] + [pool.submit(container.wait, 60) for _ in range(3)]
        process.communicate(b"go\n")
        assert [wait.result() for wait in waits] == [6] * 6


@pytest.mark.usefixtures("busy")
def test_nothing_of_the_program_changes(make: Make, config: Config, directory: Path):
    hook = directory / "hook"
    hook.write_text(f"#!/bin/sh\ncat >/dev/null\nls -l /proc/self/fd >{directory}/fds\n")
    hook.chmod(0o755)
    config["hooks"] = {"createRuntime": [{"path": str(hook)}], "poststop": [{"path": str(hook)}]}
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    before = picture(writing)
    try:
        container = make(config)
        text = "ls /proc/self/fd | wc -l"
        with container.run(init(f"{text}; exec sleep 1000", stdout=api.PIPE)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"4\n"
            assert str(os.fstat(writing).st_ino) not in (directory / "fds").read_text()
            with container.run(script(text, stdout=api.PIPE)) as other:
                assert other.communicate()[0] == b"4\n"
            assert picture(writing) == before
            container.destroy(force=True)
        assert picture(writing) == before
    finally:
        os.close(reading)
        os.close(writing)


def is_subreaper() -> bool:
    """Whether orphans below become children of this process."""
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(number), 0, 0, 0)
    return bool(number.value)


def picture(inheritable: int) -> dict[str, object]:
    """What of this process the API must leave alone."""
    mask = os.umask(0o022)
    os.umask(mask)
    namespaces = ("pid_for_children", "mnt", "net", "user")
    return {
        "directory": os.getcwd(),
        "umask": mask,
        "environment": dict(os.environ),
        "signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "handlers": [signal.getsignal(number) for number in range(1, 32)],
        "dumpable": _kernel.prctl(PR_GET_DUMPABLE),
        "subreaper": is_subreaper(),
        "inheritable": os.get_inheritable(inheritable),
        "namespaces": [os.readlink(f"/proc/self/ns/{name}") for name in namespaces],
    }


def test_many_lives_leave_no_fd_and_no_dead_child(make: Make):
    def life() -> None:
        container = make()
        ids.append(container.id)
        with container.run(init("cat", stdin=api.PIPE, stdout=api.PIPE)) as process:
            with container.run(script("tty", terminal=True)) as other:
                other.wait(60)
            process.communicate(b"x")
        container.destroy()

    ids: list[str] = []
    life()
    fds = open_fds()
    for _ in range(10):
        life()
    assert open_fds() == fds
    assert zombies() == []
    assert [leaks.cgroups(each) for each in ids] == [set()] * len(ids)


def test_processes_that_nobody_holds_are_reaped(make: Make):
    container = make()
    with container.run(init()):
        for _ in range(3):
            container.run(script("exit 0"))
        gc.collect()
        until("all are reaped", lambda: container.run(script("exit 0")).wait(60) == 0 and not zombies())
        # Those that still run hold up the end of the container, unless somebody reaps them.
        container.run(script("exec sleep 1000"))
        container.destroy(force=True)


@needs_statuses
def test_a_program_that_reaps_every_child_learns_the_status_all_the_same(make: Make):
    container = make()
    with container.run(init("read x; exit 5", stdin=api.PIPE)) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert os.waitpid(process.pid, 0)[0] == process.pid
        assert process.wait(60) == 5


def test_the_status_is_left_for_whoever_comes_next(make: Make, state_root: str):
    container = make()
    other = api.load(state_root, container.id)
    with container.run(init("exit 8")) as process:
        assert other.wait(60) == 8
        assert process.wait(60) == 8
    assert api.load(state_root, container.id).exit_status == 8
    assert api.load(state_root, container.id).state["exit_status"] == 8
    assert api.load(state_root, container.id).wait(60) == 8


def test_an_id_is_taken_by_create(make: Make, state_root: str, config: Config, ctrun: Runtime):
    container = make()
    with pytest.raises(api.ContainerExists):
        api.create(state_root, container.id, config)  # type: ignore[arg-type]
    assert [found.id for found in api.list(state_root)] == [container.id]
    assert ctrun("--root", state_root, "list", "-q").text == container.id
    assert ctrun("--root", state_root, "state", container.id).text.find('"stopped"') > 0


def test_the_command_line_sees_the_container_and_may_end_it(make: Make, state_root: str, ctrun: Runtime):
    container = make()
    with container.run(init()) as process:
        assert ctrun("--root", state_root, "exec", container.id, "echo", "hello").text == "hello"
        ctrun("--root", state_root, "kill", container.id, "KILL").ok()
        assert process.wait(60) == 128 + signal.SIGKILL
        ctrun("--root", state_root, "delete", container.id).ok()
    with pytest.raises(api.ContainerNotFound):
        _ = container.state


def test_another_container_of_the_same_id_is_not_taken_for_it(make: Make, state_root: str, config: Config):
    container = make()
    assert container.status == "stopped"
    api.load(state_root, container.id).destroy()
    with (
        # Inodes of a tmpfs or of ext4 may be used again at once, and this one is in between.
        open(state_root + "/another-file", "w"),
        api.create(state_root, container.id, config),  # type: ignore[arg-type]
        pytest.raises(api.ContainerNotFound),
    ):
        _ = container.status


def test_a_stream_of_events_is_closed_by_another_thread(make: Make):
    container = make()
    with container.run(init()), ThreadPoolExecutor(1) as pool:
        events = container.events()
        waiting = pool.submit(lambda: list(events))
        events.close()
        assert waiting.result(60) == []


def test_a_start_is_told_of_however_soon_the_program_ends(make: Make):
    for _ in range(5):
        container = make()
        with container.start(init("exit 0")), ThreadPoolExecutor(1) as pool, container.events() as events:
            told = pool.submit(lambda stream: [event.type for event in stream], events)
            container.exec()
            assert told.result(60) == ["started", "exited"]


def test_a_start_that_is_seen_after_the_end_is_told_before_it(make: Make, monkeypatch: pytest.MonkeyPatch):
    container = make()
    with container.start(init("exit 0")) as process, container.events() as events:
        assert isinstance(events, DirectEvents)
        container.exec()
        process.wait()
        # The end alone, as one sees it who looked a moment before the fifo was removed.
        wait, pidfd = events._waiter.wait, events._pidfd.fileno()
        first = [wait({pidfd: select.POLLIN}, 60)]
        assert pidfd in first[0]
        monkeypatch.setattr(events._waiter, "wait", lambda *args: first.pop() if first else wait(*args))
        assert [event.type for event in events] == ["started", "exited"]


@pytest.mark.needs_limits
def test_a_notification_is_closed_by_another_thread(make_any: Make):
    container = make_any()
    with container.run(init()), ThreadPoolExecutor(1) as pool:
        oom = container.notify_oom()
        waiting = pool.submit(oom.wait)
        oom.close()
        assert waiting.result(60) == 0


@pytest.mark.usefixtures("busy")
@pytest.mark.needs_network_namespaces
def test_networks_are_made_beside_other_threads(make: Make):
    container = make(networks=[{"type": "loopback"}])
    with container.run(init("ip addr show dev lo", stdout=api.PIPE)) as process:
        output = process.communicate()[0]
    assert output is not None
    assert b"127.0.0.1" in output


def test_more_fds_can_be_handed_to_a_process(make: Make):
    container = make()
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        with open(writing, "wb") as out, container.run(init("echo hello >&3", extra_files=[out])) as process:
            assert process.wait(60) == 0
        assert pipe.read() == b"hello\n"


@pytest.mark.usefixtures("busy")
def test_a_terminal_is_made_beside_other_threads(make: Make):
    container = make()
    with container.run(init("tty; stty size", terminal=True, console_size=(70, 20))) as process:
        assert process.console is not None
        seen = b""
        while chunk := process.console.read():
            seen += chunk
        assert seen == b"/dev/pts/0\r\n20 70\r\n"
        assert process.wait(60) == 0


@pytest.mark.usefixtures("busy")
@pytest.mark.needs_user_namespaces
def test_a_user_namespace_is_set_up_beside_other_threads(make: Make, config: Config):
    config["linux"]["namespaces"].append({"type": "user"})
    ids = [{"containerID": 0, "hostID": 0, "size": 1000}]
    config["linux"].update(uidMappings=ids, gidMappings=ids)
    with make(config).run(init("cat /proc/self/uid_map", stdout=api.PIPE)) as process:
        output, _ = process.communicate(timeout=60)
    assert output is not None
    assert output.split() == [b"0", b"0", b"1000"]


@pytest.mark.usefixtures("busy")
def test_a_failed_start_beside_other_threads_leaves_nothing_and_can_be_tried_again(make: Make, config: Config):
    config["hooks"] = {"createContainer": [{"path": "/bin/false"}]}
    container = make(config)
    with pytest.raises(api.HookError, match="createContainer"):
        container.run(init("exit 0"))
    assert container.status == "stopped"
    with pytest.raises(api.HookError):
        container.run(init("exit 0"))


@pytest.mark.usefixtures("busy")
def test_a_mount_that_is_refused_is_told_as_everywhere(make: Make, config: Config):
    config["mounts"].append({"destination": "/x", "type": "no-such-type", "source": "none"})
    with pytest.raises(api.SetupError, match="no-such-type|/x") as error:
        make(config).run(init("exit 0"))
    assert error.value.errno


@pytest.fixture
def sigchld_ignored() -> Iterator[None]:
    """The kernel reaps every child at once."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@needs_statuses
@pytest.mark.usefixtures("sigchld_ignored")
@pytest.mark.parametrize("alone", [True, False])
def test_a_program_that_ignores_the_ends_of_children_learns_of_them(
    make: Make, config: Config, alone: bool, request: pytest.FixtureRequest
):
    if not alone:
        request.getfixturevalue("busy")
    config["hooks"] = {"createRuntime": [{"path": "/bin/true"}], "poststop": [{"path": "/bin/true"}]}
    container = make(config, networks=[{"type": "loopback"}])
    with container.run(init("exit 7")) as process:
        assert process.wait(60) == 7
    container.destroy()
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    with pytest.raises(api.HookError, match="exit status 1"):
        make(config).run(init("exit 7"))
