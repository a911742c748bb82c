"""Socket activation and notifications, as a service manager sees them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_common.errors import StateError
from ctr_supervisor.service import activation
from ctr_supervisor.service.activation import Manager
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.pool import is_open
from tests.support.forked import in_child, open_fds
from tests.unit.service.conftest import serve_until


def activated(made: socket.socket, *, count: int = 1, pid: int | None = None) -> tuple[str, dict[str, str], bool]:
    """What a child that was started with that socket as fd 3 makes of it: error, environment left, inheritable."""

    def work() -> tuple[str, dict[str, str], bool]:
        os.dup2(made.fileno(), 3, inheritable=True)
        if count > 1:
            os.dup2(made.fileno(), 4, inheritable=True)
        os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(pid or os.getpid()), LISTEN_FDNAMES="x")
        try:
            taken = activation.take_listener()
            result = "none" if taken is None else taken.getsockname()
        except StateError as error:
            result = str(error)
        left = {name: os.environ[name] for name in activation.SOCKET_VARIABLES if name in os.environ}
        return result, left, is_open(3) and os.get_inheritable(3)

    result: list[object] = in_child(work)
    return tuple(result)  # type: ignore[return-value]


@pytest.fixture
def listening(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(directory / "s"))
        made.listen()
        yield made


def test_a_listening_socket_is_taken(listening: socket.socket) -> None:
    assert activated(listening) == (listening.getsockname(), {}, False)


def test_sockets_for_another_process_are_left_alone(listening: socket.socket) -> None:
    assert activated(listening, pid=1) == ("none", {}, True)


def test_more_than_one_socket_is_an_error(listening: socket.socket) -> None:
    assert "2 sockets" in activated(listening, count=2)[0]


def test_a_stream_socket_is_an_error(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(directory / "s"))
        made.listen()
        assert "SEQPACKET" in activated(made)[0]


def test_a_socket_that_does_not_listen_is_an_error(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(directory / "s"))
        assert "listens" in activated(made)[0]


@pytest.fixture(params=["path", "abstract"])
def manager_socket(request: pytest.FixtureRequest, directory: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        name = f"ctrtest-{os.getpid()}-notify"
        if request.param == "path":
            made.bind(str(directory / "notify"))
            yield made, str(directory / "notify")
        else:
            made.bind("\0" + name)
            yield made, f"@{name}"


def test_the_manager_hears_of_readiness_and_of_the_end(manager_socket: tuple[socket.socket, str]) -> None:
    receiver, address = manager_socket
    manager = Manager({"NOTIFY_SOCKET": address})
    manager.ready("serving")
    assert receiver.recv(4096).decode().splitlines() == ["READY=1", "STATUS=serving", f"MAINPID={os.getpid()}"]
    manager.reloading()
    assert receiver.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    manager.stopping("ending")
    assert receiver.recv(4096) == b"STOPPING=1\nSTATUS=ending"


def test_the_watchdog_gets_a_sign_every_half_interval(manager_socket: tuple[socket.socket, str], loop: Loop) -> None:
    receiver, address = manager_socket
    receiver.setblocking(False)
    signs: list[bytes] = []

    def heard(_: int) -> None:
        signs.append(receiver.recv(4096))

    loop.add(receiver.fileno(), heard)
    Manager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}).start_watchdog(loop)
    serve_until(loop, lambda: len(signs) >= 3)
    loop.remove(receiver.fileno())

    assert set(signs) == {b"WATCHDOG=1"}


def fill(receiver: socket.socket) -> int:
    """Sends until there is no room; how many messages there was room for."""
    count = 0
    # What one sender may have under way can be less than what the receiver has room for.
    while sent := fill_from_one(receiver):
        count += sent
    return count


def fill_from_one(receiver: socket.socket) -> int:
    """Sends until there is no room for this sender's messages; how many there was room for."""
    count = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        while True:
            try:
                filling.sendto(b"X", receiver.getsockname())
            except BlockingIOError:
                return count
            count += 1


def test_a_manager_that_has_no_room_is_told_when_it_has(manager_socket: tuple[socket.socket, str], loop: Loop) -> None:
    receiver, address = manager_socket
    fds = open_fds()
    manager = Manager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"})
    manager.loop = loop
    count = fill(receiver)
    manager.ready("serving")
    manager.start_watchdog(loop)
    for _ in range(5):
        # Signs of life that find no room are as good as one.
        loop.run_once(1)
    assert [receiver.recv(100) for _ in range(count)] == [b"X"] * count
    serve_until(loop, lambda: open_fds() == fds)
    receiver.setblocking(False)
    assert receiver.recv(100).startswith(b"READY=1\n")
    assert receiver.recv(100) == b"WATCHDOG=1"


