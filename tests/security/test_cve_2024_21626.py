"""CVE-2024-21626: a fd of the runtime, or a working directory reached by one, led from the container to the host."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security.hostile import FOREVER, changed, plain, running, with_hook
from tests.support.bundles import Bundles, Config
from tests.support.command import run
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

# beyond what the runtime has open at any time
FDS = range(3, 9)
# The fds of the shell itself: ls has one more, for what it lists. `true` keeps the shell from becoming ls.
LIST = "ls /proc/$$/fd; true"
STDIO = ["0", "1", "2"]


def with_terminal(config: Config) -> None:
    config["process"]["terminal"] = True


def with_notification(agent: Path) -> Callable[[Config], None]:
    def mutate(config: Config) -> None:
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": str(agent),
            "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_NOTIFY"}],
        }

    return mutate


def test_run_leaves_stdio_open_and_nothing_else(ctrun: Runtime, bundle: Bundles, container_id: str):
    reader, writer = os.pipe()
    try:
        # fds of the caller do not go through by accident either
        result = ctrun("run", "-b", bundle(plain, args=["sh", "-c", LIST]), container_id, pass_fds=(reader, writer))
    finally:
        os.close(reader)
        os.close(writer)
    assert result.lines == STDIO


def test_create_and_start_leave_stdio_open_and_nothing_else(ctrun: Runtime, bundle: Bundles, container_id: str):
    made = bundle(plain, args=["sh", "-c", f"exec >/tmp/fds; {LIST}"], writable=True)
    ctrun("create", "-b", made, container_id).ok()
    pid = ctrun.state(container_id)["pid"]
    watched = os.pidfd_open(pid)
    ctrun("start", container_id).ok()
    os.waitid(os.P_PIDFD, watched, os.WEXITED)
    os.close(watched)
    ctrun("delete", container_id).ok()
    assert (made / "rootfs/tmp/fds").read_text().split() == STDIO


def test_a_terminal_leaves_stdio_open_and_nothing_else(ctrun: Runtime, bundle: Bundles, container_id: str):
    made = bundle(with_terminal, args=["sh", "-c", f"{LIST}; echo end"])
    with Terminal(ctrun.path, "run", "-b", made, container_id) as terminal:
        terminal.expect("end")
        assert terminal.wait() == 0
    assert terminal.seen.split() == [*STDIO, "end"]


@pytest.mark.parametrize("flag", ["-t", "-d", "--"])
def test_exec_leaves_stdio_open_and_nothing_else(ctrun: Runtime, bundle: Bundles, container_id: str, flag: str):
    made = bundle(args=FOREVER, writable=True)
    script = f"exec >/tmp/fds.new; {LIST}; mv /tmp/fds.new /tmp/fds"
    with running(ctrun, made, container_id):
        if flag == "-t":
            with Terminal(ctrun.path, "exec", "-t", container_id, "sh", "-c", script) as terminal:
                assert terminal.wait() == 0
        else:
            ctrun("exec", flag, container_id, "sh", "-c", script).ok()
        # a second one waits for what a detached one writes
        waiting = "while [ ! -e /tmp/fds ]; do sleep 0.01; done; cat /tmp/fds"
        assert ctrun("exec", container_id, "sh", "-c", waiting).lines == STDIO


@pytest.mark.covers(".linux.seccomp.listenerPath")
def test_a_seccomp_listener_does_not_stay_in_the_container(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
):
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(directory / "agent"))
        agent.listen(1)
        made = bundle(changed(plain, with_notification(directory / "agent")), args=["sh", "-c", LIST])
        assert ctrun("run", "-b", made, container_id).lines == STDIO


@pytest.mark.covers("run --preserve-fds")
def test_preserved_fds_are_the_only_further_ones(ctrun: Runtime, bundle: Bundles, container_id: str):
    # a shell makes 3 and 4 of whatever numbers are free here
    made = bundle(plain, args=["sh", "-c", LIST])
    words = [*ctrun.globals, "run", "--preserve-fds", "1", "-b", made, container_id]
    result = run("sh", "-c", 'exec "$@" 3</dev/null 4</dev/null', "sh", ctrun.path, *words)
    assert result.lines == [*STDIO, "3"]


@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
def test_hooks_get_none_of_the_runtimes_fds(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, stage: str
):
    made = bundle(changed(plain, with_hook(stage, f"exec >{directory}/fds; ls -l /proc/self/fd")))
    ctrun("run", "-b", made, container_id).ok()
    shown = [line.split(" -> ") for line in (directory / "fds").read_text().splitlines()[1:]]
    # ls itself has the directory open that it lists
    names = [words[0].split()[-1] for words in shown if len(words) == 1 or not words[1].endswith("/fd")]
    assert names == STDIO, shown


@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
def test_hooks_get_none_of_the_callers_fds(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path, stage: str
):
    """A hook that leaves a daemon behind would hold the caller's pipes and directories open."""
    (directory / "of the caller").touch()
    made = bundle(changed(plain, with_hook(stage, f"exec >{directory}/fds; ls -l /proc/self/fd")))
    with (directory / "of the caller").open() as file:
        ctrun("run", "-b", made, container_id, pass_fds=(file.fileno(),)).ok()
    assert "of the caller" not in (directory / "fds").read_text()


