"""Podman as an ordinary user: everything below runs without any privilege on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.podman import Podman
from tests.clients.users import User
from tests.support.command import Result
from tests.support.waiting import until

# Where the host keeps /dev/net/tun from ordinary users, slirp4netns and pasta have no way to make a network.
NETWORK = "--network=none"

pytestmark = [pytest.mark.needs_podman, pytest.mark.needs_user_namespaces, pytest.mark.needs_command("newuidmap")]


@pytest.fixture
def run(rootless_podman: Podman) -> Callable[..., Result]:
    """Runs a script in a container of its own."""
    return lambda *flags, script: rootless_podman("run", "--rm", NETWORK, *flags, "busybox", "sh", "-c", script)


@pytest.fixture
def background(rootless_podman: Podman, new_name: Callable[[], str]) -> Iterator[str]:
    """A container in the background."""
    name = new_name()
    rootless_podman("run", "--detach", NETWORK, "--name", name, "busybox", "sleep", "1000").ok()
    yield name
    rootless_podman("rm", "--force", "--time", "0", "--ignore", name)


@pytest.mark.covers(".linux.uidMappings[].containerID")
def test_rootless_root_is_the_user(run, plain_user: User):
    lines = run(script="id -u; cat /proc/self/uid_map").lines
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(plain_user.uid), "1"]
    assert lines[2].split()[1] == str(plain_user.first_subordinate_id())


def test_rootless_runtime_is_the_one_under_test(rootless_podman: Podman, runtime: Path):
    assert rootless_podman("info", "--format", "{{.Host.OCIRuntime.Path}}").text == str(runtime)
    assert rootless_podman("info", "--format", "{{.Host.Security.Rootless}}").text == "true"


def test_rootless_keep_id(run, plain_user: User):
    assert run("--userns=keep-id", script="id -u").text == str(plain_user.uid)


def test_rootless_nomap_has_no_id_of_the_user(run, plain_user: User):
    lines = run("--userns=nomap", script="id -u; cat /proc/self/uid_map").lines
    assert lines[0] == "0"
    assert str(plain_user.uid) not in lines[1].split()


def test_rootless_exit_status_and_output(run):
    result = run(script="echo out; echo err >&2; exit 7")
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")


def test_rootless_missing_command_exits_127(rootless_podman: Podman):
    assert rootless_podman("run", "--rm", NETWORK, "busybox", "no-such-command").code == 127


def test_rootless_terminal(rootless_podman: Podman):
    with rootless_podman.terminal("run", "-it", "--rm", NETWORK, "busybox", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("test -t 0 && echo is-a-$((1 + 1))-terminal; exit 4\n")
        terminal.expect("is-a-2-terminal")
        assert terminal.wait() == 4


def test_rootless_exec_stop_and_remove(rootless_podman: Podman, background: str):
    assert rootless_podman("exec", background, "id", "-u").text == "0"
    assert rootless_podman("exec", "--user", "1000", background, "id", "-u").text == "1000"
    assert "sleep 1000" in rootless_podman("top", background).out
    rootless_podman("stop", "--time", "0", background).ok()
    until("it has ended", lambda: rootless_podman.status(background) == "exited")
    rootless_podman("rm", background).ok()


def test_rootless_kill(rootless_podman: Podman, background: str):
    rootless_podman("kill", background).ok()
    assert rootless_podman("wait", background).text == "137"


def test_rootless_volume_belongs_to_the_user(run, plain_user: User, directory: Path):
    plain_user.own(directory)
    run("-v", f"{directory}:/data", script="touch /data/mine; chown 1:1 /data/mine; touch /data/own").ok()
    assert (directory / "own").stat().st_uid == plain_user.uid
    assert (directory / "mine").stat().st_uid == plain_user.first_subordinate_id()


def test_rootless_read_only_and_tmpfs(run):
    result = run("--read-only", "--tmpfs", "/scratch", script="touch /scratch/x && echo yes; touch /x")
    assert result.out == "yes\n"
    assert "Read-only file system" in result.err


def test_rootless_host_network(rootless_podman: Podman):
    import os

    text = rootless_podman("run", "--rm", "--network=host", "busybox", "readlink", "/proc/self/ns/net").text
    assert text == os.readlink("/proc/self/ns/net")