def test_a_manager_that_goes_away_with_a_full_queue_is_forgotten(directory: Path, loop: Loop) -> None:
    fds = open_fds()
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(directory / "notify"))
    fill(receiver)
    manager = Manager({"NOTIFY_SOCKET": str(directory / "notify")})
    manager.loop = loop
    manager.ready("serving")
    assert len(open_fds()) == len(fds) + 2
    receiver.close()
    serve_until(loop, lambda: open_fds() == fds)
    assert not manager.tell("READY=1")


def no_socket(directory: Path, kind: str) -> str:
    """A path at which nobody takes datagrams."""
    path = directory / kind
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("stream", "ended"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM) as made:
            made.bind(str(path))
    return {"long": "/" + "x" * 200, "relative": "relative", "vsock": "vsock:2:1234", "at": "@"}.get(kind, str(path))


@pytest.mark.parametrize(
    "kind", ["missing", "file", "fifo", "directory", "stream", "ended", "long", "relative", "vsock", "at"]
)
def test_a_manager_that_is_not_there_disturbs_nobody(directory: Path, loop: Loop, kind: str) -> None:
    fds = open_fds()
    manager = Manager({"NOTIFY_SOCKET": no_socket(directory, kind), "WATCHDOG_USEC": "20000"})
    manager.loop = loop
    manager.ready("serving")
    assert not manager.tell("READY=1")
    manager.start_watchdog(loop)
    loop.run_once(1)
    assert open_fds() == fds


def test_without_a_manager_there_is_nobody_to_tell(loop: Loop) -> None:
    manager = Manager({"WATCHDOG_USEC": "20000"})
    assert not manager.tell("READY=1")
    manager.start_watchdog(loop)
    assert loop._patience(None) is None


@pytest.mark.needs_root
def test_a_socket_of_another_user_that_is_closed_to_us_disturbs_nobody(directory: Path) -> None:
    directory.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(directory / "notify"))
        (directory / "notify").chmod(0o600)

        def work() -> bool:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            return Manager({"NOTIFY_SOCKET": str(directory / "notify")}).tell("READY=1")

        assert in_child(work) is False


INFINITY = str((1 << 64) - 1)


@pytest.mark.parametrize(
    "usec",
    ["", "x", "0", "-1", "1.5", "1e6", " 20000", "20000 ", "+20000", "\u0665\u0660", INFINITY, "9" * 400, "1" * 5000],
)
def test_what_is_no_time_is_no_watchdog(usec: str) -> None:
    assert Manager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": usec}).interval == 0


@pytest.mark.parametrize("pid", ["1", "x", "0", "-1", "9" * 400])
def test_a_watchdog_of_another_process_gets_nothing(pid: str) -> None:
    assert Manager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "20000", "WATCHDOG_PID": pid}).interval == 0


@pytest.mark.parametrize(
    ("usec", "seconds"), [("1", 0.01), ("20000", 0.01), ("30000000", 15), (str((1 << 64) - 2), (1 << 63) / 1e6)]
)
def test_signs_of_life_come_at_half_the_time_and_no_faster_than_is_sane(usec: str, seconds: float, loop: Loop) -> None:
    manager = Manager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": str(os.getpid())})
    assert manager.interval == pytest.approx(seconds)
    manager.start_watchdog(loop)
    loop.run_once(0)


def test_the_last_thing_before_another_program_is_a_sign_of_life(manager_socket: tuple[socket.socket, str]) -> None:
    receiver, address = manager_socket
    Manager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}).reloading()
    said = receiver.recv(4096).decode().splitlines()
    assert (said[0], said[-1]) == ("RELOADING=1", "WATCHDOG=1")
    Manager({"NOTIFY_SOCKET": address}).reloading()
    assert "WATCHDOG" not in receiver.recv(4096).decode()


def test_nothing_of_it_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    manager = Manager()
    assert (manager.address, manager.interval) == ("/x", 0.5)
    assert not any(name in os.environ for name in activation.NOTIFY_VARIABLES)
