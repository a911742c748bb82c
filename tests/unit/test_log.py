import json
import os
import pty
import re
from pathlib import Path

import pytest

from ctr_common import log
from ctr_common.log import DEBUG, ERROR, JSON, WARNING, Log


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ("", '""'),
        ('say "no"', r'"say \"no\""'),
        ("back\\slash", r'"back\\slash"'),
        ("tab\tline\nbell\a", r'"tab\tline\nbell\a"'),
        ("\x01\x7f", r'"\x01\x7f"'),
        ("straße 漢 😀", '"straße 漢 😀"'),
        ("\u00a0\u200b\U000e0001", r'"\u00a0\u200b\U000e0001"'),
        (b"\xff".decode("utf-8", "surrogateescape"), r'"\xff"'),
    ],
)
def test_quotes_as_go_does(text, quoted):
    assert log.quote(text) == quoted


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", "1970-01-12T13:46:40Z"),
        ("<+0530>-5:30", "1970-01-12T19:16:40+05:30"),
        ("<-0330>3:30", "1970-01-12T10:16:40-03:30"),
    ],
)
def test_times_are_local_with_their_offset(monkeypatch, zone, expected):
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert log.timestamp(1_000_000) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


def test_text_lines_look_like_those_of_logrus():
    line = Log().format(ERROR, "container does not exist")
    assert re.fullmatch(r'time="[^"]+" level=error msg="container does not exist"', line)


def test_a_message_of_one_word_has_no_quotes():
    assert Log().format(WARNING, "a-b_c/d.e").endswith(" level=warning msg=a-b_c/d.e")


def test_json_lines_have_the_keys_of_logrus_in_its_order():
    line = Log(form=JSON).format(ERROR, "no <such> file")
    assert list(json.loads(line)) == ["level", "msg", "time"]
    assert line.startswith(r'{"level":"error","msg":"no \u003csuch\u003e file","time":"')


def test_debug_lines_are_written_only_when_asked_for(tmp_path: Path):
    for debug in (False, True):
        path = tmp_path / str(debug)
        fd = log.open_file(str(path))
        try:
            Log(fd, debug=debug).write(DEBUG, "detail")
        finally:
            os.close(fd)
        assert ("detail" in path.read_text()) is debug


def test_a_terminal_gets_a_short_coloured_line(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    master, slave = pty.openpty()
    try:
        assert Log(slave).format(ERROR, "broken\n") == "\x1b[31mERRO\x1b[0m[0000] broken"
        monkeypatch.setenv("NO_COLOR", "1")
        assert Log(slave).format(ERROR, "broken") == "ERRO[0000] broken"
    finally:
        os.close(master)
        os.close(slave)


def test_a_log_file_is_appended_to_and_its_fd_is_close_on_exec_and_high(tmp_path: Path):
    path = tmp_path / "log"
    path.write_text("before\n")
    fd = log.open_file(str(path))
    try:
        assert fd >= log.LOG_FD_MINIMUM
        assert not os.get_inheritable(fd)
        Log(fd).write(ERROR, "after")
    finally:
        os.close(fd)
    assert path.read_text().startswith("before\ntime=")


def test_a_full_disk_under_the_log_is_no_failure():
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        Log(fd).write(ERROR, "lost")
    finally:
        os.close(fd)
