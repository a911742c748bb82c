"""The flags of the verbs that make processes, each seen at work."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Result, run
from tests.support.inside import Inside, changed, end, parse_probe
from tests.support.runtime import Runtime
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

covers = pytest.mark.covers
FOREVER = ["sleep", "1000"]
MAKING = ["create", "run"]


class Made:
    """Makes a process with one of the verbs that do: a container's own with create or run, one more with exec.

    Args:
        inside: makes the containers.
        verb: create (and then start), run or exec.
    """

    def __init__(self, inside: Inside, verb: str) -> None:
        self.inside = inside
        self.verb = verb
        self.name = inside.new_container_id()

    def __call__(
        self, argv: list[str], *flags: str | Path, change: Any = None, pass_fds: tuple[int, ...] = ()
    ) -> Result:
        """Makes it in the background; its output is that of the result where it ends at once."""
        __tracebackhide__ = True
        ctrun = self.inside.ctrun
        own = FOREVER if self.verb == "exec" else argv
        path = self.inside.bundle(changed(change), args=own)
        if self.verb == "exec":
            ctrun("run", "-d", "-b", path, self.name).ok()
            return ctrun("exec", "-d", *flags, self.name, *argv, pass_fds=pass_fds)
        detached = ["--detach"] if self.verb == "run" else []
        made = ctrun(self.verb, *detached, "-b", path, *flags, self.name, pass_fds=pass_fds)
        if self.verb == "create" and made.code == 0:
            ctrun("start", self.name).ok()
        return made

    def pid(self) -> int:
        """Of the process that was made."""
        pids: list[int] = json.loads(self.inside.ctrun("ps", "-f", "json", self.name).text)
        own = int(self.inside.ctrun.state(self.name)["pid"])
        return next(pid for pid in pids if pid != own) if self.verb == "exec" else own


@pytest.fixture(params=["create", "run", "exec"])
def verb(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(inside: Inside, verb: str) -> Iterator[Made]:
    maker = Made(inside, verb)
    yield maker
    end(inside.ctrun, maker.name)


@contextmanager
def listening(path: Path) -> Iterator[Callable[[], int]]:
    """A socket at a path; what it gives takes the fd that is sent to it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def take() -> int:
            connection, _ = server.accept()
            with connection:
                _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
            return array.array("i", ancillary[0][2])[0]

        yield take


@covers("{verb} --pid-file")
def test_the_pid_is_written_to_a_file(made: Made, verb: str, directory: Path):
    made(FOREVER, "--pid-file", directory / "pid").ok()
    assert (directory / "pid").read_text() == str(made.pid())


@covers("{verb} --pidfd-socket")
def test_a_pidfd_is_sent_to_a_socket(made: Made, verb: str, directory: Path):
    with listening(directory / "socket") as take:
        made(FOREVER, "--pidfd-socket", directory / "socket").ok()
        pidfd = take()
    info = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    os.close(pidfd)
    assert f"Pid:\t{made.pid()}\n" in info


@covers("{verb} --console-socket")
def test_the_terminal_is_sent_to_a_socket(made: Made, verb: str, directory: Path):
    flags = ["--tty"] if verb == "exec" else []
    with listening(directory / "socket") as take:
        script = ["sh", "-c", "tty; exec sleep 1000"]
        made(
            script, "--console-socket", directory / "socket", *flags, change={"process": {"terminal": verb != "exec"}}
        ).ok()
        master = take()
    seen = b""
    while not seen.endswith(b"\n"):
        seen += os.read(master, 100)
    os.close(master)
    assert seen == b"/dev/pts/0\r\n"


@covers("{verb} --preserve-fds")
def test_fds_are_passed_on(made: Made, verb: str, directory: Path):
    (directory / "passed").touch()
    # numbers from 3 on are what the caller has to give
    with Numbered(directory / "passed", 3) as fds:
        made(FOREVER, "--preserve-fds", "1", pass_fds=fds).ok()
    links = {fd: os.readlink(f"/proc/{made.pid()}/fd/{fd}") for fd in os.listdir(f"/proc/{made.pid()}/fd")}
    assert links["3"] == str(directory / "passed")
    assert set(links) == {"0", "1", "2", "3"}


