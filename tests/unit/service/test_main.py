"""The socket for clients: whose place it takes, and whose not."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctr_common.errors import StateError
from ctr_supervisor.service import main


def test_the_place_of_one_that_has_ended_is_taken(directory: Path) -> None:
    path = directory / "s"
    main.listen(str(path), None).close()
    with main.listen(str(path), None):
        assert main.is_served(str(path))
        with pytest.raises(StateError, match=r"another supervisor serves this socket .*/s"):
            main.listen(str(path), None)


def test_one_whose_queue_is_full_is_not_waited_for(directory: Path) -> None:
    path = str(directory / "s")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stuck,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        stuck.bind(path)
        stuck.listen(0)
        client.connect(path)
        with pytest.raises(StateError, match="another supervisor serves"):
            main.listen(path, None)
        main.remove_socket(path)
        assert (directory / "s").exists()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_socket_is_left_alone(directory: Path, kind: str) -> None:
    path = directory / "precious"
    (directory / "target").write_text("words")
    if kind == "file":
        path.write_text("words")
    else:
        path.symlink_to("target")
    with pytest.raises(StateError, match=r"no socket .*/precious"):
        main.listen(str(path), None)
    assert path.read_text() == "words"


def test_one_that_is_about_to_serve_is_waited_for_for_a_while(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "s"
    monkeypatch.setattr(main, "BINDING_TIME", 0.05)
    with main.alone_in(str(directory), 0) as alone:
        assert alone
        with pytest.raises(StateError, match=r"another supervisor has been about to serve .*/s"):
            main.listen(str(path), None)
        assert not path.exists()
    monkeypatch.setattr(main, "BINDING_TIME", 30.0)
    with ThreadPoolExecutor(1) as threads:
        with main.alone_in(str(directory), 0):
            waiting = threads.submit(main.listen, str(path), None)
            with pytest.raises(TimeoutError):
                waiting.result(0.05)
            first = main.bind(str(path), None)
        with pytest.raises(StateError, match="another supervisor serves"):
            waiting.result(30)
    first.close()


def test_one_that_ends_does_not_take_the_name_of_one_that_begins(directory: Path) -> None:
    path = directory / "s"
    with main.alone_in(str(directory), 0), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(str(path))
        main.remove_socket(str(path))
        assert path.exists()
    main.remove_socket(str(path))
    assert not path.exists()
    main.remove_socket(str(directory / "gone/s"))
