"""Clients of the supervisor that go wrong: each is answered or cut off, and nothing of it stays."""

from __future__ import annotations

import array
import fcntl
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from ctr_common.errors import CtrError
from ctr_common.wire import INLINE_MAX, encode
from tests.support.bundles import Bundles
from tests.support.slowness import SLOWNESS
from tests.support.supervised import Client, Supervisor
from tests.support.waiting import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.needs_busybox]

HELLO = encode({"type": "hello", "version": 1, "client": "bad"})
F_ADD_SEALS = 1033
ALL_SEALS = 0xF


@pytest.fixture(scope="module")
def supervisor(run_directory: Path) -> Iterator[Supervisor]:
    """One for all: what a test leaves behind shows in the next ones."""
    directory = run_directory / "bad-clients"
    directory.mkdir()
    made = Supervisor(directory).start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def unharmed(supervisor: Supervisor) -> Iterator[None]:
    """The supervisor answers as before, and has let go of the client."""
    with supervisor.client() as client:
        client.ask("ping")
    until("clients are gone", lambda: clients(supervisor) == 1)
    before = supervisor.fds()
    yield
    until("clients are gone", lambda: clients(supervisor) == 1)
    until("their fds are closed", lambda: supervisor.fds() <= before)


def clients(supervisor: Supervisor) -> int:
    with supervisor.client() as client:
        count: int = client.ask("status")["clients"]
        return count


def connect(supervisor: Supervisor) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.settimeout(30 * SLOWNESS)
    made.connect(str(supervisor.socket))
    return made


def send(to: socket.socket, data: bytes, fds: list[int] | None = None) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    to.sendmsg([data], ancillary)


def last_words(of: socket.socket) -> list[dict[str, object]]:
    """What the supervisor says until it closes the connection."""
    said = []
    while True:
        try:
            data = of.recv(1 << 20)
        except ConnectionResetError:
            return said
        if not data:
            return said
        said.append(msgpack.unpackb(data))


def memfd(data: bytes, seals: int = ALL_SEALS) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


GARBAGE = {
    "one byte": b"\xff",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "a truncated map": encode({"type": "ping", "padding": "x" * 100})[:-20],
    "a list": msgpack.packb(["type", "ping"]),
    "no type": msgpack.packb({"typ": "ping"}),
    "a number for a type": msgpack.packb({"type": 7}),
    "keys that are no text": msgpack.packb({"type": "ping", 5: 5}),
    "a map that promises more": b"\xdf\xff\xff\xff\xff",
    "bytes that promise more": b"\x81\xa4type\xc6\xff\xff\xff\xff",
    "a thousand lists in one another": b"\x91" * 60000,
    "two messages in one": encode({"type": "ping"}) * 2,
    "an unknown extension": msgpack.packb({"type": msgpack.ExtType(5, b"x")}),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_is_answered_by_an_error_and_the_end(supervisor: Supervisor, garbage: str, greeted: bool) -> None:
    with connect(supervisor) as bad:
        if greeted:
            send(bad, HELLO)
            bad.recv(65536)
        send(bad, GARBAGE[garbage])
        said = last_words(bad)
    assert [message["type"] for message in said] == ["error"]


def test_random_bytes_do_no_harm(supervisor: Supervisor) -> None:
    dice = random.Random(4)
    for _ in range(500):
        with connect(supervisor) as bad:
            if dice.random() < 0.5:
                send(bad, HELLO)
            send(bad, dice.randbytes(dice.randint(1, 2000)))


def test_a_damaged_message_does_no_harm(supervisor: Supervisor) -> None:
    dice = random.Random(5)
    good = encode({"type": "create", "seq": 1, "id": "x" * 20, "config": {"root": {"path": "/"}, "a": [1, 2, {}]}})
    for _ in range(500):
        damaged = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with connect(supervisor) as bad:
            send(bad, HELLO)
            send(bad, bytes(damaged))
    with supervisor.client() as client:
        assert client.ask("list")["containers"] == []


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, True, 1 << 63])
def test_another_version_is_told_both_versions(supervisor: Supervisor, version: object) -> None:
    with connect(supervisor) as bad:
        send(bad, encode({"type": "hello", "version": version, "client": "old"}))
        (said,) = last_words(bad)
    assert said["type"] == "error"
    assert "version" in str(said["error"])


def test_a_request_before_hello_is_an_error(supervisor: Supervisor) -> None:
    with connect(supervisor) as bad:
        send(bad, encode({"type": "list"}))
        (said,) = last_words(bad)
    assert "expected hello" in str(said["error"])