class Numbered:
    """An open file under a number of choice, whatever this process has there meanwhile kept aside.

    Args:
        path: the file.
        number: its fd.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.aside = -1

    def __enter__(self) -> tuple[int, ...]:
        try:
            self.aside = fcntl.fcntl(self.number, fcntl.F_DUPFD_CLOEXEC, 100)
        except OSError:
            pass
        opened = os.open(self.path, os.O_RDWR)
        if opened != self.number:
            os.dup2(opened, self.number)
            os.close(opened)
        return (self.number,)

    def __exit__(self, *_: object) -> None:
        if self.aside >= 0:
            os.dup2(self.aside, self.number, inheritable=False)
            os.close(self.aside)
        else:
            os.close(self.number)


@covers("{making} --bundle")
@pytest.mark.parametrize("making", MAKING)
def test_the_bundle_is_where_it_is_said_to_be(inside: Inside, container_id: str, making: str):
    path = inside.bundle(changed({"annotations": {"which": "this"}}), args=FOREVER)
    flags = ["--detach"] if making == "run" else []
    inside.ctrun(making, *flags, "--bundle", path, container_id, cwd="/").ok()
    state = inside.ctrun.state(container_id)
    assert (state["bundle"], state["annotations"]) == (str(path), {"which": "this"})
    inside.ctrun("delete", "--force", container_id).ok()


@covers("{making} --no-pivot")
@pytest.mark.parametrize("making", MAKING)
@pytest.mark.parametrize("pivots", [True, False])
@pytest.mark.needs_command("strace")
@pytest.mark.needs_direct
def test_the_root_is_changed_with_or_without_pivot_root(
    inside: Inside, container_id: str, making: str, pivots: bool, directory: Path
):
    path = inside.bundle(args=FOREVER)
    flags = [*(["--detach"] if making == "run" else []), *([] if pivots else ["--no-pivot"])]
    trace = directory / "trace"
    argv = ["strace", "-f", "-qq", "-o", trace, "-e", "trace=pivot_root"]
    # the tracer stays as long as the container
    with subprocess.Popen([*argv, inside.ctrun.path, making, *flags, "-b", path, container_id]) as process:
        until("it is made", lambda: inside.ctrun.status(container_id) in ("created", "running"))
        inside.ctrun("delete", "--force", container_id).ok()
        process.wait(30)
    assert ("pivot_root(" in trace.read_text()) is pivots


@covers("{making} --no-pivot")
@pytest.mark.parametrize("making", MAKING)
def test_without_pivot_root_nothing_else_of_the_host_is_seen(inside: Inside, container_id: str, making: str):
    path = inside.bundle(args=FOREVER)
    flags = ["--detach"] if making == "run" else []
    inside.ctrun(making, *flags, "--no-pivot", "-b", path, container_id).ok()
    if making == "create":
        inside.ctrun("start", container_id).ok()
    assert sorted(os.listdir(path / "rootfs")) == inside.ctrun("exec", container_id, "ls", "/").lines
    inside.ctrun("delete", "--force", container_id).ok()


@covers("{making} --no-new-keyring")
@pytest.mark.parametrize("making", MAKING)
@pytest.mark.parametrize("new", [True, False])
def test_the_session_keyring_is_new_or_the_caller_s(
    inside: Inside, probe: Path, container_id: str, making: str, new: bool
):
    script = "probe | grep keyring >/tmp/seen; exec sleep 1000"
    path = inside.bundle(changed({"root": {"readonly": False}}), args=["sh", "-c", script])
    flags = [*(["--detach"] if making == "run" else []), *([] if new else ["--no-new-keyring"])]
    inside.ctrun(making, *flags, "-b", path, container_id).ok()
    if making == "create":
        inside.ctrun("start", container_id).ok()
    file = path / "rootfs/tmp/seen"
    seen = until("the keyring is told", lambda: file.read_text() if file.exists() else "").split(";")[-1].strip()
    own = parse_probe(run(probe).text)["keyring"].split(";")[-1]
    assert seen == (f"_ses.{container_id}" if new else own)
    inside.ctrun("delete", "--force", container_id).ok()


@covers("verb run", "run --detach", "verb delete", "delete --force")
def test_run_waits_or_not(inside: Inside, container_id: str):
    path = inside.bundle(args=["sh", "-c", "exit 3"])
    assert inside.ctrun("run", "-b", path, container_id).code == 3
    path = inside.bundle(args=FOREVER)
    inside.ctrun("run", "--detach", "-b", path, container_id).ok()
    assert inside.ctrun.status(container_id) == "running"
    assert inside.ctrun("delete", container_id).code == 1
    inside.ctrun("delete", "--force", container_id).ok()
    assert inside.ctrun.status(container_id) == ""


@covers("run --keep")
@pytest.mark.parametrize(("flags", "status"), [(["--keep"], "stopped"), ([], "")])
def test_run_keeps_the_container_when_told(inside: Inside, container_id: str, flags: list[str], status: str):
    inside.ctrun("run", *flags, "-b", inside.bundle(), container_id).ok()
    assert inside.ctrun.status(container_id) == status
    inside.ctrun("delete", "--force", container_id).ok()


@covers("run --no-subreaper")
@pytest.mark.parametrize(("flags", "adopts"), [([], True), (["--no-subreaper"], False)])
def test_run_adopts_orphans_unless_told_not_to(inside: Inside, container_id: str, flags: list[str], adopts: bool):
    def share_pids(config: Any) -> None:
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]

    # the middle shell ends, and the last one is an orphan
    script = "(sh -c 'echo orphan; exec sleep 1000' &) & wait; read line"
    path = inside.bundle(share_pids, args=["sh", "-c", script])
    argv = [inside.ctrun.path, "run", *flags, "-b", path, container_id]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "orphan\n"
        pids = json.loads(inside.ctrun("ps", "-f", "json", container_id).text)
        orphan = next(pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        adopted = until_orphan(orphan, inside.ctrun.state(container_id)["pid"]) == process.pid
        inside.ctrun("kill", "--all", container_id, "KILL").ok()
        process.communicate(timeout=30)
    assert adopted is adopts
    inside.ctrun("delete", "--force", container_id)


def until_orphan(pid: int, init: int) -> int:
    """The new parent of a process whose parent has ended."""

    def parent() -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    return until("it is an orphan", lambda: found if (found := parent()) != init and is_no_shell(found) else 0)


def is_no_shell(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() != "sh\n"


# -- exec alone


@covers("verb exec", "exec --cwd", "exec --env", "exec --user", "exec --additional-gids")
def test_exec_sets_directory_environment_and_ids(inside: Inside):
    script = "pwd; echo $A $B; id -u; id -g; id -G"
    flags = (
        "--cwd",
        "/etc",
        "--env",
        "A=1",
        "--env",
        "B=two words",
        "--user",
        "7:8",
        "--additional-gids",
        "9",
        "--additional-gids",
        "10",
    )
    with inside.running() as container:
        plain = container.exec("sh", "-c", script)
        seen = container.exec("sh", "-c", script, flags=flags)
    assert plain.lines == ["/", "", "0", "0", "0"]
    assert seen.lines == ["/etc", "1 two words", "7", "8", "8 9 10"]


@covers("exec --tty")
@pytest.mark.parametrize(("flags", "seen"), [(["--tty"], "/dev/pts/0"), ([], "not a tty")])
def test_exec_has_a_terminal_when_asked_for(inside: Inside, flags: list[str], seen: str):
    with inside.running() as container:
        argv = (inside.ctrun.path, "exec", *flags, container.name, "tty")
        with Terminal(*argv) as screen:
            screen.wait()
    assert screen.seen.split("\r")[0] == seen


@covers("exec --process")
def test_exec_takes_the_whole_process_from_a_file(inside: Inside, directory: Path):
    process = {
        "args": ["probe"],
        "cwd": "/tmp",
        "env": ["PATH=/bin"],
        "user": {"uid": 5, "gid": 6, "umask": 0o77, "additionalGids": [7]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 40, "hard": 50}],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
    }
    (directory / "process.json").write_text(json.dumps(process))
    with inside.running() as container:
        found = parse_probe(container.exec(flags=("--process", directory / "process.json")).text)
    seen = [found[key] for key in ("uid", "gid", "umask", "groups", "rlimit7", "policy", "nice", "ioprio")]
    assert seen == ["5", "6", "0077", "7", "40 50", "3", "3", str(2 << 13 | 6)]


@covers("exec --detach")
def test_exec_returns_at_once_when_told(inside: Inside, directory: Path):
    with inside.running() as container:
        container.exec(*FOREVER, flags=("--detach",)).ok()
        assert len(json.loads(inside.ctrun("ps", "-f", "json", container.name).text)) == 2


@covers("exec --no-new-privs")
@pytest.mark.parametrize(("flags", "seen"), [((), "0"), (("--no-new-privs",), "1"), (("--no-new-privs=false",), "0")])
def test_exec_may_give_up_new_privileges(inside: Inside, flags: tuple[str, ...], seen: str):
    with inside.running(change={"process": {"noNewPrivileges": False}}) as container:
        assert container.exec("grep", "NoNewPrivs", "/proc/self/status", flags=flags).text.split()[1] == seen


@covers("exec --cap")
def test_exec_adds_capabilities(inside: Inside):
    def sets(result: Result) -> dict[str, int]:
        return {line.split(":")[0]: int(line.split()[1], 16) for line in result.lines}

    names = ["CAP_KILL"]
    change = {"process": {"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names)}}
    with inside.running(change=change) as container:
        plain = sets(container.exec("grep", "^Cap", "/proc/self/status"))
        added = sets(
            container.exec("grep", "^Cap", "/proc/self/status", flags=("--cap", "CAP_NET_RAW", "--cap", "CAP_CHOWN"))
        )
    assert plain == {"CapInh": 0, "CapPrm": 1 << 5, "CapEff": 1 << 5, "CapBnd": 1 << 5, "CapAmb": 0}
    more = 1 << 5 | 1 << 13 | 1
    assert added == {"CapInh": 0, "CapPrm": more, "CapEff": more, "CapBnd": more, "CapAmb": 0}


@covers("exec --process-label")
@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="needs a kernel without SELinux")
def test_exec_refuses_a_label_where_there_is_no_selinux(inside: Inside):
    with inside.running() as container:
        result = container.exec("true", flags=("--process-label", "system_u:system_r:container_t:s0"))
    assert (result.code, "selinux" in result.err) == (255, True)


@covers("exec --cgroup")
@pytest.mark.needs_cgroup_v1
def test_exec_puts_the_process_into_a_cgroup_below(inside: Inside):
    with inside.running() as container:
        below = container.cgroup("pids") / "below"
        below.mkdir()
        container.exec(*FOREVER, flags=("--detach", "--cgroup", "pids:below")).ok()
        assert len((below / "cgroup.procs").read_text().split()) == 1
        missing = container.exec("true", flags=("--cgroup", "pids:nosuch"))
    assert missing.code == 255


@covers("exec --ignore-paused", "verb pause", "verb resume")
def test_exec_into_a_paused_container_waits_for_resume(inside: Inside):
    with inside.running() as container:
        inside.ctrun("pause", container.name).ok()
        assert container.exec("true").code == 255
        argv = [inside.ctrun.path, "exec", "--ignore-paused", container.name, "echo", "done"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            count = until(
                "it is there", lambda: len(json.loads(inside.ctrun("ps", "-f", "json", container.name).text)) == 2
            )
            assert (count, process.poll()) == (True, None)
            inside.ctrun("resume", container.name).ok()
            assert process.communicate(timeout=30)[0] == "done\n"


# -- the others


@covers("spec --bundle", "verb spec")
def test_spec_writes_a_configuration_that_runs(inside: Inside, directory: Path, container_id: str):
    inside.ctrun("spec", "--bundle", directory).ok()
    config = json.loads((directory / "config.json").read_text())
    path = inside.bundle()
    config["process"].update(terminal=False, args=["hostname"])
    (path / "config.json").write_text(json.dumps(config))
    assert inside.ctrun("run", "-b", path, container_id).text == config["hostname"]


@covers("spec --rootless")
def test_spec_for_rootless_containers_maps_the_caller(inside: Inside, directory: Path):
    inside.ctrun("spec", "--rootless", "-b", directory).ok()
    linux = json.loads((directory / "config.json").read_text())["linux"]
    assert {"type": "user"} in linux["namespaces"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert "resources" not in linux


@covers("global --root", "verb state", "verb start", "verb create")
def test_containers_are_those_of_their_root(inside: Inside, directory: Path, container_id: str):
    path = inside.bundle(args=FOREVER)
    other = Runtime(inside.ctrun.path, directory / "other-root")
    other("create", "-b", path, container_id).ok()
    assert (directory / "other-root" / container_id / "state.json").exists()
    assert inside.ctrun("state", container_id).code == 1
    assert other.status(container_id) == "created"
    other("start", container_id).ok()
    assert other.status(container_id) == "running"
    other("delete", "--force", container_id).ok()


@covers("global --debug", "global --log", "global --log-format")
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_has_debug_lines_when_asked_for(inside: Inside, directory: Path, form: str):
    path = inside.bundle()
    for debug, file in ((["--debug"], "with"), ([], "without")):
        flags = (*debug, "--log", directory / file, "--log-format", form)
        assert inside.ctrun(*flags, "run", "-b", path, inside.new_container_id()).ok().err == ""
    lines = (directory / "with").read_text().splitlines()
    assert lines
    if form == "json":
        assert {json.loads(line)["level"] for line in lines} == {"debug"}
    else:
        assert all(re.match(r'time="[^"]+" level=debug msg=', line) for line in lines)
    assert (directory / "without").read_text() == ""


@covers("global --criu")
def test_the_path_of_criu_is_taken_as_by_runc_before_checkpoints_come(inside: Inside, container_id: str):
    inside.ctrun("--criu", "/no/such/criu", "run", "-b", inside.bundle(), container_id).ok()
