"""What the client starts for the supervisor: which fds, signals and variables it gets, and who reaps it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctr_common.kernel import _kernel
from ctr_common.wire import Wire
from tests.client.fake import LIMIT, Client, Supervisor, busybox, receive
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_busybox]


@pytest.fixture
def executable() -> Iterator[int]:
    fd = os.open(busybox(), os.O_RDONLY)
    yield fd
    os.close(fd)


def spawn(wire: Wire, executable: int, script: str, **fields: object) -> int:
    """Has the client run a shell; returns our end of its socket."""
    ours, theirs = _kernel.socketpair()
    fds = {"executable": executable, "socket": theirs}
    body = {
        "argv": ["sh", "-c", script],
        "env": ["CTR_INIT_SOCKET=3"],
        "preserve_fds": 0,
        "foreground": False,
        "subreaper": False,
        **fields,
    }
    wire.send("spawn", fds, **body)
    os.close(theirs)
    return ours


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_gets_stdio_and_the_socket_and_nothing_else(
    start: Callable[..., Client], supervisor: Supervisor, executable: int
):
    client = start("create", "x")
    wire, _ = supervisor.serve()
    # the listing's own fd is closed again when it is looked for
    ours = spawn(wire, executable, "cd /proc/$$/fd; for i in *; do [ -L $i ] && echo $i $(readlink $i); done")
    receive(wire, "spawned").close()
    _kernel.recvmsg(ours, 1)
    wire.send("exit", None, status=0)
    code, out, _ = client.end()
    assert code == 0
    links = dict(line.split(" ", 1) for line in out.splitlines())
    assert [fd for fd in links if int(fd) < 10] == ["0", "1", "2", "3"]
    assert links["3"].startswith("socket:")
    os.close(ours)


def test_it_gets_the_environment_that_it_is_given_and_none_of_the_clients(
    start: Callable[..., Client], supervisor: Supervisor, executable: int
):
    client = start("create", "x")
    wire, _ = supervisor.serve()
    ours = spawn(wire, executable, "", argv=["env"], env=["CTR_INIT_SOCKET=3", "B"])
    receive(wire, "spawned").close()
    _kernel.recvmsg(ours, 1)
    wire.send("exit", None, status=0)
    assert client.end() == (0, "CTR_INIT_SOCKET=3\nB\n", "")
    os.close(ours)


def test_it_is_a_child_of_the_client_which_tells_its_pid(
    start: Callable[..., Client], supervisor: Supervisor, executable: int
):
    client = start("create", "x")
    wire, _ = supervisor.serve()
    ours = spawn(wire, executable, "read line <&3")
    with receive(wire, "spawned") as spawned:
        assert children(client.pid) == [spawned.body["pid"]]
    os.close(ours)
    wire.send("exit", None, status=0)
    assert client.end()[0] == 0


@pytest.mark.parametrize("count", [1, 3, 40])
def test_fds_to_preserve_are_the_callers(
    binary: Path, supervisor: Supervisor, executable: int, directory: Path, count: int
):
    path = directory / "file"
    path.write_text("")
    # in the client they have the numbers from 3 on
    script = f'i=3; while [ $i -lt {3 + count} ]; do eval "exec $i<{path}"; i=$((i+1)); done; exec "$@"'
    with Client(Path("bash"), ["-c", script, "bash", binary, "run", "x"], supervisor.path) as client:
        wire, _ = supervisor.serve()
        ours = spawn(
            wire, executable, "cd /proc/$$/fd; for i in *; do echo $i $(readlink $i); done", preserve_fds=count
        )
        receive(wire, "spawned").close()
        _kernel.recvmsg(ours, 1)
        wire.send("exit", None, status=0)
        code, out, _ = client.end()
        os.close(ours)
    links = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
    assert code == 0
    assert [links[str(number)] for number in range(3, 3 + count)] == [str(path)] * count
    assert links[str(3 + count)].startswith("socket:")


@pytest.mark.parametrize("count", [1, 600])
def test_an_fd_that_the_caller_did_not_pass_is_not_preserved(
    start: Callable[..., Client], supervisor: Supervisor, executable: int, count: int
):
    client = start("run", "x")
    wire, _ = supervisor.serve()
    ours = spawn(wire, executable, "exit 0", preserve_fds=count)
    with receive(wire, "error") as answer:
        error = answer.error()
    assert type(error).__name__ == "ConfigError"
    assert error.message == "--preserve-fds: file descriptor 3 was not passed by the caller"
    # nobody has the other end any more
    assert _kernel.recvmsg(ours, 1)[0] == b""
    os.close(ours)
    wire.send("exit", None, status=1)
    assert client.end()[0] == 1


def test_what_can_not_be_executed_is_told_with_its_errno(
    start: Callable[..., Client], supervisor: Supervisor, directory: Path
):
    (directory / "text").write_text("no program")
    (directory / "text").chmod(0o755)
    fd = os.open(directory / "text", os.O_RDONLY)
    client = start("run", "x")
    wire, _ = supervisor.serve()
    os.close(spawn(wire, fd, ""))
    with receive(wire, "error") as answer:
        error = answer.error()
    assert (type(error).__name__, error.syscall, error.errno) == ("InitError", "execveat", errno.ENOEXEC)
    assert children(client.pid) == []
    wire.send("exit", None, status=1)
    assert client.end()[0] == 1
    os.close(fd)


@pytest.mark.parametrize("missing", ["argv", "env", "preserve_fds", "executable", "socket", "text"])
def test_a_spawn_that_is_not_complete_is_answered_by_an_error(
    start: Callable[..., Client], supervisor: Supervisor, executable: int, missing: str
):
    client = start("run", "x")
    wire, _ = supervisor.serve()
    body: dict[str, object] = {"argv": ["sh"], "env": [], "preserve_fds": 0}
    fds = {"executable": executable, "socket": 0}
    body.pop(missing, None)
    fds.pop(missing, None)
    if missing == "text":
        body["argv"] = ["a\0b"]
    wire.send("spawn", fds, **body)
    with receive(wire, "error") as answer:
        assert answer.error().message == "spawn is not complete"
    wire.send("exit", None, status=1)
    assert client.end()[0] == 1


def test_signals_are_as_a_program_expects_them(start: Callable[..., Client], supervisor: Supervisor, executable: int):
    def ignore_some() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})

    client = start("run", "x", preexec_fn=ignore_some)
    wire, _ = supervisor.serve()
    # grep, not the shell, which has a mask of its own
    ours = spawn(wire, executable, "", argv=["grep", "^Sig[BI]", "/proc/self/status"], foreground=True)
    receive(wire, "spawned").close()
    _kernel.recvmsg(ours, 1)
    wire.send("exit", None, status=0)
    _, out, _ = client.end()
    assert [int(line.split()[1], 16) for line in out.splitlines()] == [0, 0]
    os.close(ours)


def test_the_direct_way_gets_the_signals_of_the_caller(start: Callable[..., Client], supervisor: Supervisor):
    client = start("x", preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL), env={"DIRECT_STATUS": "0"})
    wire, _ = supervisor.serve()
    status = Path(f"/proc/{client.pid}/status").read_text()
    assert int(status.partition("SigIgn:")[2].split()[0], 16) & 1 << (signal.SIGPIPE - 1)
    wire.send("refuse", None, reason="")
    assert client.end()[0] == 0


def test_a_first_stage_is_reaped_before_the_client_ends(
    start: Callable[..., Client], supervisor: Supervisor, executable: int
):
    # what the client leaves unreaped comes to us
    _kernel.prctl(36, 1)
    try:
        client = start("create", "x")
        wire, _ = supervisor.serve()
        ours = spawn(wire, executable, "read line <&3")
        with receive(wire, "spawned") as spawned:
            pid = spawned.body["pid"]
        wire.send("exit", None, status=0)
        os.close(ours)
        assert client.end()[0] == 0
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
    finally:
        _kernel.prctl(36, 0)


def test_a_child_is_reaped_when_it_is_asked_for(start: Callable[..., Client], supervisor: Supervisor, executable: int):
    client = start("create", "x")
    wire, _ = supervisor.serve()
    ours = spawn(wire, executable, "exit 0")
    with receive(wire, "spawned") as spawned:
        pid = spawned.body["pid"]
    wire.send("reap", None, pid=pid)
    until("the child is reaped", lambda: not children(client.pid))
    wire.send("exit", None, status=0)
    assert client.end()[0] == 0
    os.close(ours)


def test_the_clients_end_is_the_end_of_the_start_up_protocol(
    start: Callable[..., Client], supervisor: Supervisor, executable: int
):
    client = start("create", "x")
    wire, _ = supervisor.serve()
    ours = spawn(wire, executable, "exit 0")
    receive(wire, "spawned").close()
    os.kill(client.pid, signal.SIGKILL)
    assert wire.receive(LIMIT) is None
    assert _kernel.recvmsg(ours, 1)[0] == b""
    os.close(ours)