@pytest.mark.parametrize(
    ("fields", "count"),
    [({}, 1), ({"fds": ["a"]}, 0), ({"fds": ["a"]}, 2), ({"fds": ["a", "a"]}, 2), ({"fds": "a"}, 1), ({"fds": [1]}, 1)],
)
def test_fds_that_are_not_as_announced_are_an_error(supervisor: Supervisor, fields: dict, count: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    with connect(supervisor) as bad:
        send(bad, HELLO)
        bad.recv(65536)
        send(bad, encode({"type": "ping", **fields}), [null] * count)
        said = last_words(bad)
    os.close(null)
    assert [message["type"] for message in said] == ["error"]


def test_fds_that_nobody_asked_for_are_closed(supervisor: Supervisor) -> None:
    before = supervisor.fds()
    null = os.open("/dev/null", os.O_RDONLY)
    with supervisor.client() as client:
        for _ in range(200):
            client.ask("ping", {"a": null, "b": null})
        client.ask("status")
        assert supervisor.fds() <= before + 1
    os.close(null)


def test_the_memory_of_an_indirect_message_must_be_sealed(supervisor: Supervisor) -> None:
    body = encode({"type": "ping"})
    for fd in (memfd(body, 0), memfd(body, 0x2), os.open("/dev/zero", os.O_RDONLY), os.pipe()[0]):
        with connect(supervisor) as bad:
            send(bad, HELLO)
            bad.recv(65536)
            send(bad, encode({"type": "indirect"}), [fd])
            said = last_words(bad)
        os.close(fd)
        assert "sealed" in str(said)


def test_a_message_that_is_too_large_is_an_error(supervisor: Supervisor) -> None:
    fd = memfd(b"")
    os.close(fd)
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 1 << 34)
    fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    with connect(supervisor) as bad:
        send(bad, HELLO)
        bad.recv(65536)
        send(bad, encode({"type": "indirect"}), [fd])
        said = last_words(bad)
    os.close(fd)
    assert [message["type"] for message in said] == ["error"]


def test_a_datagram_beyond_the_limit_is_an_error(supervisor: Supervisor) -> None:
    with connect(supervisor) as bad:
        bad.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        send(bad, HELLO)
        bad.recv(65536)
        send(bad, encode({"type": "ping", "padding": "x" * (INLINE_MAX + 10000)}))
        said = last_words(bad)
    assert [message["type"] for message in said] == ["error"]


def test_an_indirect_message_in_an_indirect_message_ends_somewhere(supervisor: Supervisor) -> None:
    fd = memfd(encode({"type": "indirect"}))
    with connect(supervisor) as bad:
        send(bad, HELLO)
        bad.recv(65536)
        send(bad, encode({"type": "indirect"}), [fd])
        said = bad.recv(65536)
    os.close(fd)
    assert msgpack.unpackb(said)["type"] == "error"


WRONG_FIELDS = [
    {"type": "create", "id": 5},
    {"type": "create", "id": "x", "bundle": "relative"},
    {"type": "create", "id": "x", "bundle": "/nonexistent"},
    {"type": "create", "id": "x"},
    {"type": "create", "id": "x", "config": []},
    {"type": "create", "id": "x", "config": {"process": 5}},
    {"type": "create", "id": "../../etc", "bundle": "/tmp"},
    {"type": "exec", "id": "nobody", "process": {"args": 5}},
    {"type": "exec", "id": "nobody", "process": {"args": ["x"], "cwd": "/", "capabilities": [1]}},
    {"type": "exec", "id": "nobody", "process": {"args": ["x"], "cwd": "/", "user": {"uid": float("nan")}}},
    {"type": "kill", "id": "nobody", "signal": {}},
    {"type": "kill", "id": "nobody", "signal": "NONSENSE"},
    {"type": "update", "id": "nobody", "resources": 5},
    {"type": "update", "id": "nobody", "resources": {"cpu": float("inf")}},
    {"type": "update", "id": "nobody", "resources": {"pids": {"limit": b"x"}}},
    {"type": "wait", "id": "nobody", "pid": "x"},
    {"type": "wait", "id": "nobody", "pid": -1},
    {"type": "state", "id": "\0"},
    {"type": "state", "id": "a" * 100000},
    {"type": "state"},
    {"type": "subscribe", "id": []},
    {"type": "unsubscribe", "to": 12345},
    {"type": "shutdown", "grace": "x"},
    {"type": "command"},
    {"type": "command", "argv": 5, "env": 5},
    {"type": "restore", "id": "x", "bundle": "/tmp"},
    {"type": "checkpoint", "id": "x"},
    {"type": "", "id": ""},
    {"type": "hello"},
]


