import os

import pytest

from ctr_common.errors import CtrError
from ctr_supervisor.cli import creation


def test_the_bundle_becomes_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").mkdir()
    assert creation.enter_bundle("bundle") == str(tmp_path / "bundle") == os.getcwd()


def test_without_a_bundle_the_working_directory_is_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert creation.enter_bundle("") == str(tmp_path)


def test_a_missing_bundle_is_named_as_it_was_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CtrError) as caught:
        creation.enter_bundle("nowhere")
    assert str(caught.value) == "chdir nowhere: no such file or directory"


def test_file_names_are_made_absolute_and_the_empty_one_stays(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert creation.absolute("pid") == str(tmp_path / "pid")
    assert creation.absolute("") == ""


@pytest.mark.parametrize(
    ("pid", "fds", "count"),
    [("own", "2", 2), ("1", "2", 0), (None, "2", 0), ("own", "x", 0), ("own", "-1", 0), ("own", None, 0)],
)
def test_fds_of_socket_activation_count_only_if_they_are_for_this_process(monkeypatch, pid, fds, count):
    for name, value in (("LISTEN_PID", pid), ("LISTEN_FDS", fds)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert creation.listen_fds() == count
