"""Each method of a container, in this process and against a supervisor."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ctr_supervisor as api
from tests.integration.api.conftest import ENVIRONMENT, Make, init, script
from tests.support.bundles import Config

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_busybox, pytest.mark.needs_ctr_init]


def read_line(console: api.Console) -> bytes:
    """What a terminal shows until a line is whole: its end may come by itself, and later."""
    seen = b""
    while not seen.endswith(b"\n") and (chunk := console.read()):
        seen += chunk
    return seen


def test_a_process_has_its_pipes_and_its_exit_status(make_any: Make):
    container = make_any()
    process = container.run(init("cat; echo err >&2; exit 7", stdin=api.PIPE, stdout=api.PIPE, stderr=api.PIPE))
    assert process.communicate(b"hello\n" * 30_000) == (b"hello\n" * 30_000, b"err\n")
    assert process.wait() == 7
    assert container.wait() == 7
    assert container.exit_status == 7
    assert container.status == "stopped"
    process.close()


def test_a_container_is_created_until_exec_lets_it_go(make_any: Make):
    container = make_any()
    assert container.status == "stopped"
    process = container.start(init())
    assert container.status == "created"
    assert container.pid == process.pid
    container.exec()
    assert container.status == "running"
    with pytest.raises(api.WrongState):
        container.exec()
    process.close()


def test_an_exec_is_one_more_process(make_any: Make):
    container = make_any()
    first = container.run(init())
    second = container.run(script("echo $$; exit 5", stdout=api.PIPE))
    assert second.communicate()[0] != b"1\n"
    assert second.wait() == 5
    assert container.status == "running"
    first.close()
    second.close()


def test_what_a_process_is_is_never_guessed_from_the_status(make_any: Make):
    container = make_any()
    with pytest.raises(api.WrongState):
        container.start(script("true"))
    with container.run(init("exit 0")) as process:
        process.wait()
        with pytest.raises(api.WrongState, match="stopped"):
            container.start(script("true"))
        with pytest.raises(api.WrongState, match="already has an init process"):
            container.start(init())


def test_a_process_is_for_one_start(make_any: Make):
    container = make_any()
    with container.run(init()), container.run(script("true")) as process:
        with pytest.raises(api.WrongState, match="make another one"):
            container.start(process)
        process.wait()


def test_a_terminal_has_the_size_that_was_asked_for_and_can_be_resized(make_any: Make):
    container = make_any()
    with (
        container.run(init()),
        container.run(script("stty size; read x; stty size", terminal=True, console_size=(100, 40))) as process,
    ):
        console = process.console
        assert console is not None
        assert console.size == (100, 40)
        seen = read_line(console)
        assert seen == b"40 100\r\n"
        console.resize(80, 25)
        console.write(b"go\n")
        while chunk := console.read():
            seen += chunk
        assert seen == b"40 100\r\ngo\r\n25 80\r\n"
        assert process.wait() == 0


def test_the_init_process_may_have_a_terminal(make_any: Make):
    container = make_any()
    with container.run(init("tty", terminal=True)) as process:
        assert process.console is not None
        assert read_line(process.console) == b"/dev/pts/0\r\n"
        assert process.wait() == 0


def test_streams_are_fds_files_or_each_other(make_any: Make, directory: Path):
    container = make_any()
    with tempfile.TemporaryFile() as output:
        text = "echo out; echo err >&2"
        with container.run(init(text, stdout=output, stderr=api.STDOUT)) as process:
            assert process.wait() == 0
        assert os.pread(output.fileno(), 100, 0) == b"out\nerr\n"


def test_a_stream_that_is_closed_is_refused(make_any: Make):
    container = make_any()
    with pytest.raises(api.UsageError, match="no open fd"):
        container.start(init(stdout=99_999))
    container.run(init("exit 0")).close()


def test_signals_end_up_in_the_exit_status(make_any: Make):
    container = make_any()
    with container.run(
        init("trap 'exit 3' USR1; echo ready; while :; do sleep 0.01; done", stdout=api.PIPE)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with container.run(script("exec sleep 1000")) as other:
            other.signal("KILL")
            assert other.wait(20) == 128 + signal.SIGKILL
            with pytest.raises(api.WrongState):
                other.signal("TERM")
        container.signal(signal.SIGUSR1)
        assert process.wait(20) == 3
        with pytest.raises(api.WrongState):
            container.signal("KILL")


def test_an_unknown_signal_is_refused(make_any: Make):
    container = make_any()
    with container.run(init()) as process, pytest.raises(api.UsageError):
        process.signal("NOPE")


def test_a_wait_can_be_limited(make_any: Make):
    container = make_any()
    with container.run(init()) as process:
        with pytest.raises(TimeoutError):
            process.wait(0.01)
        with pytest.raises(TimeoutError):
            container.wait(0.01)
        assert process.poll() is None


def test_a_paused_container_says_so(make_any: Make):
    container = make_any()
    with container.run(init()):
        container.pause()
        assert container.status == "paused"
        with pytest.raises(api.WrongState):
            container.start(script("true"))
        container.resume()
        assert container.status == "running"
        with pytest.raises(api.WrongState):
            container.resume()


@pytest.mark.needs_limits
def test_limits_can_be_set_and_are_in_the_configuration(make_any: Make):
    container = make_any()
    with container.run(init()):
        container.set({"pids": {"limit": 7}})
        assert container.stats()["pids"]["limit"] == 7
        assert container.config["linux"]["resources"]["pids"] == {"limit": 7}


def test_processes_are_listed(make_any: Make):
    container = make_any()
    with container.run(init()) as first, container.run(script("exec sleep 1000")) as second:
        assert sorted(container.processes()) == sorted([first.pid, second.pid])


def test_a_running_container_is_destroyed_by_force_only(make_any: Make):
    container = make_any()
    with container.run(init()) as process:
        with pytest.raises(api.WrongState, match="not stopped"):
            container.destroy()
        container.destroy(force=True)
        assert process.wait(20) == 128 + signal.SIGKILL
        with pytest.raises(api.ContainerNotFound):
            _ = container.status
        container.destroy(force=True)


def test_a_supervisor_knows_how_a_destroyed_container_ended(
    supervisor: api.Supervisor, config: Config, new_container_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
):
    """Kernels before 6.15 tell nobody."""
    monkeypatch.setattr("ctr_supervisor.api.ends.status_of_other", lambda *_: None)
    container = supervisor.create(new_container_id(), config)  # type: ignore[arg-type]
    with container.run(init()) as process:
        container.destroy(force=True)
        assert process.wait(20) == 128 + signal.SIGKILL


def test_a_failed_start_can_be_tried_again(make_any: Make):
    container = make_any()
    with pytest.raises(api.InitError, match="no such file"):
        container.run(api.Process(["/no/such/program"], env=ENVIRONMENT, init=True))
    assert container.status == "stopped"
    with container.run(init("exit 4")) as process:
        assert process.wait() == 4


def test_a_failed_exec_leaves_nothing(make_any: Make):
    container = make_any()
    with container.run(init()) as process:
        with pytest.raises(api.InitError) as error:
            container.run(api.Process(["/no/such/program"], env=ENVIRONMENT))
        assert error.value.errno == errno.ENOENT
        assert container.processes() == [process.pid]


def test_a_user_is_looked_up_in_the_container(make_any: Make, config: Config, directory: Path):
    root = directory / "rootfs"
    root.mkdir()
    for name in ("bin", "proc", "dev", "sys", "etc"):
        (root / name).mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:\nsomebody:x:1234:56:::\n")
    (root / "etc/group").write_text("some:x:56:\nmore:x:78:somebody\n")
    changed = {**config, "root": {"path": str(root)}}
    changed["mounts"] = [
        *config["mounts"],
        {"destination": "/bin", "source": config["root"]["path"] + "/bin", "options": ["bind"]},
    ]
    container = make_any(changed)
    with container.run(init("id; exec sleep 1000", user="somebody", stdout=api.PIPE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"uid=1234(somebody) gid=56(some)")
        with container.run(script("id -u; id -g; id -G", user="somebody", stdout=api.PIPE)) as other:
            assert other.communicate()[0] == b"1234\n56\n56 78\n"
        with container.run(script("id -u; id -g", user="17:18", stdout=api.PIPE)) as other:
            assert other.communicate()[0] == b"17\n18\n"
        with pytest.raises(api.ConfigError, match="nobody-knows"):
            container.run(script("true", user="nobody-knows"))


def test_the_settings_of_a_process_take_effect(make_any: Make):
    container = make_any()
    text = "ulimit -n; grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status; cat /proc/self/oom_score_adj; pwd; env"
    process = init(
        text,
        env={"PATH": "/bin", "HOME": "/tmp"},
        cwd="/dev",
        rlimits={"RLIMIT_NOFILE": (100, 100)},
        capabilities=["CAP_KILL"],
        no_new_privileges=True,
        oom_score_adj=500,
        stdout=api.PIPE,
    )
    with container.run(process):
        output, _ = process.communicate()
    assert output is not None
    assert output.decode().split("\n")[:6] == [
        "100",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000020",
        "NoNewPrivs:\t1",
        "500",
        "/dev",
    ]
    assert b"HOME=/tmp\n" in output


def test_what_is_left_open_is_as_configured(make_any: Make, config: Config):
    config["process"] = {
        "args": ["sh", "-c", "echo $WHO"],
        "env": ["PATH=/bin", "WHO=configured"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
    }
    container = make_any(config)
    with container.run(api.Process(init=True, stdout=api.PIPE)) as process:
        assert process.communicate()[0] == b"configured\n"


def test_events_tell_of_the_start_and_the_end(make: Make):
    container = make()
    with container.start(init("exit 9", stdin=api.DEVNULL)) as process, container.events() as events:
        container.exec()
        told = [(event.type, event.data) for event in events]
        assert told == [("started", {"pid": process.pid}), ("exited", {"pid": process.pid, "status": 9})]


def test_events_end_with_the_container(make_any: Make):
    container = make_any()
    with container.run(init("exec sleep 1000")) as process, container.events() as events:
        process.signal("KILL")
        assert [(event.type, event.data) for event in events] == [("exited", {"pid": process.pid, "status": 137})]


def test_events_bring_statistics_at_an_interval(make_any: Make):
    container = make_any()
    with container.run(init()), container.events(interval=0.01) as events:
        event = events.next(20)
        assert event is not None
        assert event.type == "stats"
        assert event.data["stats"]["pids"]["current"] == 1


def test_a_wait_for_events_can_be_limited(make_any: Make):
    container = make_any()
    with container.run(init()), container.events() as events:
        assert events.next(0.01) is None


@pytest.mark.needs_cgroup_v1
def test_notifications_tell_of_lack_of_memory(make_any: Make, config: Config):
    config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    container = make_any(config)
    with container.run(init()), container.notify_oom() as oom, container.events() as events:
        assert oom.wait(0) == 0
        with container.run(script("tail /dev/zero")) as process:
            assert oom.wait(20) >= 1
            process.wait(20)
        while (event := events.next(20)) is not None and event.type != "oom":
            pass
        assert event is not None
        container.signal("KILL")
        assert list(oom) == [] or oom.gone


@pytest.mark.needs_cgroup_v1
def test_notifications_tell_of_memory_pressure(make_any: Make, config: Config):
    config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    container = make_any(config)
    with container.run(init()), container.notify_memory_pressure() as pressure:
        assert pressure.wait(0) == 0
        with container.run(script("tail /dev/zero")) as process:
            assert pressure.wait(20) >= 1
            process.wait(20)


def test_a_pressure_level_that_there_is_not_is_told(make_any: Make):
    container = make_any()
    with container.run(init()), pytest.raises(api.CtrError, match="expected one of low, medium, critical"):
        container.notify_memory_pressure("extreme")  # type: ignore[arg-type]


def test_a_supervisor_notifies_who_sees_nothing_of_its_containers(
    supervisor: api.Supervisor, config: Config, new_container_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
):
    """As a member of the group does: neither state directory nor cgroup may be looked at."""
    container = supervisor.create(new_container_id(), config)  # type: ignore[arg-type]
    with container.run(init()) as process:

        def forbidden(*_: object, **__: object) -> None:
            raise AssertionError("it has looked for itself")

        monkeypatch.setattr("ctr_supervisor.api.direct.load", forbidden)
        monkeypatch.setattr("ctr_supervisor.engine.notify.oom", forbidden)
        monkeypatch.setattr("ctr_supervisor.engine.notify.memory_pressure", forbidden)
        with container.notify_oom() as oom, container.notify_memory_pressure("medium") as pressure:
            process.signal("KILL")
            assert oom.wait(20) == pressure.wait(20) == 0
            assert oom.gone
            assert pressure.gone
    with container.notify_oom() as late:
        assert late.wait(20) == 0
    container.destroy()


def test_a_notification_ends_with_the_container(make_any: Make):
    container = make_any()
    with container.run(init()) as process, container.notify_memory_pressure("critical") as pressure:
        assert pressure.wait(0) == 0
        process.signal("KILL")
        process.wait(20)
        container.destroy()
        assert pressure.wait(20) == 0
        assert pressure.gone


def test_hooks_run_and_a_failing_one_is_an_error(make_any: Make, config: Config, directory: Path):
    hook = directory / "hook"
    hook.write_text(f"#!/bin/sh\ncat >{directory}/told\n")
    hook.chmod(0o755)
    config["hooks"] = {"createRuntime": [{"path": str(hook)}]}
    with make_any(config).run(init("exit 0")):
        assert '"status":"creating"' in (directory / "told").read_text()
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    with pytest.raises(api.HookError, match="exit status 1"):
        make_any(config).run(init("exit 0"))


def test_a_wrong_configuration_is_told_with_its_place(make_any: Make, config: Config):
    with pytest.raises(api.ConfigError, match="must be absolute"):
        make_any({**config, "root": {"path": "rootfs"}})
    with pytest.raises(api.ConfigError) as error:
        make_any({**config, "hostname": 5})
    assert error.value.json_path == ".hostname"
