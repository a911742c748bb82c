"""What whoever starts ctrun may have done to it: signals, namespaces, places that are not there."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security import racing
from tests.support.bundles import Bundles, Config
from tests.support.command import run
from tests.support.runtime import Runtime
from tests.support.supervised import Supervisor

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

# Every how many system calls about paths and mounts there is a Ctrl-C; a start has hundreds of them.
STEP = 23

IN_A_SHELL = """
trap : INT
"$@"
code=$?
trap '' INT
[ $code != 0 ] || eval "$0"
exit $code
"""


def ignoring(signals: list[int], *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command that has signals ignored, as `nohup` would have it."""
    ignore = "import os, signal, sys\nfor number in map(int, sys.argv[1].split(',')):\n"
    ignore += "    signal.signal(number, signal.SIG_IGN)\nos.execv(sys.argv[2], sys.argv[2:])"
    words = ["/usr/bin/python3", "-I", "-S", "-c", ignore, ",".join(map(str, signals)), *map(str, argv)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_caller_that_ignores_the_end_of_children_is_served(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], verb: str
) -> None:
    every = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    container = new_container_id()
    if verb == "run":
        words = ["run", "-b", bundle(args=["echo", "hello"]), container]
    else:
        ctrun("run", "-d", "-b", bundle(args=["sleep", "1000"]), container).ok()
        words = ["exec", container, "echo", "hello"]
    for signals in ([signal.SIGCHLD], every):
        result = ignoring(signals, ctrun.path, *ctrun.globals, *words)
        assert (result.returncode, result.stdout) == (0, "hello\n"), result
    ctrun("delete", "--force", container)


def test_a_supervisor_serves_whose_caller_ignores_the_end_of_children(bundle: Bundles, directory: Path) -> None:
    ignore = "import os, signal as s, sys; s.signal(s.SIGCHLD, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    wrapper = ["/usr/bin/python3", "-I", "-S", "-c", ignore]
    with Supervisor(directory).start(wrapper=wrapper) as supervisor, supervisor.client() as client:
        client.ask("run", id="one", bundle=str(bundle(args=["sh", "-c", "exit 7"])))
        assert client.ask("wait", id="one")["status"] == 7
        client.ask("delete", id="one")


@pytest.mark.needs_direct
@pytest.mark.parametrize("verb", ["run", "create"])
def test_ctrl_c_leaves_nothing_and_says_nothing_at_any_moment(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], verb: str
) -> None:
    """Of `create` once the container is there, and of `run` once its process runs, it is not for ctrun any more."""
    path = bundle(args=["true"])
    number, over = 0, False
    while not over:
        group = 0
        over = True

        def interrupt(index: int, stop: racing.Stop, at: int = number) -> None:
            nonlocal group, over
            group = group or os.getpgid(stop.pid)
            if index == at:
                over = False
                os.killpg(group, signal.SIGINT)

        container = new_container_id()
        command = [ctrun.path, *ctrun.globals, verb, "-b", path, container]
        end = [ctrun.path, *ctrun.globals, "delete", "--force", container]
        if verb == "create":
            # What waits for its start is waited for, too.
            command = ["sh", "-c", IN_A_SHELL, shlex.join(map(str, end)), *command]
        outcome = racing.run(command, interrupt, looks=True)
        assert outcome.err == "", repr(outcome)
        assert outcome.code in (0, 128 + signal.SIGINT, -signal.SIGINT), repr(outcome)
        assert ctrun.status(container) == "", repr(outcome)
        number += STEP
    assert number > 5 * STEP


@pytest.mark.needs_user_namespaces
@pytest.mark.parametrize("others", ["", "--net --uts --ipc"])
def test_a_user_namespace_without_namespaces_of_its_own_to_come_back_to_will_do(
    ctrun: Runtime, bundle: Bundles, new_container_id: Callable[[], str], directory: Path, others: str
) -> None:
    """Nor may its root call setgroups (user_namespaces(7))."""

    def without_gid(config: Config) -> None:
        for mount in config["mounts"]:
            mount["options"] = [option for option in mount.get("options", ()) if not option.startswith("gid=")]

    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", *others.split()]
    words = ["run", "-b", bundle(without_gid, args=["echo", "hello"]), new_container_id()]
    result = run(*unshare, ctrun.path, "--root", directory / "root", *words)
    assert (result.code, result.out, result.err) == (0, "hello\n", ""), result


def test_a_file_in_the_place_of_the_state_root_is_named(ctrun: Runtime, bundle: Bundles, directory: Path) -> None:
    (directory / "root").write_text("")
    result = ctrun("--root", directory / "root", "run", "-b", bundle(args=["true"]), "one")
    assert result.code == 1
    assert f"cannot make the state directory {directory}/root: file exists" in result.err


@pytest.mark.needs_direct
def test_a_creation_that_can_not_be_undone_tells_why_it_failed(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
) -> None:
    """What it runs out of, for the state and for its removal, are fds."""
    words = [ctrun.path, "--root", directory / "root", "run", "-b", bundle(args=["true"]), container_id]
    complaints: list[str] = []
    few, limit = 4, 4
    # How many are enough is a matter of the host's cgroups.
    while (result := run("prlimit", f"--nofile={limit}:{limit}", *words)).code != 0:
        assert result.code == 1, result
        limit += 1
        complaints += [line for line in result.err.splitlines() if "level=error" in line]
        ctrun("--root", directory / "root", "delete", "--force", container_id).ok()
    assert len(complaints) == limit - few > 5
    assert all("too many open files" in line and "removing state" not in line for line in complaints), complaints