@pytest.mark.parametrize("fields", WRONG_FIELDS, ids=lambda fields: str(fields)[:40])
def test_a_wrong_field_is_answered_and_the_connection_goes_on(supervisor: Supervisor, fields: dict) -> None:
    with connect(supervisor) as bad:
        send(bad, HELLO)
        bad.recv(65536)
        if len(encode(fields)) > INLINE_MAX:
            fd = memfd(encode({**fields, "seq": 1}))
            send(bad, encode({"type": "indirect"}), [fd])
            os.close(fd)
        else:
            send(bad, encode({**fields, "seq": 1}))
        said = msgpack.unpackb(bad.recv(1 << 20), unicode_errors="surrogateescape")
        assert said["type"] in ("error", "refuse"), said
        if said["type"] == "error":
            assert said["error"].get("message") or said["error"].get("errno")
            assert "internal" not in str(said["error"])
            assert "the job" not in str(said["error"])
        send(bad, encode({"type": "ping", "seq": 2}))
        assert msgpack.unpackb(bad.recv(65536))["seq"] == 2


def test_clients_that_vanish_by_the_thousands_leave_nothing(supervisor: Supervisor) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    command = encode(
        {"type": "command", "argv": ["ctrun", "list"], "env": [], "umask": 0o22, "fds": ["stdin", "stdout", "stderr"]}
    )
    # messages, each with how many fds, or something done to the socket
    ways: list[list[tuple[bytes, int] | Callable[[socket.socket], object]]] = [
        [],
        [(HELLO, 0)],
        [(HELLO, 0), (encode({"type": "subscribe", "seq": 1}), 0)],
        [(HELLO, 0), (encode({"type": "wait", "id": "nobody"}), 0)],
        [(HELLO, 0), (encode({"type": "list", "seq": 1}), 0), lambda bad: bad.recv(10)],
        [(HELLO, 0), (command, 3)],
        [(HELLO, 0), lambda bad: bad.shutdown(socket.SHUT_WR)],
        [(HELLO, 0), lambda bad: bad.shutdown(socket.SHUT_RD)],
        [(encode({"type": "hello", "fds": ["a", "b"]}), 2)],
    ]

    def round_of(count: int) -> None:
        for number in range(count):
            with connect(supervisor) as bad:
                try:
                    for step in ways[number % len(ways)]:
                        if isinstance(step, tuple):
                            send(bad, step[0], [null] * step[1])
                        else:
                            step(bad)
                except (BrokenPipeError, ConnectionResetError):
                    pass
        until("clients are gone", lambda: clients(supervisor) == 1)

    round_of(1000)
    fds, memory = supervisor.fds(), supervisor.memory()
    round_of(4000)
    os.close(null)
    until("their fds are closed", lambda: supervisor.fds() <= fds)
    # Less than a hundred bytes for each, which is noise.
    assert supervisor.memory() - memory < 400_000


def test_a_client_that_vanishes_in_the_middle_of_a_creation_leaves_a_whole_container_or_none(
    supervisor: Supervisor, bundle: Bundles
) -> None:
    def strip(config: dict) -> None:
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] == "/proc"]
        config["linux"] = {"namespaces": [{"type": "pid"}, {"type": "mount"}]}
        del config["hostname"]

    made = str(bundle(strip, args=["sleep", "600"]))
    names = [f"ctrtest-{os.getpid()}-vanish{number}" for number in range(10)]
    for name in names:
        with connect(supervisor) as bad:
            send(bad, HELLO)
            send(bad, encode({"type": "create", "id": name, "bundle": made}))
    with supervisor.client() as client:
        until("jobs are done", lambda: client.ask("status")["jobs"] == 0)
        assert {one["status"] for one in client.ask("list")["containers"]} <= {"created"}
        for name in names:
            client.ask("delete", id=name, force=True)


def test_a_client_that_never_reads_is_let_go_and_holds_up_nobody(supervisor: Supervisor) -> None:
    with connect(supervisor) as bad, supervisor.client() as good:
        send(bad, HELLO)
        bad.settimeout(0.2)
        try:
            for number in range(100_000):
                send(bad, encode({"type": "status", "seq": number}))
        except (TimeoutError, BrokenPipeError, ConnectionResetError, BlockingIOError):
            pass
        good.ask("ping")
        until("it is let go", lambda: clients(supervisor) == 2)


def test_many_requests_at_once_are_all_answered(supervisor: Supervisor) -> None:
    with supervisor.client() as client:
        waiting = set()
        for _ in range(5000):
            waiting.add(client.send("ping"))
            if len(waiting) >= 50:
                with client.receive() as packet:
                    waiting.discard(packet.body["seq"])
        while waiting:
            with client.receive() as packet:
                waiting.discard(packet.body["seq"])


