"""Podman as root: run, exec and the rest of a container's life, user namespaces, networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.podman import Podman
from tests.clients.users import User
from tests.support.command import Result
from tests.support.waiting import until

pytestmark = pytest.mark.needs_podman
Run = Callable[..., Result]
Background = Callable[..., str]


def test_the_runtime_under_test_is_what_podman_uses(podman: Podman, runtime: Path, podman_background: Background):
    assert podman.inspect(podman_background())["OCIRuntime"] == "ctrun"
    assert podman("info", "--format", "{{.Host.OCIRuntime.Path}}").text == str(runtime)


def test_the_runtime_named_on_the_command_line(podman: Podman, runtime: Path):
    assert podman("--runtime", runtime, "run", "--rm", "busybox", "echo", "hello").text == "hello"


def test_run_prints_what_the_container_prints(podman_run: Run):
    result = podman_run(script="echo to stdout; echo to stderr >&2; exit 3")
    assert (result.code, result.out, result.err) == (3, "to stdout\n", "to stderr\n")


def test_run_i_reads_stdin(podman: Podman):
    assert podman("run", "--rm", "-i", "busybox", "wc", "-c", stdin="12345").text == "5"


def test_run_it_gives_a_terminal_of_the_users_size(podman: Podman):
    with podman.terminal("run", "-it", "--rm", "busybox", "sh", rows=31, columns=97) as terminal:
        terminal.expect("# ")
        until("the size is set", lambda: terminal.type("stty size\n").shows("31 97"))
        terminal.type("exit 42\n")
        assert terminal.wait() == 42


def test_detached_container_runs_on_and_its_logs_are_kept(podman: Podman, podman_background: Background):
    name = podman_background(script="echo one; echo two >&2; exit 5")
    assert podman("wait", name).text == "5"
    logs = podman("logs", name).ok()
    assert (logs.out, logs.err) == ("one\n", "two\n")


def test_run_of_a_missing_command_exits_127(podman: Podman):
    result = podman("run", "--rm", "busybox", "no-such-command")
    assert result.code == 127
    assert "executable file" in result.err
    assert "not found in $PATH" in result.err


def test_run_of_a_file_that_is_not_executable_exits_126(podman: Podman):
    result = podman("run", "--rm", "busybox", "/etc/passwd")
    assert result.code == 126
    assert "permission denied" in result.err.lower()


def test_run_of_an_unknown_flag_exits_125(podman: Podman):
    assert podman("run", "--no-such-flag", "busybox", "true").code == 125


def test_exec_runs_inside_the_container(podman: Podman, podman_background: Background):
    name = podman_background("--hostname", "inner")
    assert podman("exec", name, "hostname").text == "inner"
    assert podman("exec", name, "sh", "-c", "exit 9").code == 9
    flags = ["--user", "1000:2000", "--env", "COLOUR=red", "--workdir", "/tmp"]
    script = "echo $(id -u):$(id -g) $COLOUR $(pwd)"
    assert podman("exec", *flags, name, "sh", "-c", script).text == "1000:2000 red /tmp"


def test_exec_i_reads_stdin(podman: Podman, podman_background: Background):
    assert podman("exec", "-i", podman_background(), "cat", stdin="through exec").out == "through exec"


def test_exec_it_has_a_terminal(podman: Podman, podman_background: Background):
    with podman.terminal("exec", "-it", podman_background(), "sh") as terminal:
        terminal.expect("# ")
        terminal.type("test -t 1 && echo is-a-$((1 + 1))-terminal; exit 11\n")
        terminal.expect("is-a-2-terminal")
        assert terminal.wait() == 11


def test_exec_of_a_missing_command_exits_127(podman: Podman, podman_background: Background):
    assert podman("exec", podman_background(), "no-such-command").code == 127


def test_stop_lets_the_container_end_by_itself(podman: Podman, podman_background: Background):
    name = podman_background(script="trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    until("the trap is set", lambda: podman("logs", name).out)
    podman("stop", "--time", "20", name).ok()
    assert podman.inspect(name)["State"]["ExitCode"] == 6


def test_kill_sends_the_signal_asked_for(podman: Podman, podman_background: Background):
    name = podman_background(script="trap 'exit 77' USR1; echo ready; while :; do sleep 0.05; done")
    until("the trap is set", lambda: podman("logs", name).out)
    podman("kill", "--signal", "USR1", name).ok()
    assert podman("wait", name).text == "77"


def test_pause_and_unpause(podman: Podman, podman_background: Background):
    name = podman_background(script="i=0; while :; do i=$((i + 1)); echo $i; sleep 0.02; done")
    until("it counts", lambda: podman("logs", name).out)
    podman("pause", name).ok()
    assert podman.status(name) == "paused"
    before = podman("logs", name).out
    assert podman("logs", name).out == before
    podman("unpause", name).ok()
    until("it counts again", lambda: len(podman("logs", name).out) > len(before))


def test_top_shows_the_processes(podman: Podman, podman_background: Background):
    name = podman_background(script="exec sleep 4321")
    until("it runs", lambda: "sleep 4321" in podman("top", name, "pid", "args").out)


def test_restart_gives_a_new_process(podman: Podman, podman_background: Background):
    name = podman_background()
    first = podman.inspect(name)["State"]["Pid"]
    podman("restart", "--time", "0", name).ok()
    assert podman.inspect(name)["State"]["Pid"] not in (0, first)


@pytest.mark.needs_limits
def test_limits_reach_the_cgroup(podman_run: Run):
    v1 = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
    v2 = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max"
    script = f"if test -e /sys/fs/cgroup/cgroup.controllers; then {v2}; else {v1}; fi"
    flags = ["--memory", "48m", "--pids-limit", "17", "--cpus", "0.5"]
    assert podman_run(*flags, script=script).text.split()[:3] == [str(48 << 20), "17", "50000"]


def test_capabilities_and_user(podman_run: Run):
    script = "awk '/CapEff/ { print $2 }' /proc/self/status; id -u"
    assert podman_run("--cap-drop", "all", "--user", "1234", script=script).text.split() == ["0" * 16, "1234"]
    assert podman_run("--cap-drop", "all", "--cap-add", "net_admin", script=script).text.split() == [
        "0000000000001000",
        "0",
    ]


def test_read_only_root_and_volumes(podman_run: Run, directory: Path):
    (directory / "file").write_text("from the host")
    flags = ["--read-only", "-v", f"{directory}:/data:ro", "--tmpfs", "/scratch"]
    result = podman_run(*flags, script="cat /data/file; touch /scratch/x && echo .; touch /x; touch /data/x")
    assert result.out == "from the host.\n"
    assert result.err.count("Read-only file system") == 2


def test_init_is_process_1(podman: Podman, podman_run: Run):
    helper = next((path for path in ("/usr/bin/tini-static", "/usr/bin/tini") if os.path.exists(path)), "")
    if not helper:
        pytest.skip("not installed: tini")
    # a dynamic tini has no loader in a busybox image: the host's libraries are shown to it
    flags = ["--init", "--init-path", helper, "-v", "/lib:/lib:ro"]
    flags += ["-v", "/lib64:/lib64:ro"] if os.path.exists("/lib64") else []
    assert podman_run(*flags, script="cat /proc/1/comm; :").text in ("podman-init", "catatonit", "tini")


def test_userns_auto_gives_ids_of_the_subordinate_range(podman_run: Run, plain_user: User):
    inside, outside, count = podman_run("--userns=auto", script="cat /proc/self/uid_map").text.split()
    assert int(inside) == 0
    assert int(outside) >= plain_user.first_subordinate_id()
    assert int(count) < 65536


@pytest.mark.covers(".linux.uidMappings[].hostID")
def test_uidmap_makes_root_inside_somebody_else_outside(podman: Podman, podman_background: Background):
    name = podman_background("--uidmap", "0:200000:5000", "--gidmap", "0:300000:5000")
    assert podman("exec", name, "cat", "/proc/self/uid_map").text.split() == ["0", "200000", "5000"]
    assert podman("exec", name, "cat", "/proc/self/gid_map").text.split() == ["0", "300000", "5000"]
    assert podman("exec", name, "stat", "-c", "%u:%g", "/bin/busybox").text == "0:0"
    owner = os.stat(f"/proc/{podman.inspect(name)['State']['Pid']}")
    assert (owner.st_uid, owner.st_gid) == (200000, 300000)


def test_root_of_a_user_namespace_has_no_power_outside(podman_run: Run):
    result = podman_run("--uidmap", "0:200000:5000", "--privileged", "-v", "/proc/sys:/host", script="echo > /host/x")
    assert result.code != 0


def test_hostname_namespaces_and_dns_files(podman_run: Run):
    script = "hostname; readlink /proc/self/ns/net; cat /etc/hosts | grep -c inner"
    name, network, entries = podman_run("--hostname", "inner", script=script).text.split()
    assert name == "inner"
    assert network != os.readlink("/proc/self/ns/net")
    assert int(entries) >= 1
    assert podman_run("--network=host", script="readlink /proc/self/ns/net").text == os.readlink("/proc/self/ns/net")


@pytest.fixture
def network(podman: Podman, new_name: Callable[[], str]) -> Iterator[str]:
    """A bridge network of its own."""
    name = new_name()
    podman("network", "create", "--disable-dns", "--subnet", "10.89.201.0/24", name).ok()
    yield name
    podman("network", "rm", "--force", "--time", "0", name)


@pytest.mark.needs_network_namespaces
def test_two_containers_talk_over_a_bridge_network(
    podman: Podman, podman_run: Run, podman_background: Background, network: str
):
    script = "mkdir /www; echo over the bridge > /www/index.html; exec httpd -f -p 80 -h /www"
    server = podman_background("--network", network, "--ip", "10.89.201.7", script=script)
    address = podman("exec", server, "ip", "-4", "addr", "show", "eth0").text
    assert "10.89.201.7/24" in address
    fetch = "until wget -qO- http://10.89.201.7/; do :; done; ip -4 addr show eth0"
    lines = podman_run("--network", network, script=fetch).lines
    assert lines[0] == "over the bridge"
    assert any("10.89.201." in line for line in lines[1:])
    assert podman_run("--network=none", script="wget -T 2 -qO- http://10.89.201.7/").code != 0


def test_healthcheck(podman: Podman, podman_background: Background):
    name = podman_background("--health-cmd", "test -f /tmp/well", "--health-interval", "disable")
    assert podman("healthcheck", "run", name).code == 1
    podman("exec", name, "touch", "/tmp/well").ok()
    assert podman("healthcheck", "run", name).code == 0


def test_build_runs_its_steps_in_the_runtime(podman: Podman, runtime: Path, directory: Path, new_name):
    (directory / "Containerfile").write_text("FROM localhost/busybox\nRUN id -u > /built-by\nCMD cat /built-by\n")
    tag = new_name()
    flags: list[str | Path] = [
        "--runtime",
        runtime,
        "--isolation",
        "oci",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
    ]
    podman("build", *flags, "--tag", tag, directory, timeout=100).ok()
    assert podman("run", "--rm", tag).text == "0"
    podman("rmi", "--force", tag).ok()
