"""What a `Process` asks for, before there is one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import ctr_supervisor as api
from ctr_supervisor.api import users
from ctr_supervisor.api.stdio import Streams


def no_root() -> int:
    raise AssertionError("nothing is to be looked up")


def test_what_is_not_said_is_as_configured():
    configured = {"args": ["a"], "cwd": "/c", "env": ["A=b"], "terminal": True, "noNewPrivileges": True}
    assert api.Process(init=True).described(configured, no_root) == {**configured, "user": {"uid": 0, "gid": 0}}


def test_an_exec_has_no_terminal_unless_it_asks_for_one():
    configured = {"args": ["a"], "cwd": "/", "terminal": True}
    assert "terminal" not in api.Process(["b"]).described(configured, no_root)
    assert api.Process(["b"], terminal=True).described(configured, no_root)["terminal"] is True


def test_what_is_said_wins():
    described = api.Process(
        ["b"],
        env={"X": "y"},
        cwd="/d",
        user=7,
        console_size=(80, 24),
        capabilities=["CAP_KILL"],
        rlimits={7: 9, "RLIMIT_CORE": (1, 2)},
        no_new_privileges=False,
        oom_score_adj=0,
    ).described({"args": ["a"], "cwd": "/c", "env": ["A=b"], "noNewPrivileges": True}, no_root)
    assert described == {
        "args": ["b"],
        "env": ["X=y"],
        "cwd": "/d",
        "user": {"uid": 7, "gid": 0},
        "consoleSize": {"width": 80, "height": 24},
        "capabilities": {name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted")},
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 9, "hard": 9},
            {"type": "RLIMIT_CORE", "soft": 1, "hard": 2},
        ],
        "noNewPrivileges": False,
        "oomScoreAdj": 0,
    }


def test_a_whole_description_takes_the_place_of_the_configured_one():
    described = api.Process(["b"], spec={"args": ["x"], "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}).described(
        {"args": ["a"], "cwd": "/c"}, no_root
    )
    assert (described["args"], described["cwd"], "ioPriority" in described) == (["b"], "/", True)


def test_the_configuration_is_not_changed():
    user = {"uid": 1, "gid": 1}
    api.Process(["b"]).described({"args": ["a"], "cwd": "/", "user": user}, no_root)["user"]["uid"] = 9
    assert user == {"uid": 1, "gid": 1}


def test_no_arguments_are_an_error():
    with pytest.raises(api.ConfigError, match="args cannot be empty"):
        api.Process().described(None, no_root)
    with pytest.raises(api.UsageError, match="one string"):
        api.Process("sh -c true")


def test_nothing_is_known_of_a_process_that_was_not_started():
    process = api.Process(["a"])
    for use in (lambda: process.pid, lambda: process.wait(0), lambda: process.signal(9), process.poll):
        with pytest.raises(api.WrongState, match="not started"):
            use()
    process.close()


@pytest.fixture
def root(directory: Path) -> Callable[[], int]:
    """A root with users."""
    (directory / "etc").mkdir()
    (directory / "etc/passwd").write_text("root:x:0:0:::\nme:x:5:6:::\nbroken\n")
    (directory / "etc/group").write_text("g:x:6:\nmine:x:8:you,me\nothers:x:9:meme\n")
    return lambda: os.open(directory, os.O_PATH | os.O_DIRECTORY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5:7", {"uid": 5, "gid": 7}),
        ("me", {"uid": 5, "gid": 6, "additionalGids": [8]}),
        ("me:mine", {"uid": 5, "gid": 8}),
        ("5:g", {"uid": 5, "gid": 6}),
        ("77:mine", {"uid": 77, "gid": 8}),
        ("77", {"uid": 77, "gid": 0}),
    ],
)
def test_users_are_looked_up(root: Callable[[], int], text: str, expected: dict[str, object]):
    assert users.parse(text, root) == expected


@pytest.mark.parametrize("text", ["you", "me:nobody", ""])
def test_an_unknown_user_is_an_error(root: Callable[[], int], text: str):
    with pytest.raises(api.ConfigError, match="no (user|group)"):
        users.parse(text, root)


@pytest.mark.parametrize("trap", ["fifo", "link"])
def test_a_hostile_user_database_is_neither_waited_for_nor_followed(directory: Path, trap: str):
    (directory / "etc").mkdir()
    if trap == "fifo":
        os.mkfifo(directory / "etc/passwd")
    else:
        (directory / "etc/passwd").symlink_to("../../../../../../etc/passwd")
    with pytest.raises(api.ConfigError):
        users.parse("daemon", lambda: os.open(directory, os.O_PATH | os.O_DIRECTORY))


def test_the_names_of_subprocess_are_the_same():
    assert (api.PIPE, api.STDOUT, api.DEVNULL) == (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL)


def test_streams_are_closed_when_there_is_no_process():
    before = os.listdir("/proc/self/fd")
    Streams((api.PIPE, api.PIPE, api.DEVNULL)).close()
    with pytest.raises(api.UsageError):
        Streams((api.PIPE, api.PIPE, 99_999))
    assert len(os.listdir("/proc/self/fd")) == len(before)
