"""What runc does beyond the words of the specification, and what those who come from it count on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.inside import Inside, changed, mount, with_mounts
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.usefixtures("no_leaks")]

FOREVER = ["sleep", "1000"]
IDS = [{"containerID": 0, "hostID": 0, "size": 65536}]


def share_pids(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]


def test_lines_of_a_terminal_that_go_to_a_pipe_end_as_the_program_ended_them(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    path = bundle(changed({"process": {"terminal": True}}), args=["echo", "word"])
    argv = [str(ctrun.path), *ctrun.globals, "run", "-b", str(path), container_id]
    with Terminal("sh", "-c", '"$@" | od -An -c', "sh", *argv) as screen:
        screen.expect(r"w   o   r   d  \n")
        assert screen.wait() == 0


def test_the_users_terminal_gets_whole_line_ends(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    path = bundle(changed({"process": {"terminal": True}}), args=["echo", "word"])
    with Terminal(ctrun.path, *ctrun.globals, "run", "-b", path, container_id) as screen:
        screen.expect("word\r\n")
        assert screen.wait() == 0


@pytest.mark.covers("exec --process")
def test_exec_takes_its_process_from_a_pipe(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    text = '{"cwd": "/", "args": ["/bin/echo", "piped"]}'
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    assert ctrun("exec", "--process", "/dev/stdin", container_id, stdin=text).text == "piped"
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    assert ctrun("exec", "--process", f"/dev/fd/{read}", container_id, pass_fds=[read]).text == "piped"
    os.close(read)
    os.mkfifo(directory / "fifo")
    writer = threading.Thread(target=(directory / "fifo").write_text, args=[text])
    writer.start()
    assert ctrun("exec", "--process", directory / "fifo", container_id).text == "piped"
    writer.join()
    ctrun("delete", "--force", container_id).ok()


def test_what_the_caller_was_bound_to_does_not_bind_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        pytest.skip("needs two processors")
    one = str(min(every))
    argv = ["taskset", "-c", one, str(ctrun.path), *ctrun.globals]
    show = ["sed", "-n", "s/^Cpus_allowed:\t0*//p", "/proc/self/status"]

    def shown(*more: str | Path) -> set[int]:
        text = subprocess.run([*argv, *more], capture_output=True, text=True, check=True, timeout=30).stdout
        mask = int(text.replace(",", ""), 16)
        return {number for number in range(mask.bit_length()) if mask >> number & 1}

    assert shown("run", "-b", bundle(args=show), container_id) >= every
    ctrun("run", "-d", "-b", bundle(args=FOREVER), container_id).ok()
    assert shown("exec", container_id, *show) >= every
    ctrun("delete", "--force", container_id).ok()


def test_an_impossible_ambient_capability_is_told_of(ctrun: Runtime, bundle: Bundles, container_id: str) -> None:
    sets = {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "ambient")}
    change = changed({"process": {"capabilities": {**sets, "inheritable": ["CAP_KILL"]}}})
    result = ctrun("run", "-b", bundle(change, args=["grep", "CapAmb", "/proc/self/status"]), container_id)
    assert result.out == "CapAmb:\t0000000000000020\n"
    assert "can't raise ambient capability CAP_CHOWN: operation not permitted" in result.err
    assert "CAP_KILL" not in result.err


def test_names_of_properties_count_in_any_case(inside: Inside) -> None:
    def rename(config: dict[str, Any]) -> None:
        del config["process"]["noNewPrivileges"]
        config["Process"] = {**config.pop("process"), "nonewprivileges": True}

    assert inside("grep", "NoNewPrivs", "/proc/self/status", change=rename) == "NoNewPrivs:\t1"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_created_container_can_be_told_to_go(ctrun: Runtime, bundle: Bundles, container_id: str, number: int) -> None:
    ctrun("create", "-b", bundle(args=FOREVER), container_id).ok()
    ctrun("kill", container_id, str(number)).ok()
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    ctrun("delete", container_id).ok()


def test_sigkill_ends_what_an_init_process_without_a_pid_namespace_left_behind(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    change = changed(share_pids, with_mounts(mount("/out", "bind", directory, "rbind", "rw")))
    script = "sleep 1000 & echo $! > /out/pid; exec sleep 1001"
    ctrun("run", "-d", "-b", bundle(change, args=["sh", "-c", script]), container_id).ok()
    until("started", lambda: (directory / "pid").exists() and (directory / "pid").read_text())
    rest = int((directory / "pid").read_text())
    os.kill(ctrun.state(container_id)["pid"], signal.SIGKILL)
    until("stopped", lambda: ctrun.status(container_id) == "stopped")
    os.kill(rest, 0)
    assert "container not running" in ctrun("kill", container_id, "TERM").err
    ctrun("kill", container_id, "KILL").ok()
    until("ended", lambda: not Path(f"/proc/{rest}/cmdline").exists() or not Path(f"/proc/{rest}/cmdline").read_text())
    assert "container not running" in ctrun("kill", container_id, "KILL").err
    ctrun("delete", container_id).ok()


@pytest.mark.covers(".hooks.startContainer[].env")
def test_a_start_container_hook_without_an_environment_has_that_of_the_process(
    ctrun: Runtime, bundle: Bundles, container_id: str
) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo $WORD $HOME; exit 1"]}
    change = changed({"process": {"args": ["/bin/true"], "env": ["WORD=given"]}, "hooks": {"startContainer": [hook]}})
    result = ctrun("run", "-b", bundle(change), container_id)
    assert "error running startContainer hook #0: exit status 1, stdout: given /root" in result.err


def test_a_mount_shows_what_earlier_ones_brought_into_the_containers_own_tree(inside: Inside, directory: Path) -> None:
    (directory / "source").mkdir()
    (directory / "source/word").write_text("found\n")

    def change(config: dict[str, Any]) -> None:
        rootfs = f"{directory}/bundle1/rootfs"
        assert os.path.isdir(rootfs)
        config["mounts"] += [
            mount("/first", "bind", directory / "source", "rbind"),
            mount(f"{rootfs}/second", "bind", f"{rootfs}/first", "rbind"),
            mount("/third", "bind", f"{rootfs}/second", "rbind", "idmap", uidMappings=IDS, gidMappings=IDS),
        ]

    assert inside("cat", "/third/word", change=change, writable=True) == "found"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "poststart", "poststop"])
def test_a_hook_on_the_host_without_an_environment_has_that_of_the_caller(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, kind: str
) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat > /dev/null; echo $WORD > {directory}/seen"]}
    change = changed({"hooks": {kind: [hook]}})
    ctrun("run", "-b", bundle(change), container_id, env={**os.environ, "WORD": "callers"}).ok()
    assert (directory / "seen").read_text() == "callers\n"


def test_devices_are_made_outside_of_dev_too(inside: Inside) -> None:
    numbers = {"type": "b", "major": 10, "minor": 229}
    change = {"linux": {"devices": [{"path": path, **numbers} for path in ("/alone", "/new/below", "/slash/")]}}
    assert inside("stat", "-c", "%n %F", "/alone", "/new/below", "/slash", change=change).splitlines() == [
        "/alone block special file",
        "/new/below block special file",
        "/slash block special file",
    ]
