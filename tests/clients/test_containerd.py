"""containerd: containers and tasks through `ctr`, the stock runc v2 shim and `--runc-binary`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.containerd import IMAGE, Containerd
from tests.support.waiting import until

# ctr asks for shares of the CPU always
pytestmark = [pytest.mark.needs_containerd, pytest.mark.needs_limits]
Background = Callable[..., str]


@pytest.fixture(scope="session")
def containerd(run_directory: Path, oci_image: Path, runtime: Path) -> Iterator[Containerd]:
    """A containerd with the image `busybox`."""
    engine = Containerd(run_directory / "containerd", runtime, f"ctrtest-containerd-{os.getpid()}")
    try:
        engine("images", "import", oci_image).ok()
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def name(containerd: Containerd, new_name: Callable[[], str]) -> Iterator[str]:
    """An unused container id; what is made under it is removed at the end of the test."""
    name = new_name()
    yield name
    if containerd.status(name):
        containerd("tasks", "kill", "--all", "--signal", "KILL", name)
        containerd("tasks", "rm", "--force", name)
    containerd("containers", "rm", name)


@pytest.fixture
def background(containerd: Containerd, name: str) -> Background:
    """Starts a container in the background; returns its id."""

    def start(*flags: str, script: str = "exec sleep 1000") -> str:
        containerd.run("--detach", *flags, name=name, script=script).ok()
        return name

    return start


def test_run_prints_and_removes(containerd: Containerd, name: str):
    assert containerd.run("--rm", name=name, script="echo hello; hostname").lines[0] == "hello"
    assert name not in containerd("containers", "list").out


def test_run_passes_the_exit_status(containerd: Containerd, name: str):
    assert containerd.run("--rm", name=name, script="exit 7").code == 7


def test_run_reads_stdin(containerd: Containerd, name: str):
    # ctr 1.6 does not pass on the end of stdin, so the container must not wait for it
    words = [IMAGE, name, "sh", "-c", "read line; echo got $line"]
    assert containerd("run", "--rm", "--runc-binary", containerd.runtime, *words, stdin="this\n").text == "got this"


def test_run_of_a_missing_command_fails(containerd: Containerd, name: str):
    result = containerd("run", "--rm", "--runc-binary", containerd.runtime, IMAGE, name, "no-such-command")
    assert result.code != 0
    assert 'exec: "no-such-command": executable file not found in $PATH' in result.err


def test_run_with_a_terminal(containerd: Containerd, name: str):
    words = ["run", "--rm", "--tty", "--runc-binary", str(containerd.runtime), IMAGE, name, "sh"]
    with containerd.terminal(*words) as terminal:
        terminal.expect("# ")
        until("the size is set", lambda: terminal.type("stty size\n").shows("24 80"))
        terminal.type("exit 4\n")
        assert terminal.wait() == 4


def test_environment_directory_user_and_read_only_root(containerd: Containerd, name: str):
    flags = ["--rm", "--env", "COLOUR=red", "--cwd", "/tmp", "--read-only"]
    result = containerd.run(*flags, name=name, script="echo $COLOUR $(pwd); touch /x")
    assert result.out == "red /tmp\n"
    assert "Read-only file system" in result.err


def test_a_mount(containerd: Containerd, name: str, directory: Path):
    (directory / "file").write_text("from the host")
    mount = f"type=bind,src={directory},dst=/data,options=rbind:ro"
    result = containerd.run("--rm", "--mount", mount, name=name, script="cat /data/file; touch /data/x")
    assert result.out == "from the host"
    assert "Read-only file system" in result.err


def test_host_network_and_a_namespace_by_path(containerd: Containerd, name: str, new_name: Callable[[], str]):
    own = os.readlink("/proc/self/ns/net")
    script = "readlink /proc/self/ns/net"
    assert containerd.run("--rm", name=name, script=script).text != own
    assert containerd.run("--rm", "--net-host", name=new_name(), script=script).text == own
    path = f"network:/proc/{os.getpid()}/ns/net"
    assert containerd.run("--rm", "--with-ns", path, name=new_name(), script=script).text == own


def test_privileged(containerd: Containerd, name: str, new_name: Callable[[], str]):
    script = "mount -t tmpfs none /tmp && echo mounted"
    assert containerd.run("--rm", name=name, script=script).code != 0
    assert containerd.run("--rm", "--privileged", name=new_name(), script=script).text == "mounted"


def test_capabilities(containerd: Containerd, name: str):
    read = "awk '/CapEff/ { print $2 }' /proc/self/status"
    result = containerd.run("--rm", "--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_NET_RAW", name=name, script=read)
    effective = int(result.text, 16)
    assert effective >> 12 & 1
    assert not effective >> 13 & 1


def test_seccomp_profile(containerd: Containerd, name: str, directory: Path):
    profile = directory / "seccomp.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    flags = ["--rm", "--seccomp", "--seccomp-profile", str(profile)]
    assert "Operation not supported" in containerd.run(*flags, name=name, script="mkdir /tmp/x").err


def test_user_namespace(containerd: Containerd, name: str):
    flags = ["--rm", "--uidmap", "0:200000:5000", "--gidmap", "0:300000:5000"]
    result = containerd.run(*flags, name=name, script="id -u; cat /proc/self/uid_map; cat /proc/self/gid_map")
    assert result.text.split() == ["0", "0", "200000", "5000", "0", "300000", "5000"]


def test_memory_limit_and_cpus_show_in_the_metrics(containerd: Containerd, background: Background):
    name = background("--memory-limit", str(48 << 20), "--cpus", "0.5")
    metrics = containerd.metrics(name)
    assert metrics.get("memory.limit_in_bytes") or metrics.get("memory.usage_limit") == str(48 << 20)
    assert int(metrics.get("memory.usage_in_bytes") or metrics.get("memory.usage", "0")) > 0
    assert metrics["pids.current"] == "1"


def test_tasks_list_and_ps_show_the_process(containerd: Containerd, background: Background):
    name = background(script="sleep 1234 & exec sleep 4321")
    assert containerd.status(name) == "RUNNING"

    def commands() -> set[bytes]:
        pids = [line.split()[0] for line in containerd("tasks", "ps", name).lines[1:]]
        return {Path("/proc", pid, "cmdline").read_bytes() for pid in pids}

    until("both run", lambda: commands() == {b"sleep\x001234\x00", b"sleep\x004321\x00"})


def test_tasks_exec(containerd: Containerd, background: Background):
    name = background()
    inside = containerd("tasks", "exec", "--exec-id", "e1", name, "readlink", "/proc/self/ns/pid").text
    assert inside != os.readlink("/proc/self/ns/pid")
    assert containerd("tasks", "exec", "--exec-id", "e2", name, "sh", "-c", "exit 9").code == 9
    words = ["tasks", "exec", "--exec-id", "e3", "--cwd", "/tmp", "--user", "1000:2000", name]
    assert containerd(*words, "sh", "-c", "pwd; id -u; id -g").text.split() == ["/tmp", "1000", "2000"]


def test_tasks_exec_with_a_terminal(containerd: Containerd, background: Background):
    name = background()
    with containerd.terminal("tasks", "exec", "--tty", "--exec-id", "e1", name, "sh") as terminal:
        terminal.expect("# ")
        terminal.type("test -t 0 && echo is-a-$((1 + 1))-terminal; exit 11\n")
        terminal.expect("is-a-2-terminal")
        assert terminal.wait() == 11


def test_tasks_exec_of_a_missing_command_fails(containerd: Containerd, background: Background):
    name = background()
    result = containerd("tasks", "exec", "--exec-id", "e1", name, "no-such-command")
    assert result.code != 0
    assert "executable file not found in $PATH" in result.err
    assert containerd.status(name) == "RUNNING"


def test_tasks_kill(containerd: Containerd, background: Background):
    name = background()
    containerd("tasks", "kill", "--signal", "KILL", name).ok()
    until("it has ended", lambda: containerd.status(name) == "STOPPED")
    containerd("tasks", "rm", name)
    assert containerd.status(name) == ""


def test_tasks_kill_sends_the_signal_asked_for(containerd: Containerd, background: Background):
    name = background(script="trap 'exit 77' USR1; touch /ready; while :; do sleep 0.05; done")
    ready = ["tasks", "exec", "--exec-id", "e1", name, "sh", "-c", "until test -e /ready; do :; done"]
    containerd(*ready).ok()
    containerd("tasks", "kill", "--signal", "USR1", name).ok()
    until("it has ended", lambda: containerd.status(name) == "STOPPED")
    assert "exit code 77" in containerd("tasks", "rm", name).err


def test_tasks_pause_and_resume(containerd: Containerd, background: Background, directory: Path):
    mount = f"type=bind,src={directory},dst=/data,options=rbind:rw"
    script = "i=0; while :; do i=$((i + 1)); echo $i > /data/count.new; mv /data/count.new /data/count; done"
    name = background("--mount", mount, script=script)

    def count() -> int:
        path = directory / "count"
        return int(path.read_text()) if path.exists() else 0

    until("it counts", count)
    containerd("tasks", "pause", name).ok()
    assert containerd.status(name) == "PAUSED"
    before = count()
    assert containerd.status(name) == "PAUSED"
    assert count() == before
    containerd("tasks", "resume", name).ok()
    assert containerd.status(name) == "RUNNING"
    until("it counts again", lambda: count() > before)


def test_nothing_is_left_in_the_shims_state_directory(containerd: Containerd, name: str):
    containerd.run("--rm", name=name, script="true").ok()
    assert not Path("/run/containerd/runc", containerd.namespace, name).exists()