def test_start_container_hooks_get_none_of_the_runtimes_fds(ctrun: Runtime, bundle: Bundles, container_id: str):
    def hooked(config: Config) -> None:
        config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", f"exec >/tmp/fds; {LIST}"]}]}

    made = bundle(changed(plain, hooked), writable=True)
    ctrun("run", "-b", made, container_id).ok()
    assert (made / "rootfs/tmp/fds").read_text().split() == STDIO


@pytest.mark.covers("exec --cwd")
@pytest.mark.parametrize("through", ["fd itself", "symlink of the image"])
def test_exec_does_not_get_out_by_a_working_directory(ctrun: Runtime, bundle: Bundles, container_id: str, through: str):
    made = bundle(plain, args=FOREVER, writable=True)
    (made / "rootfs/inside").touch()
    with running(ctrun, made, container_id):
        for fd in FDS:
            cwd = f"/proc/self/fd/{fd}"
            if through == "symlink of the image":
                (made / "rootfs/way").unlink(missing_ok=True)
                (made / "rootfs/way").symlink_to(cwd)
                cwd = "/way"
            for tail in ("", "/1/root") if through == "fd itself" else ("",):
                result = ctrun("exec", "--cwd", cwd + tail, container_id, "ls", "../../../../..")
                # /proc/self/root is the container's own root, by whatever procfs it is reached
                assert result.code != 0 or "inside" in result.lines, f"{cwd}{tail}: {result!r}"


@pytest.mark.covers(".process.cwd")
def test_run_does_not_get_out_by_a_working_directory(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str]
):
    made = bundle(plain, args=["sh", "-c", "pwd; ls ../../../../.."])
    text = (made / "config.json").read_text()
    for fd in FDS:
        (made / "config.json").write_text(text.replace('"cwd": "/"', f'"cwd": "/proc/self/fd/{fd}"'))
        result = ctrun("run", "-b", made, new_container_id())
        assert result.code != 0, f"{fd}: {result!r}"


def test_a_program_is_not_found_through_a_fd_of_the_runtime(ctrun: Runtime, bundle: Bundles, container_id: str):
    """The third form of the attack: the path of the program itself. A static one runs without the image's libraries."""
    program = shutil.which("busybox")
    assert program
    with running(ctrun, bundle(plain, args=FOREVER), container_id):
        for fd in FDS:
            for way in ("../../../..", "1/root"):
                result = ctrun("exec", container_id, f"/proc/self/fd/{fd}/{way}{program}", "echo", "out")
                assert result.code != 0, f"{fd}/{way}: {result!r}"
                assert "out\n" not in result.out
