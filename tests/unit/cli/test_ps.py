import pytest

from ctr_common.errors import CtrError
from ctr_supervisor.cli import ps

TEXT = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sleep 1 2\nroot  112     1 ps\n\n"


def test_only_lines_of_the_containers_processes_are_left():
    assert ps.select(TEXT, {12}) == "UID   PID  PPID CMD\nroot   12     1 sleep 1 2\n"


def test_the_heading_is_always_there():
    assert ps.select(TEXT, set()) == "UID   PID  PPID CMD\n"


def test_a_column_pid_is_asked_for():
    with pytest.raises(CtrError, match="couldn't find PID field in ps output"):
        ps.select("CMD\nsleep\n", {12})


def test_the_column_pid_must_hold_numbers():
    with pytest.raises(CtrError, match="unable to parse pid: -"):
        ps.select("PID\n-\n", {12})


def test_the_text_of_a_failing_ps_is_part_of_the_error():
    with pytest.raises(CtrError, match="exit status 1: error: ") as caught:
        ps.run_ps(["--no-such-option"])
    assert "Usage" in str(caught.value)


def test_a_missing_ps_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CtrError, match='exec: "ps": executable file not found'):
        ps.run_ps(["-ef"])
