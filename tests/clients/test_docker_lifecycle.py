"""Docker: the life of a container, through the commands that a user types."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.clients.docker import Docker
from tests.support.capabilities import LONG_KNOWN, own_capabilities
from tests.support.command import Result
from tests.support.waiting import until

pytestmark = pytest.mark.needs_docker
Run = Callable[..., Result]
Background = Callable[..., str]


def test_the_runtime_under_test_is_what_docker_uses(docker: Docker, docker_background: Background):
    name = docker_background()
    assert docker("info", "--format", "{{.DefaultRuntime}}").text == "ctrun"
    assert docker.inspect(name)["HostConfig"]["Runtime"] == "ctrun"


def test_run_prints_what_the_container_prints(docker_run: Run):
    result = docker_run(script="echo to stdout; echo to stderr >&2")
    assert (result.code, result.out, result.err) == (0, "to stdout\n", "to stderr\n")


def test_run_rm_leaves_no_container(docker: Docker, docker_name: str):
    docker("run", "--rm", "--name", docker_name, "busybox", "true").ok()
    assert docker("ps", "--all", "--quiet", "--filter", f"name={docker_name}").text == ""


def test_run_with_an_explicit_runtime(docker: Docker):
    assert docker("run", "--rm", "--runtime", "ctrun", "busybox", "echo", "hello").text == "hello"


def test_run_i_reads_stdin_to_its_end(docker: Docker):
    assert docker("run", "--rm", "-i", "busybox", "wc", "-c", stdin="12345").text == "5"


def test_run_it_gives_a_terminal_of_the_users_size(docker: Docker):
    with docker.terminal("run", "-it", "--rm", "busybox", "sh", rows=31, columns=97) as terminal:
        terminal.expect("# ")
        # the client sets the size some time after the start
        terminal.type(
            "until stty size | grep '31 97'; do sleep 0.1; done; tty; test -t 0 && echo is-a-$((1 + 1))-terminal\n"
        )
        terminal.expect("31 97")
        terminal.expect("/dev/")
        terminal.expect("is-a-2-terminal")
        terminal.type("exit 42\n")
        assert terminal.wait() == 42


def test_run_it_follows_a_resized_terminal(docker: Docker):
    # the first size may come as a change too, after the start
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    with docker.terminal("run", "-it", "--rm", "busybox", "sh", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.resize(40, 111)
        terminal.expect("40 111")


def test_ctrl_c_on_the_terminal_interrupts_the_container(docker: Docker):
    with docker.terminal("run", "-it", "--rm", "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("trap 'echo caught-$((3 + 4))' INT; sleep 1000\n")
        terminal.expect("sleep 1000\r\n")
        until("the sleep was interrupted", lambda: terminal.type("\x03").shows("caught-7"))
        terminal.type("exit\n")
        terminal.wait()


def test_detached_container_runs_on_and_its_logs_are_kept(docker: Docker, docker_background: Background):
    name = docker_background(script="echo one; echo two >&2; read never; exit 5")
    assert docker("wait", name).text == "5"
    logs = docker("logs", name).ok()
    assert (logs.out, logs.err) == ("one\n", "two\n")


def test_logs_follow_ends_with_the_container(docker: Docker, docker_background: Background):
    name = docker_background(script="for i in 1 2 3; do echo line $i; sleep 0.1; done")
    assert docker("logs", "--follow", name).lines == ["line 1", "line 2", "line 3"]


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_status_of_the_container_is_that_of_run(docker_run: Run, code: int):
    assert docker_run(script=f"exit {code}").code == code


def test_a_container_killed_by_its_own_signal_exits_with_128_and_the_number(docker_run: Run):
    # PID 1 can only be ended by a signal from inside if it is not PID 1 of the namespace that it is in
    assert docker_run("--init", script="kill -TERM $$").code == 143


def test_run_of_an_unknown_flag_exits_125(docker: Docker):
    assert docker("run", "--no-such-flag", "busybox", "true").code == 125


def test_run_of_a_file_that_is_not_executable_exits_126(docker: Docker):
    result = docker("run", "--rm", "busybox", "/etc/passwd")
    assert result.code == 126
    assert "permission denied" in result.err


def test_run_of_a_missing_command_exits_127(docker: Docker):
    result = docker("run", "--rm", "busybox", "no-such-command")
    assert result.code == 127
    assert "executable file not found in $PATH" in result.err


def test_run_of_a_missing_path_exits_127(docker: Docker):
    result = docker("run", "--rm", "busybox", "/no/such/command")
    assert result.code == 127
    assert "no such file or directory" in result.err


def test_a_container_that_could_not_start_leaves_nothing_running(docker: Docker, docker_name: str):
    assert docker("run", "--name", docker_name, "busybox", "no-such-command").code == 127
    assert docker.status(docker_name) == "created"
    assert docker.inspect(docker_name)["State"]["Pid"] == 0
    docker("rm", docker_name).ok()


def test_exec_runs_inside_the_container(docker: Docker, docker_background: Background):
    name = docker_background("--hostname", "inner")
    assert docker("exec", name, "hostname").text == "inner"
    assert (
        docker("exec", name, "readlink", "/proc/self/ns/pid").text
        == docker("exec", name, "readlink", "/proc/1/ns/pid").text
    )


def test_exec_passes_the_exit_status(docker: Docker, docker_background: Background):
    name = docker_background()
    assert docker("exec", name, "sh", "-c", "exit 9").code == 9


def test_exec_of_a_missing_command_exits_127_or_126(docker: Docker, docker_background: Background):
    # Docker 20.10 tells this case by another text than `run` does; both statuses mean that nothing ran
    result = docker("exec", docker_background(), "no-such-command")
    assert result.code in (126, 127)
    assert "executable file not found in $PATH" in result.out + result.err


def test_exec_takes_user_environment_and_working_directory(docker: Docker, docker_background: Background):
    name = docker_background()
    script = "echo $(id -u):$(id -g) $COLOUR $(pwd)"
    flags = ["--user", "1000:2000", "--env", "COLOUR=red", "--workdir", "/tmp"]
    assert docker("exec", *flags, name, "sh", "-c", script).text == "1000:2000 red /tmp"


def test_exec_i_reads_stdin(docker: Docker, docker_background: Background):
    assert docker("exec", "-i", docker_background(), "cat", stdin="through exec").out == "through exec"


def test_exec_it_has_a_terminal(docker: Docker, docker_background: Background):
    name = docker_background()
    with docker.terminal("exec", "-it", name, "sh", rows=20, columns=66) as terminal:
        terminal.expect("# ")
        # the size comes with a request of its own that may be later than the shell
        until("the size is set", lambda: terminal.type("stty size\n").shows("20 66"))
        terminal.type("exit 11\n")
        assert terminal.wait() == 11


def test_exec_detached_goes_on_by_itself(docker: Docker, docker_background: Background):
    name = docker_background()
    docker("exec", "--detach", name, "sh", "-c", "echo done > /tmp/done").ok()
    until("the file is there", lambda: docker("exec", name, "cat", "/tmp/done").out == "done\n")


def test_exec_privileged_has_all_capabilities(
    docker: Docker, docker_background: Background, docker_privileged: list[str]
):
    name = docker_background("--cap-drop", "ALL", *docker_privileged[1:])
    read = ["awk", "/CapEff/ { print $2 }", "/proc/self/status"]
    assert int(docker("exec", name, *read).text, 16) == 0
    assert int(docker("exec", "--privileged", name, *read).text, 16) & LONG_KNOWN == own_capabilities() & LONG_KNOWN


def test_stop_lets_the_container_end_by_itself(docker: Docker, docker_background: Background):
    name = docker_background(script="trap 'echo bye; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    until("the trap is set", lambda: docker("logs", name).out)
    docker("stop", "--time", "20", name).ok()
    assert docker.inspect(name)["State"]["ExitCode"] == 6
    assert docker("logs", name).lines == ["ready", "bye"]


def test_stop_kills_a_container_that_does_not_end(docker: Docker, docker_background: Background):
    name = docker_background(script="trap '' TERM; while :; do sleep 0.05; done")
    docker("stop", "--time", "1", name).ok()
    assert docker.inspect(name)["State"]["ExitCode"] == 137


def test_kill_ends_the_container(docker: Docker, docker_background: Background):
    name = docker_background()
    docker("kill", name).ok()
    assert docker("wait", name).text == "137"


def test_kill_sends_the_signal_asked_for(docker: Docker, docker_background: Background):
    name = docker_background(script="trap 'exit 77' USR1; echo ready; while :; do sleep 0.05; done")
    until("the trap is set", lambda: docker("logs", name).out)
    docker("kill", "--signal", "USR1", name).ok()
    assert docker("wait", name).text == "77"


def test_a_paused_container_stands_still_until_unpaused(docker: Docker, docker_background: Background):
    name = docker_background(script="i=0; while :; do i=$((i + 1)); echo $i; sleep 0.02; done")
    until("it counts", lambda: docker("logs", name).out)
    docker("pause", name).ok()
    assert docker.status(name) == "paused"
    before = docker("logs", name).out
    refused = docker("exec", name, "true")
    assert refused.code != 0
    assert "paused" in refused.err
    assert docker("logs", name).out == before
    docker("unpause", name).ok()
    assert docker.status(name) == "running"
    until("it counts again", lambda: len(docker("logs", name).out) > len(before))


def test_top_shows_the_processes(docker: Docker, docker_background: Background):
    name = docker_background(script="sleep 1234 & exec sleep 4321")
    until("both run", lambda: "sleep 1234" in docker("top", name).out and "sleep 4321" in docker("top", name).out)
    assert len(docker("top", name).lines) == 3


def test_top_takes_arguments_of_ps(docker: Docker, docker_background: Background):
    lines = docker("top", docker_background(script="exec sleep 4321"), "-o", "pid,args").lines
    assert lines[0].split() == ["PID", "COMMAND"]
    assert lines[1].split()[1:] == ["sleep", "4321"]


@pytest.mark.needs_limits
def test_stats_read_the_containers_cgroup(docker: Docker, docker_background: Background):
    name = docker_background("--memory", "64m")
    line = docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name).text
    assert line.split()[-2:] == ["64MiB", "1"]


def test_restart_gives_a_new_process(docker: Docker, docker_background: Background):
    name = docker_background()
    first = docker.inspect(name)["State"]["Pid"]
    docker("restart", "--time", "0", name).ok()
    second = docker.inspect(name)["State"]
    assert second["Running"]
    assert second["Pid"] != first


def test_a_stopped_container_starts_again_with_its_files(docker: Docker, docker_background: Background):
    name = docker_background(script="echo x >> /count; wc -l < /count")
    docker("wait", name).ok()
    assert docker("start", "--attach", name).text.splitlines()[-1] == "2"


def test_rm_force_ends_a_running_container(docker: Docker, docker_background: Background):
    name = docker_background()
    docker("rm", "--force", name).ok()
    assert docker("inspect", name).code == 1


@pytest.mark.needs_limits
def test_a_container_over_its_memory_limit_is_told_apart(docker: Docker, docker_name: str):
    command = ["run", "--name", docker_name, "--memory", "16m", "--memory-swap", "16m", "busybox", "tail", "/dev/zero"]
    assert docker(*command).code == 137
    assert docker.inspect(docker_name)["State"]["OOMKilled"]


def test_healthcheck_follows_the_container(docker: Docker, docker_background: Background):
    name = docker_background(
        *("--health-cmd", "test -f /tmp/well", "--health-interval", "300ms", "--health-retries", "1"),
        script="touch /tmp/well; exec sleep 1000",
    )

    def health() -> str:
        return str(docker.inspect(name)["State"]["Health"]["Status"])

    until("it is healthy", lambda: health() == "healthy")
    docker("exec", name, "rm", "/tmp/well").ok()
    until("it is unhealthy", lambda: health() == "unhealthy")


def test_eight_containers_at_once(docker: Docker):
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda number: docker("run", "--rm", "busybox", "echo", str(number), timeout=90).text, range(8))
        )
    assert results == [str(number) for number in range(8)]
