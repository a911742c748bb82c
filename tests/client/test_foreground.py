"""The client in the foreground for a process: signals, terminal, orphans, its end, and who deletes the container."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctr_common.errors import ContainerNotFound, StateError
from ctr_common.kernel import _kernel
from ctr_common.wire import Wire
from ctr_supervisor.process import console
from tests.client.fake import LIMIT, Client, Supervisor, busybox, receive
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_busybox]


class Attended:
    """A process that a client attends, and what the supervisor has to do with it.

    Args:
        wire: after the command.
        script: what its shell does; it starts when the client is told to attend.
        fields: of `attend`.
        console: master of its terminal.
        slave: the terminal itself.
    """

    def __init__(
        self,
        wire: Wire,
        script: str,
        console: int = -1,
        slave: str = "",
        subreaper: bool = True,
        **fields: object,
    ) -> None:
        self.wire = wire
        self.ours, theirs = _kernel.socketpair()
        # the terminal becomes its stdio and its controlling one
        words = ["setsid", "-c", "sh", "-c", script] if slave else ["sh", "-c", script]
        waiting = ["sh", "-c", f'read line <&3; exec "$@" {f"<{slave} >{slave} 2>&1" if slave else ""}', "sh", *words]
        executable = os.open(busybox(), os.O_RDONLY)
        wire.send(
            "spawn",
            {"executable": executable, "socket": theirs},
            argv=waiting,
            env=["PATH=" + os.environ["PATH"]],
            preserve_fds=0,
            foreground=True,
            subreaper=subreaper,
        )
        os.close(theirs)
        os.close(executable)
        with receive(wire, "spawned") as spawned:
            self.pid: int = spawned.body["pid"]
        self.body = {"pid": self.pid, "id": "", "root": "", "finish": False, **fields}
        self.console = console

    def attend(self) -> Attended:
        """Has the client attend it, and lets it go on."""
        fds = {"console": self.console} if self.console >= 0 else None
        self.wire.send("attend", fds, **self.body)
        os.close(self.ours)
        return self

    def ended(self) -> int:
        """The status that the client tells."""
        with receive(self.wire, "ended") as message:
            status: int = message.body["status"]
        return status


@pytest.fixture
def attended(start: Callable[..., Client], supervisor: Supervisor) -> Callable[..., tuple[Client, Attended]]:
    """A client that attends a shell with a script."""

    def make(script: str, *arguments: str | Path, **fields: object) -> tuple[Client, Attended]:
        client = start(*(arguments or ("run", "x")))
        wire, _ = supervisor.serve()
        return client, Attended(wire, script, **fields).attend()

    return make


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)])
def test_the_status_is_told_and_the_supervisors_answer_is_the_clients_end(
    attended: Callable[..., tuple[Client, Attended]], script: str, status: int
):
    client, process = attended(script)
    assert process.ended() == status
    process.wire.send("output", None, fd=2, data=b"late words")
    process.wire.send("exit", None, status=9)
    assert client.end() == (9, "", "late words")


@pytest.mark.parametrize("script", ["exit 42", "sleep 0.2; exit 42"])
def test_a_supervisor_that_goes_away_meanwhile_changes_nothing(
    attended: Callable[..., tuple[Client, Attended]], script: str
):
    client, process = attended(script)
    process.wire.close()
    assert client.end() == (42, "", "")


def test_output_comes_through_while_the_process_runs(attended: Callable[..., tuple[Client, Attended]]):
    client, process = attended("read line <&3; exit 1", "exec", "x")
    process.wire.send("output", None, fd=1, data=b"a poststart hook's")
    assert process.ended() == 1
    process.wire.send("exit", None, status=1)
    assert client.end() == (1, "a poststart hook's", "")


@pytest.mark.parametrize("message", ["nosuch", "exit", "spawn"])
def test_what_makes_no_sense_while_the_process_runs_ends_the_connection_only(
    attended: Callable[..., tuple[Client, Attended]], message: str, directory: Path
):
    client, process = attended(f"until [ -e {directory}/go ]; do sleep 0.01; done; exit 3")
    process.wire.send(message, None, status=1)
    assert process.wire.receive(LIMIT) is None
    (directory / "go").touch()
    assert client.end()[0] == 3


def test_a_process_that_is_no_child_of_the_client_is_not_attended(start: Callable[..., Client], supervisor: Supervisor):
    client = start("run", "x")
    wire, _ = supervisor.serve()
    wire.send("attend", None, pid=os.getpid(), id="", root="", finish=False)
    with receive(wire, "ended") as message:
        assert message.body["status"] == 1
    wire.send("exit", None, status=1)
    code, _, err = client.end()
    assert code == 1
    assert f"waiting for the container process {os.getpid()}: no child process" in err


# -- signals

TRAPS = "; ".join(
    f"trap 'echo {name}' {name}" for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "TSTP", "WINCH", "CONT")
)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "TSTP", "WINCH", "CONT"])
def test_signals_are_the_processs(attended: Callable[..., tuple[Client, Attended]], name: str, directory: Path):
    ready, done = directory / "ready", directory / "done"
    client, process = attended(f"{TRAPS}; touch {ready}; until [ -e {done} ]; do sleep 0.01; done")
    until("the traps are set", ready.exists)
    os.kill(client.pid, getattr(signal, f"SIG{name}"))
    # the same signal to the process comes after it
    received = client.process.stdout
    assert received is not None
    assert received.readline().decode() == f"{name}\n"
    done.touch()
    assert process.ended() == 0
    process.wire.send("exit", None, status=0)
    assert client.end()[0] == 0


def test_signals_that_come_early_are_kept_for_the_process(start: Callable[..., Client], supervisor: Supervisor):
    client = start("run", "x")
    wire, _ = supervisor.serve()
    process = Attended(wire, "sleep 60")
    os.kill(client.pid, signal.SIGTERM)
    os.kill(client.pid, signal.SIGRTMIN)
    process.attend()
    assert process.ended() == 128 + signal.SIGTERM
    wire.send("exit", None, status=143)
    assert client.end()[0] == 143


@pytest.mark.parametrize("name", ["PIPE", "URG", "CHLD"])
def test_some_signals_are_the_clients_own(attended: Callable[..., tuple[Client, Attended]], name: str, directory: Path):
    done = directory / "done"
    script = f"trap 'exit 77' {name}; echo ready; until [ -e {done} ]; do sleep 0.01; done; trap - {name}; exit 0"
    # a shell gets CHLD of its own
    client, process = attended(script if name != "CHLD" else f"echo ready; read line <{done}; exit 0")
    if name == "CHLD":
        os.mkfifo(done)
    out = client.process.stdout
    assert out is not None
    assert out.readline() == b"ready\n"
    os.kill(client.pid, getattr(signal, f"SIG{name}"))
    done.write_text("\n")
    assert process.ended() == 0
    process.wire.send("exit", None, status=0)
    assert client.end()[0] == 0


# -- orphans


def test_orphans_are_adopted_and_reaped(attended: Callable[..., tuple[Client, Attended]], directory: Path):
    script = (
        f"(sh -c 'until [ -e {directory}/go ]; do sleep 0.01; done; exit 5' & echo $! >{directory}/pid); "
        f"until [ -e {directory}/end ]; do sleep 0.01; done"
    )
    client, process = attended(script)
    orphan = int(until("the orphan", lambda: (directory / "pid").exists() and (directory / "pid").read_text()))
    until("it is adopted", lambda: f"PPid:\t{client.pid}\n" in Path(f"/proc/{orphan}/status").read_text())
    (directory / "go").touch()
    until("it is reaped", lambda: not Path(f"/proc/{orphan}").exists())
    (directory / "end").touch()
    assert process.ended() == 0
    process.wire.send("exit", None, status=0)
    assert client.end()[0] == 0


def test_orphans_are_left_to_others_where_that_is_asked_for(
    start: Callable[..., Client], supervisor: Supervisor, directory: Path
):
    client = start("run", "x")
    wire, _ = supervisor.serve()
    script = f"(sleep 60 & echo $! >{directory}/pid); until [ -e {directory}/end ]; do sleep 0.01; done"
    process = Attended(wire, script, subreaper=False).attend()
    orphan = int(until("the orphan", lambda: (directory / "pid").exists() and (directory / "pid").read_text()))
    parent = until("a new parent", lambda: parent_of(orphan) != process.pid and parent_of(orphan))
    os.kill(orphan, signal.SIGKILL)
    assert parent != client.pid
    (directory / "end").touch()
    assert process.ended() == 0
    wire.send("exit", None, status=0)
    assert client.end()[0] == 0


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0])


# -- the container is deleted


@pytest.fixture
def container(directory: Path) -> Callable[[int], dict[str, object]]:
    """Fields of `attend` for a container to delete, whose state names a process."""

    def make(pid: int = 0) -> dict[str, object]:
        (directory / "root/box").mkdir(parents=True)
        if pid:
            (directory / "root/box/state.json").write_text(json.dumps({"id": "box", "init_process_pid": pid, "x": 1}))
        return {"id": "box", "root": str(directory / "root"), "finish": True}

    return make


def test_another_supervisor_deletes_what_the_first_one_left(
    attended: Callable[..., tuple[Client, Attended]],
    supervisor: Supervisor,
    container: Callable[..., dict[str, object]],
):
    fields = container()
    client, process = attended("exit 42", **fields)
    process.wire.close()
    wire = supervisor.greet()
    with receive(wire, "finish") as message:
        assert {name: message.body[name] for name in ("id", "root", "pid")} == {
            "id": "box",
            "root": fields["root"],
            "pid": process.pid,
        }
    wire.send("exit", None, status=0)
    assert client.end() == (42, "", "")


def test_a_job_that_ends_before_it_answers_is_the_same(
    attended: Callable[..., tuple[Client, Attended]],
    supervisor: Supervisor,
    container: Callable[..., dict[str, object]],
):
    client, process = attended("exit 42", **container())
    process.ended()
    process.wire.close()
    wire = supervisor.greet()
    receive(wire, "finish").close()
    wire.send_error(ContainerNotFound("container does not exist"))
    assert client.end() == (42, "", "")


def test_a_delete_that_fails_is_an_error(
    attended: Callable[..., tuple[Client, Attended]],
    supervisor: Supervisor,
    container: Callable[..., dict[str, object]],
):
    client, process = attended("exit 42", **container())
    process.wire.close()
    wire = supervisor.greet()
    receive(wire, "finish").close()
    wire.send_error(StateError("state.json is unreadable"))
    code, _, err = client.end()
    assert code == 1
    assert "state.json is unreadable" in err


@pytest.mark.parametrize("supervisor_is", ["gone", "gone in the middle", "stopped"])
def test_where_nobody_else_deletes_it_the_direct_program_does(
    attended: Callable[..., tuple[Client, Attended]],
    supervisor: Supervisor,
    container: Callable[..., dict[str, object]],
    supervisor_is: str,
):
    fields = container()
    client, process = attended("exit 42", **fields)
    if supervisor_is == "gone":
        supervisor.listener.close()
    process.wire.close()
    if supervisor_is == "gone in the middle":
        wire = supervisor.greet()
        receive(wire, "finish").close()
        wire.close()
    elif supervisor_is == "stopped":
        supervisor.accept()
    code, out, err = client.end()
    # the stand-in for the direct program ends with 7, so the delete has failed
    assert (code, err) == (7, "")
    assert out == f"direct:--root {fields['root']} delete --force -- box\n"


def test_another_container_of_the_same_name_is_not_deleted(
    attended: Callable[..., tuple[Client, Attended]],
    supervisor: Supervisor,
    container: Callable[..., dict[str, object]],
):
    client, process = attended("exit 42", **container(pid=1))
    supervisor.listener.close()
    process.wire.close()
    assert client.end() == (42, "", "")


# -- the terminal


class Box:
    """A client on a terminal, whose process has a terminal of its own."""

    def __init__(self, binary: Path, supervisor: Supervisor, script: str, **fields: object) -> None:
        self.terminal = Terminal(
            binary,
            "run",
            "x",
            rows=30,
            columns=90,
            env={"CTRUN_SUPERVISOR": str(supervisor.path), "PATH": os.environ["PATH"]},
        )
        self.wire, _ = supervisor.serve()
        self.before = termios.tcgetattr(self.terminal.master)
        master, slave = pty.openpty()
        console.leave_line_ends(master)  # as the engine does
        self.process = Attended(self.wire, script, console=master, slave=os.ttyname(slave), **fields)
        self.process.attend()
        self.slave = slave
        os.close(master)

    def finish(self) -> None:
        """Ends the dialogue."""
        os.close(self.slave)
        self.wire.send("exit", None, status=0)
        assert self.terminal.wait() == 0


@pytest.fixture
def box(binary: Path, supervisor: Supervisor) -> Iterator[Callable[..., Box]]:
    made: list[Box] = []

    def make(script: str, **fields: object) -> Box:
        made.append(Box(binary, supervisor, script, **fields))
        return made[-1]

    yield make
    for each in made:
        each.terminal.__exit__(None, None, None)


def test_what_is_typed_and_what_is_shown_goes_through(box: Callable[..., Box]):
    made = box('echo "in a box"; while read line; do echo "got $line"; [ "$line" = end ] && exit 6; done')
    made.terminal.expect("in a box")
    made.terminal.type("hello\n").expect("got hello")
    made.terminal.type("end\n").expect("got end")
    assert made.process.ended() == 6
    made.finish()


def test_the_users_terminal_is_raw_meanwhile_and_as_before_afterwards(box: Callable[..., Box]):
    made = box("echo ready; read line; exit 0")
    made.terminal.expect("ready")
    assert not termios.tcgetattr(made.terminal.master)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    made.terminal.type("\n")
    assert made.process.ended() == 0
    assert termios.tcgetattr(made.terminal.master) == made.before
    made.finish()


def test_the_users_terminal_is_given_back_when_the_supervisor_is_gone(box: Callable[..., Box]):
    made = box("echo ready; read line; exit 3")
    made.terminal.expect("ready")
    made.wire.close()
    made.terminal.type("\n")
    assert made.terminal.wait() == 3
    assert termios.tcgetattr(made.terminal.master) == made.before
    os.close(made.slave)


def test_keys_that_make_signals_are_the_containers(box: Callable[..., Box]):
    made = box("trap 'echo interrupted; exit 8' INT; echo ready; while :; do sleep 0.01; done")
    made.terminal.expect("ready")
    made.terminal.type("\x03").expect("interrupted")
    assert made.process.ended() == 8
    made.finish()


def test_the_container_has_the_users_window_and_learns_when_it_changes(box: Callable[..., Box]):
    made = box("trap 'stty size' WINCH; stty size; while ! read -t 1 line; do :; done; exit 0")
    made.terminal.expect("30 90")
    made.terminal.resize(40, 100)
    made.terminal.expect("40 100")
    made.terminal.type("\n")
    assert made.process.ended() == 0
    made.finish()


def test_the_last_words_are_all_shown(box: Callable[..., Box]):
    made = box("seq 20000; exit 0")
    made.terminal.expect("20000\r\n")
    assert made.process.ended() == 0
    made.finish()
    assert made.terminal.seen.split()[-20000:] == [str(number) for number in range(1, 20001)]


def test_much_that_is_typed_at_once_arrives(box: Callable[..., Box]):
    made = box("stty raw -echo; echo ready; dd bs=1 count=300000 2>/dev/null | wc -c; exit 0")
    made.terminal.expect("ready")
    fcntl.fcntl(made.terminal.master, fcntl.F_SETFL, 0)
    for _ in range(300):
        os.write(made.terminal.master, b"x" * 1000)
    made.terminal.expect("300000")
    assert made.process.ended() == 0
    made.finish()


def test_a_terminal_of_a_container_without_one_of_the_user(start: Callable[..., Client], supervisor: Supervisor):
    client = start("run", "x")
    wire, _ = supervisor.serve()
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
    process = Attended(wire, "stty size; exit 0", console=master, slave=os.ttyname(slave)).attend()
    os.close(master)
    assert process.ended() == 0
    wire.send("exit", None, status=0)
    assert client.end() == (0, "11 22\r\n", "")
    os.close(slave)
