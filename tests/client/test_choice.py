"""Whether a supervisor is used, which one, and what the direct program is told."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ctr_supervisor.cli import surroundings
from ctr_supervisor.cli.parser import ALONE
from tests.client.fake import Client, Supervisor, busybox
from tests.support.slowness import SLOWNESS
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_cc]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("variable", [None, "", "0"])
def test_without_a_supervisor_it_is_the_direct_program(start: Callable[..., Client], variable: str | None):
    assert start("--root", "/r", "state", "x", supervisor=variable).end() == (7, "direct:--root /r state x\n", "")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["--supervisor=", "list"], "list"),
        (["-supervisor=0", "list"], "list"),
        (["--supervisor=", "--", "list"], "-- list"),
        (["--debug", "--supervisor=", "--log-format=json", "list"], "--debug --log-format=json list"),
        (["--root", "/r", "--supervisor=", "list", "-q"], "--root /r list -q"),
        (["--supervisor=/x", "--supervisor=", "list"], "list"),
        # after the verb, and where another flag has it as its value, it is none of ours
        (["--supervisor=", "exec", "x", "--supervisor"], "exec x --supervisor"),
        (["--supervisor=", "--root", "--supervisor=/x", "list"], "--root --supervisor=/x list"),
        (["--supervisor=", "--unknown", "--supervisor=/x"], "--unknown --supervisor=/x"),
        (["--supervisor=", "--", "--supervisor=/x"], "-- --supervisor=/x"),
        (["--supervisor=", "-"], "-"),
        (["--supervisor=", "--root"], "--root"),
        (["--supervisor="], ""),
    ],
)
def test_the_flag_is_taken_off_the_command_line_where_it_is_one(
    start: Callable[..., Client], given: list[str], left: str
):
    assert start(*given).end() == (7, f"direct:{left}\n", "")


def test_the_flag_names_the_socket(start: Callable[..., Client], supervisor: Supervisor):
    client = start("--debug", f"--supervisor={supervisor.path}", "list", supervisor="/nowhere")
    wire, command = supervisor.serve()
    assert command.texts("argv")[1:] == ["--debug", "list"]
    wire.send("exit", None, status=3)
    assert client.end()[0] == 3


@pytest.mark.parametrize("choice", ["1", "auto", "flag"])
def test_the_usual_socket_is_in_the_run_time_directory(binary: Path, directory: Path, choice: str):
    (directory / "ctrun").mkdir()
    supervisor = Supervisor(directory / "ctrun/supervisor.sock")
    env = {"XDG_RUNTIME_DIR": str(directory)}
    arguments = ["--supervisor", "list"] if choice == "flag" else ["list"]
    # in a user namespace root is like everybody else, and its supervisor is another one than the host's
    enter = ["unshare", "--user", "--map-root-user"] if os.geteuid() == 0 else []
    argv = [*enter, binary, *arguments]
    with Client(argv[0], argv[1:], None if choice == "flag" else choice, env) as client:
        supervisor.serve()[0].send("exit", None, status=4)
        assert client.end()[0] == 4
    supervisor.close()


@pytest.mark.needs_command("strace")
@pytest.mark.needs_root
def test_the_usual_socket_of_root_is_in_run(builds: dict[str, Path], directory: Path):
    trace = directory / "trace"
    argv = ["-o", trace, "-e", "trace=connect", builds["static"] / "ctrun", "--supervisor", "list"]
    with Client(Path("strace"), argv, env={"XDG_RUNTIME_DIR": str(directory)}) as client:
        client.end()
    assert 'sun_path="/run/ctrun/supervisor.sock"' in trace.read_text()


def test_the_flags_are_those_of_the_command_line():
    source = (ROOT / "c/client/options.c").read_text()
    flags = [flag for flag in surroundings.FLAGS if flag.name != "supervisor"]
    for kind, names in (
        ("with_value", [flag.name for flag in flags if flag.kind not in ALONE]),
        ("without_value", [name for flag in flags if flag.kind in ALONE for name in flag.names()] + ["help", "h"]),
    ):
        (line,) = [line for line in source.splitlines() if line.startswith(f"static const char *const {kind}[]")]
        assert json.loads("[" + line.partition("{")[2].partition("}")[0] + "]") == names


def test_it_may_be_called_through_a_link(binary: Path, directory: Path):
    (directory / "link").symlink_to(binary)
    with Client(directory / "link", ["x"]) as client:
        assert client.end() == (7, "direct:x\n", "")


def test_an_installed_one_finds_the_direct_program_in_lib(binary: Path, directory: Path):
    for name in ("bin", "lib/ctrun/bin"):
        (directory / name).mkdir(parents=True)
    shutil.copy2(binary, directory / "bin/ctrun")
    shutil.copy2(binary.with_name("ctrun-direct"), directory / "lib/ctrun/bin")
    with Client(directory / "bin/ctrun", ["x"]) as client:
        assert client.end() == (7, "direct:x\n", "")


def test_a_direct_program_that_is_missing_is_named(binary: Path, directory: Path):
    (directory / "bin").mkdir()
    shutil.copy2(binary, directory / "bin/ctrun")
    with Client(directory / "bin/ctrun", ["x"]) as client:
        code, out, err = client.end()
    assert (code, out) == (1, "")
    assert f"cannot run {directory}/bin/../lib/ctrun/bin/ctrun-direct: no such file or directory" in err


def test_an_interpreter_that_is_missing_is_an_error_of_the_program_that_needs_it(binary: Path, directory: Path):
    shutil.copy2(binary, directory / "ctrun")
    (directory / "ctrun-direct").write_text("#!/nowhere/python\n")
    (directory / "ctrun-direct").chmod(0o755)
    log = directory / "log"
    with Client(directory / "ctrun", ["--log", log, "--log-format", "json", "x"]) as client:
        code, out, err = client.end()
    message = f"cannot run {directory}/ctrun-direct: no such file or directory"
    assert (code, out, err) == (1, "", message + "\n")
    line = json.loads(log.read_text())
    assert (line["level"], line["msg"]) == ("error", message)


@pytest.mark.needs_root
@pytest.mark.needs_busybox
def test_without_proc_it_is_found_by_the_path_that_was_executed(builds: dict[str, Path], directory: Path):
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy2(builds["static"] / "ctrun", root / "bin/ctrun")
    shutil.copy2(busybox(), root / "bin/sh")
    shutil.copy2(builds["static"] / "ctrun-direct", root / "bin")
    (root / "link").symlink_to("bin/ctrun")
    done = subprocess.run(
        ["chroot", root, "./link", "x"], capture_output=True, text=True, timeout=20 * SLOWNESS, check=False
    )
    assert (done.returncode, done.stdout) == (7, "direct:x\n")


@pytest.mark.parametrize("what", ["nothing", "a file", "nobody listens", "a path that is too long", "a stream"])
def test_where_no_supervisor_is_the_direct_way_is_taken(start: Callable[..., Client], directory: Path, what: str):
    path = directory / ("x" * 120 if what == "a path that is too long" else "other.sock")
    with socket.socket(socket.AF_UNIX) as stream:
        if what == "a file":
            path.touch()
        elif what == "nobody listens":
            Supervisor(path).close()
        elif what == "a stream":
            stream.bind(str(path))
            stream.listen()
        assert start("list", supervisor=path).end() == (7, "direct:list\n", "")


def test_with_debug_it_says_why_it_goes_the_direct_way(start: Callable[..., Client], directory: Path):
    code, out, err = start("--debug", "list", supervisor=directory / "nosuch").end()
    assert (code, out) == (7, "direct:--debug list\n")
    assert "level=debug" in err
    assert "nosuch: no such file or directory, going the direct way" in err


def test_a_supervisor_whose_queue_is_full_is_not_waited_for(binary: Path, directory: Path):
    full = Supervisor(directory / "full.sock", backlog=0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as waiting:
        waiting.connect(str(full.path))
        with Client(binary, ["list"], full.path) as client:
            assert client.end() == (7, "direct:list\n", "")
    full.close()


def test_a_silent_supervisor_is_not_waited_for_and_gets_no_command(
    start: Callable[..., Client], supervisor: Supervisor
):
    client = start("list")
    wire = supervisor.accept()
    assert client.end() == (7, "direct:list\n", "")
    assert wire.expect("hello").type == "hello"
    assert wire.receive() is None


@pytest.mark.needs_root
def test_a_socket_of_another_user_is_not_trusted(binary: Path, directory: Path):
    foreign = directory / "foreign"
    foreign.mkdir()
    foreign.chmod(0o777)
    pid = os.fork()
    if pid == 0:
        os.setuid(12345)
        made = Supervisor(foreign / "s.sock")
        os.open(foreign / "listening", os.O_CREAT | os.O_WRONLY)
        made.listener.accept()[0].recv(10)
        os._exit(0)
    until("the other user listens", (foreign / "listening").exists)
    (foreign / "s.sock").chmod(0o777)
    with Client(binary, ["--debug", "list"], foreign / "s.sock") as client:
        code, out, err = client.end()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert (code, out) == (7, "direct:--debug list\n")
    assert "operation not permitted" in err
