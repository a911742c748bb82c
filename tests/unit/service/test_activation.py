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
from tests.support.forked import in_child
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


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"NOTIFY_SOCKET": "/nonexistent", "WATCHDOG_USEC": "20000"},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
    ],
)
def test_a_manager_that_is_not_there_disturbs_nobody(values: dict[str, str]) -> None:
    manager = Manager(values)
    manager.ready("serving")
    assert not manager.tell("READY=1")


@pytest.mark.parametrize("values", [{"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}])
def test_a_watchdog_of_another_process_gets_nothing(values: dict[str, str], loop: Loop) -> None:
    Manager({"NOTIFY_SOCKET": "/x", **values}).start_watchdog(loop)
    assert loop._patience(None) is None


def test_nothing_of_it_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    manager = Manager()
    assert (manager.address, manager.interval) == ("/x", 0.5)
    assert not any(name in os.environ for name in activation.NOTIFY_VARIABLES)