def test_more_clients_than_the_backlog_are_all_served(supervisor: Supervisor) -> None:
    connected: list[Client] = []
    try:
        for _ in range(800):
            connected.append(Client(supervisor.socket))
        for client in connected[::100]:
            client.ask("ping")
    finally:
        for client in connected:
            client.close()


def test_another_user_is_not_served(supervisor: Supervisor) -> None:
    os.chmod(supervisor.socket, 0o666)
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(20); s.connect(sys.argv[1])\n"
        "print(s.recv(65536)); print(s.recv(10))"
    )
    try:
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, supervisor.socket],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60 * SLOWNESS,
            check=False,
        )
    finally:
        os.chmod(supervisor.socket, 0o600)
    assert "may not use this supervisor" in result.stdout, result.stderr
    assert result.stdout.splitlines()[1] in ("b''",)


def test_a_member_of_the_group_by_a_supplementary_group_is_served(directory: Path) -> None:
    os.chmod(directory, 0o755)
    with Supervisor(directory, "--group", "65533").start() as supervisor:
        result = subprocess.run(
            [sys.executable, "-I", "-S", "-c", ASK, supervisor.socket],
            user=65534,
            group=65534,
            extra_groups=[65533],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "capabilities" in result.stdout, result


ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(20); s.connect(sys.argv[1])
s.send(bytes.fromhex("83a474797065a568656c6c6fa776657273696f6e01a6636c69656e74a178")); print(s.recv(65536))
"""


def test_more_clients_than_there_are_fds_do_no_harm(directory: Path) -> None:
    limited = ["prlimit", "--nofile=640:640"]
    with Supervisor(directory).start(wrapper=limited) as supervisor:
        crowd = []
        for _ in range(700):
            crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            crowd[-1].settimeout(0.2)
            try:
                crowd[-1].connect(str(supervisor.socket))
            except BlockingIOError:
                # Those who wait to be taken are as many as may be, too.
                break
        until("the last ones are told of", lambda: "ignoring those who connect" in supervisor.log.read_text())
        for one in crowd:
            one.close()
        with supervisor.client() as client:
            client.ask("ping")


def test_the_socket_is_for_its_owner_alone(supervisor: Supervisor) -> None:
    assert os.stat(supervisor.socket).st_mode & 0o777 == 0o600


def test_a_second_supervisor_leaves_the_first_one_alone(supervisor: Supervisor) -> None:
    result = subprocess.run(
        [str(part) for part in supervisor.argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        check=False,
    )
    assert result.returncode == 1
    assert "another supervisor serves this socket" in result.stderr
    with supervisor.client() as client:
        assert client.ask("status")["pid"] == supervisor.pid


def test_a_socket_that_a_killed_supervisor_left_is_taken_over(directory: Path) -> None:
    made = Supervisor(directory).start()
    made.kill()
    assert made.socket.exists()
    made.start()
    assert made.stop() == 0


def test_errors_say_no_more_than_errors_say(supervisor: Supervisor) -> None:
    with supervisor.client() as client:
        failure = client.failure("exec", id="nobody", process={"args": ["x"], "cwd": "/"})
    assert isinstance(failure, CtrError)
    assert "Traceback" not in str(failure)


@pytest.mark.needs_busybox
def test_a_container_with_an_odd_configuration_is_told_of_as_well_as_can_be(
    supervisor: Supervisor, bundle: Bundles, new_container_id: Callable[[], str]
) -> None:
    """Numbers that JSON can write and msgpack can't, and nesting that not every side can follow."""
    odd, deep = new_container_id(), new_container_id()

    def make_odd(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["sleep", "1000"]
        config["org.example.number"] = 10**30

    def make_deep(config: dict[str, Any]) -> None:
        config["process"]["args"] = ["sleep", "1000"]
        config["org.example.list"] = []
        for _ in range(400):
            config["org.example.list"] = [config["org.example.list"]]

    with supervisor.client() as client:
        client.ask("run", id=odd, bundle=str(bundle(make_odd)))
        client.ask("run", id=deep, bundle=str(bundle(make_deep)))
        assert client.ask("config", id=odd)["config"]["org.example.number"] == 1e30
        assert {one["id"] for one in client.ask("list")["containers"]} == {odd, deep}
        client.send("config", id=deep)
        with client.receive() as packet:
            assert packet.type in ("result", "error"), packet.body
        for name in (odd, deep):
            client.ask("delete", id=name, force=True)
