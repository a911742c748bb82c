"""The command line beside that of runc: same exit status, same error, same output, the program's name aside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.command import Result
from tests.support.runtime import Runtime, runtime_under_test
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_runc]

NO_CONTAINER = [
    ["-v=false", "list"],
    ["--foo"],
    ["--foo", "list"],
    ["--=x"],
    ["---x"],
    ["-=x"],
    ["--log"],
    ["--debug=yes"],
    ["-h", "-help"],
    ["nosuch"],
    ["nosuch", "-x"],
    ["-"],
    ["help", "nosuch"],
    ["--log-format", "xml", "list"],
    ["--log-format", "json", "state", "nope"],
    ["--log", "/no/such", "list"],
    ["list"],
    ["list", "-q"],
    ["list", "-f", "json"],
    ["list", "-f", "table"],
    ["list", "-f", "x"],
    ["list", "-q", "-f", "x"],
    ["list", "-qf", "json"],
    ["list", "x"],
    ["list", ""],
    ["list", "help"],
    ["list", "--foo"],
    ["list", "--help", "--foo"],
    ["list", "-v"],
    ["create"],
    ["create", "a", "b"],
    ["create", "-b", "/no/such", "a"],
    ["create", "-b", "x", "-bundle", "y", "a"],
    ["create", "-b", "/no/1", "-b", "/no/2", "a"],
    ["create", "a", "-b", "/no/such"],
    ["create", "a", "-b"],
    ["create", "a", "-b", "/no/such", "--"],
    ["create", "-b", "--", "a"],
    ["create", "--", "a", "-b", "/no/such"],
    ["create", "-b=", "a"],
    ["create", "a"],
    ["create", "--preserve-fds", "x", "a"],
    ["create", "--preserve-fds", "", "a"],
    ["create", "--preserve-fds", "99999999999999999999", "a"],
    ["create", "--preserve-fds"],
    ["run"],
    ["run", "a"],
    ["run", "-d=x", "a"],
    ["--rootless", "maybe", "state", "a"],
    ["start"],
    ["start", "a"],
    ["start", "a", "b"],
    ["state"],
    ["state", "a"],
    ["state", ""],
    ["state", "--foo", "a"],
    ["state", "a", "--foo"],
    ["kill"],
    ["kill", "a"],
    ["kill", ""],
    ["kill", "a", "NOSUCH"],
    ["kill", "a", "b", "c"],
    ["kill", "a", "TERM", "-x"],
    ["kill", "-a=foo", "a"],
    ["delete"],
    ["delete", "a"],
    ["delete", "-f", "a"],
    ["delete", "a", "--force"],
    ["delete", "-f", ""],
    ["pause"],
    ["pause", "a"],
    ["resume"],
    ["resume", "a"],
    ["ps"],
    ["ps", "a"],
    ["ps", "-f", "x", "a"],
    ["exec"],
    ["exec", "a"],
    ["exec", "a", "ls"],
    ["exec", "", "ls"],
    ["exec", "-x", "a", "ls"],
    ["exec", "-td", "a", "ls"],
    ["exec", "-g", "5,6", "a", "ls"],
    ["exec", "-e", "A=1", "--env", "B=2", "a", "ls"],
    ["exec", "--preserve-fds", "a", "ls"],
    ["exec", "-p", "/no/such", "a"],
    ["features", "x"],
    ["spec", "x"],
    ["spec", "-b", "/no/such"],
]

WITHOUT_ROOT = [[], ["-h"], ["help"], ["list", "-h"], ["help", "list"], ["exec", "--help"], ["h", "kill", "x"]]


# Where ours says more, or the same as later releases of runc than the one to compare with.
DELIBERATE = (
    (r"(invalid container ID format): \\?\"[^\n]*\"", r'\1"'),
    (r"(container not running) or created: \w+", r"\1"),
    (r"sending signal 99 to the init process: pidfd_send_signal:", "unable to signal init:"),
    (r"exec failed: \.args: ", "exec failed: "),
    (r"cannot write the pid file /no/such/pid:", "open /no/such/.pid:"),
    (r'(\\"/etc\\"): is a directory', r"\1: permission denied"),
    (r"\bctr-init\b", "runc init"),
    # of runc alone, where cgroup v2 has no memory controller
    (r'time="[^"]*" level=warning msg="unable to get oom kill count"[^\n]*\n', ""),
    (r'("ociVersion": ?)"[^"]*"', r'\1"VERSION"'),
)


class Pair:
    """ctrun and runc, each with a state root and a container of its own.

    Args:
        directory: for states and bundles.
        ids: container ids, one each.
    """

    def __init__(self, directory: Path, ids: tuple[str, str]) -> None:
        self.directory = directory
        self.runtimes = (
            Runtime(runtime_under_test(), directory / "ctrun-states"),
            Runtime(Path("runc"), directory / "runc-states"),
        )
        self.ids = ids

    def __call__(self, *args: str | Path, cwd: Path | None = None) -> tuple[str, str]:
        """How both end, in comparable form; the argument "ID" stands for the container."""
        __tracebackhide__ = True
        results = []
        for runtime, container in zip(self.runtimes, self.ids, strict=True):
            words = [container if word == "ID" else word for word in args]
            results.append(self.normalise(runtime(*words, cwd=cwd or self.directory), runtime, container))
        return results[0], results[1]

    def normalise(self, result: Result, runtime: Runtime, container: str) -> str:
        """Exit status, stdout and stderr without what differs for a good reason."""
        out = re.sub(r"\n+NAME:\n.*", "\n(help)\n", "\n" + result.out, flags=re.DOTALL).lstrip("\n")
        text = f"exit status {result.code}\nstdout: {out}\nstderr: {result.err}"
        text = text.replace(str(runtime.state_root), "ROOT")
        state = runtime.state_root / container / "state.json"
        if state.exists():
            pid = json.loads(state.read_text())["init_process_pid"]
            text = re.sub(rf"\b{pid}\b", "PID", text)
        for pattern, replacement in DELIBERATE:
            text = re.sub(pattern, replacement, text)
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME", text)
        text = text.replace(container, "ID").replace("ctrun", "runc")
        # Columns are as wide as their contents, which differ.
        return re.sub(r" {3,}", "   ", text)

    def remove(self) -> None:
        """Deletes both containers."""
        for runtime, container in zip(self.runtimes, self.ids, strict=True):
            runtime.remove(container)


@pytest.fixture
def pair(directory: Path, new_container_id: Callable[[], str]) -> Iterator[Pair]:
    pair = Pair(directory, (new_container_id(), new_container_id()))
    yield pair
    pair.remove()


@pytest.mark.parametrize("args", NO_CONTAINER, ids=" ".join)
def test_without_a_container_it_ends_as_runc_does(pair: Pair, args: list[str]):
    ours, theirs = pair(*args)
    assert ours == theirs


@pytest.mark.parametrize("args", WITHOUT_ROOT, ids=" ".join)
def test_help_goes_to_the_same_place(pair: Pair, args: list[str]):
    for runtime in pair.runtimes:
        runtime.globals = []
    ours, theirs = pair(*args)
    assert ours == theirs


@pytest.mark.parametrize("verb", [["state", "nope"], ["nosuch"], ["create"], ["list", "--foo"]], ids=" ".join)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_file_gets_what_runc_writes(pair: Pair, verb: list[str], form: str):
    ours, theirs = pair("--log", "log", "--log-format", form, *verb)
    assert ours == theirs
    mine, other = (pair.directory / "log").read_text().replace("ctrun", "runc").splitlines()
    assert re.sub(r"20\d\d-[^\"]*", "TIME", mine) == re.sub(r"20\d\d-[^\"]*", "TIME", other)


def test_spec_refuses_to_overwrite_as_runc_does(pair: Pair):
    (pair.directory / "config.json").write_text("mine")
    ours, theirs = pair("spec")
    assert ours == theirs
    assert (pair.directory / "config.json").read_text() == "mine"


def test_spec_writes_a_file_with_the_mode_and_the_layout_of_runc(pair: Pair):
    written = []
    for runtime in pair.runtimes:
        where = pair.directory / runtime.path.name
        where.mkdir()
        runtime("spec", "-b", where).ok()
        written.append(where / "config.json")
    ours, theirs = (path.read_text() for path in written)
    assert written[0].stat().st_mode == written[1].stat().st_mode
    assert ours.startswith('{\n\t"ociVersion": "')
    assert ours.endswith("\n}") is theirs.endswith("\n}")
    assert list(json.loads(ours)) == list(json.loads(theirs))


@pytest.mark.parametrize("id_text", ["a/b", "..", ".", "a b", "é", "a:b"])
@pytest.mark.parametrize("verb", ["state", "delete", "kill", "exec"])
def test_an_invalid_id_ends_as_with_runc(pair: Pair, verb: str, id_text: str):
    ours, theirs = pair(verb, id_text)
    assert ours == theirs


STATUSES = ["created", "running", "paused", "stopped"]

# These leave a container as it is.
LOOKING = [
    ["state", "ID"],
    ["list"],
    ["list", "-q"],
    ["list", "-f", "json"],
    ["create", "-b", "bundle", "ID"],
    ["run", "-b", "bundle", "ID"],
    ["kill", "ID", "0"],
    ["kill", "ID", "NOSUCH"],
    ["kill", "ID", "winch"],
    ["kill", "ID", "99"],
    ["ps", "-f", "json", "ID"],
    ["ps", "-f", "x", "ID"],
    ["ps", "ID", "-o", "cmd"],
    ["ps", "ID", "-o", "pid,args"],
    ["exec", "ID"],
    ["exec", "ID", "true"],
    ["exec", "--ignore-paused", "-x", "ID", "true"],
]

CHANGING = [
    ["start", "ID"],
    ["pause", "ID"],
    ["resume", "ID"],
    ["delete", "ID"],
    ["delete", "--force", "ID"],
]


def run_detached(runtime: Runtime, *args: str | Path) -> None:
    """Runs a verb whose container may live on: it inherits stdio, which must not be a pipe of ours."""
    __tracebackhide__ = True
    with tempfile.TemporaryFile("w+") as output:
        words = [str(word) for word in (runtime.path, *runtime.globals, *args)]
        code = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=30, check=False
        ).returncode
        output.seek(0)
        assert code == 0, f"{' '.join(words)}\n{output.read()}"


def bring_to(pair: Pair, bundle: Path, status: str) -> None:
    """Makes both containers and brings them to a status."""
    for runtime, container in zip(pair.runtimes, pair.ids, strict=True):
        run_detached(runtime, "create", "-b", bundle, container)
        if status != "created":
            runtime("start", container).ok()
        if status == "paused":
            runtime("pause", container).ok()
        if status == "stopped":
            runtime("kill", container, "KILL").ok()
        until(f"{status} container", partial(has_status, runtime, container, status))


def has_status(runtime: Runtime, container: str, status: str) -> bool:
    """Whether a container has a status."""
    return runtime.status(container) == status


@pytest.fixture(scope="module")
def pair_in(run_directory: Path, busybox_rootfs: Path) -> Iterator[Callable[[str], Pair]]:
    """Containers in a status, for tests that leave them as they are: made once."""
    pairs: dict[str, Pair] = {}

    def find(status: str) -> Pair:
        if status not in pairs:
            directory = run_directory / f"cli-{status}"
            directory.mkdir()
            ids = [f"ctrtest-{os.getpid()}-cli-{name}-{status}" for name in ("ctrun", "runc")]
            pairs[status] = Pair(directory, (ids[0], ids[1]))
            path = Bundles(directory, busybox_rootfs)(args=["sleep", "1000"])
            bring_to(pairs[status], path.rename(directory / "bundle"), status)
        return pairs[status]

    yield find
    for pair in pairs.values():
        pair.remove()


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("args", LOOKING, ids=" ".join)
def test_looking_at_a_container_ends_as_with_runc(pair_in: Callable[[str], Pair], status: str, args: list[str]):
    ours, theirs = pair_in(status)(*args)
    assert ours == theirs


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("args", CHANGING, ids=" ".join)
def test_changing_a_container_ends_as_with_runc(pair: Pair, bundle: Bundles, status: str, args: list[str]):
    bring_to(pair, bundle(args=["sleep", "1000"]), status)
    ours, theirs = pair(*args)
    assert ours == theirs
    ours, theirs = pair("list")
    assert ours == theirs


@pytest.mark.parametrize("status", STATUSES)
def test_kill_all_ends_as_with_runc(pair: Pair, bundle: Bundles, status: str):
    # runc thaws a paused container on the way and leaves it so; ours stays paused.
    bring_to(pair, bundle(args=["sleep", "1000"]), status)
    ours, theirs = pair("kill", "--all", "ID", "28")
    assert ours == theirs


def test_rootless_takes_the_words_that_runc_takes(pair: Pair, bundle: Bundles):
    ours, theirs = pair("--rootless", "maybe", "run", "-b", bundle(), "ID")
    assert ours == theirs


EXEC = [
    ["exec", "ID", "sh", "-c", "echo out; echo err >&2; exit 7"],
    ["exec", "ID", "sh", "-c", "kill -9 $$"],
    ["exec", "ID", "echo", "-t", "--", "-u", "x"],
    ["exec", "--", "ID", "echo", "x"],
    ["exec", "-u", "1:2", "-g", "5", "-g", "6", "ID", "id"],
    ["exec", "-u", "x", "ID", "id"],
    ["exec", "-u", "1:", "ID", "id"],
    ["exec", "-g", "-5", "ID", "id"],
    ["exec", "--cwd", "/bin", "-e", "A=1", "-e", "PATH=/bin", "ID", "sh", "-c", "pwd; echo $A $PATH"],
    ["exec", "--cwd", "bin", "ID", "pwd"],
    ["exec", "-c", "CAP_NET_RAW", "ID", "grep", "Cap", "/proc/self/status"],
    ["exec", "--no-new-privs=false", "ID", "grep", "NoNewPrivs", "/proc/self/status"],
    ["exec", "-d", "ID", "true"],
    ["exec", "-d", "-t", "ID", "true"],
    ["exec", "-t", "--console-socket", "/no/such", "ID", "true"],
    ["exec", "--console-socket", "/no/such", "ID", "true"],
    ["exec", "--cgroup", "a:b:c", "ID", "true"],
    ["exec", "--cgroup", "", "ID", "true"],
    ["exec", "-p", "/no/such", "ID"],
    ["exec", "ID", "nosuch"],
    ["exec", "ID", "/etc"],
    ["exec", "--cwd", "/nosuch", "ID", "true"],
]


@pytest.mark.parametrize("args", EXEC, ids=" ".join)
def test_exec_ends_as_that_of_runc(pair_in: Callable[[str], Pair], args: list[str]):
    ours, theirs = pair_in("running")(*args)
    assert ours == theirs


RUN = [
    (["sh", "-c", "echo out; echo err >&2; exit 7"], []),
    (["sh", "-c", "kill -9 $$"], []),
    (["true"], ["--keep"]),
    (["true"], ["--pid-file", "/no/such/pid"]),
    (["true"], ["--console-socket", "/no/such"]),
    (["nosuch"], []),
    (["/etc"], []),
]


@pytest.mark.parametrize(("command", "flags"), RUN, ids=lambda part: " ".join(part) or "-")
def test_run_ends_as_that_of_runc(pair: Pair, bundle: Bundles, command: list[str], flags: list[str]):
    ours, theirs = pair("run", "-b", bundle(args=command), *flags, "ID")
    assert ours == theirs
