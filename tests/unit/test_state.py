"""The state directory."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from ctr_common import state
from ctr_common.errors import ContainerExists, ContainerNotFound, StateError


@pytest.fixture
def directory(tmp_path: Path) -> state.StateDir:
    made = state.StateDir(str(tmp_path / "root"), "one")
    made.make()
    return made


def test_an_id_is_taken_once(directory: state.StateDir) -> None:
    with pytest.raises(ContainerExists, match="container with given ID already exists"):
        state.StateDir(directory.root, "one").make()


def test_modes_are_those_of_runc_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        made = state.StateDir(str(tmp_path / "root"), "one")
        made.make()
        made.make_fifo(os.getuid(), os.getgid())
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(made.path).st_mode) == 0o711
    assert stat.S_IMODE(os.stat(made.root).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(made.file("exec.fifo")).st_mode) == 0o622


def test_state_comes_back(directory: state.StateDir) -> None:
    directory.save({"init_process_pid": 7})
    assert directory.load() == {"version": state.STATE_VERSION, "init_process_pid": 7}
    assert not os.path.exists(directory.file("state.json.partial"))


def test_a_state_of_another_version_is_refused(directory: state.StateDir) -> None:
    directory.write("state.json", b'{"version": 99}')
    with pytest.raises(StateError, match="has version 99"):
        directory.load()


def test_a_torn_state_is_an_error_that_names_the_file(directory: state.StateDir) -> None:
    directory.write("state.json", b'{"version": 1')
    with pytest.raises(StateError, match="state.json"):
        directory.load()


def test_a_container_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    missing = state.StateDir(str(tmp_path), "none")
    with pytest.raises(ContainerNotFound):
        missing.load()
    with pytest.raises(ContainerNotFound):
        missing.lock()


def test_a_second_writer_waits_for_the_first(directory: state.StateDir) -> None:
    second = state.StateDir(directory.root, "one")
    assert second.is_locked()
    taken = threading.Event()

    def take() -> None:
        second.lock()
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.1)
    directory.unlock()
    assert taken.wait(10)
    thread.join()


def test_a_writer_that_waited_for_a_deleted_container_finds_none(directory: state.StateDir) -> None:
    second = state.StateDir(directory.root, "one")
    caught: list[BaseException] = []

    def take() -> None:
        try:
            second.lock()
        except ContainerNotFound as error:
            caught.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    directory.remove()
    thread.join(10)
    assert len(caught) == 1


def test_waiting_for_a_lock_has_an_end(directory: state.StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "LOCK_TIMEOUT", 0.05)
    with pytest.raises(StateError, match="is busy"):
        state.StateDir(directory.root, "one").lock()


def test_removal_takes_everything_and_may_be_run_twice(directory: state.StateDir) -> None:
    directory.make_fifo(os.getuid(), os.getgid())
    os.makedirs(directory.file("criu.work/sub"))
    directory.remove()
    assert not os.path.exists(directory.path)
    directory.remove()


@pytest.mark.needs_root
def test_removal_stops_before_what_is_mounted_there(directory: state.StateDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    point = Path(directory.path, "criu-root")
    point.mkdir()
    subprocess.run(["mount", "--bind", outside, point], check=True, timeout=10)
    try:
        with pytest.raises(StateError, match="cannot remove what is mounted there") as raised:
            directory.remove()
        assert raised.value.path == str(point)
        assert (outside / "precious").exists()
    finally:
        subprocess.run(["umount", point], check=True, timeout=10)
    directory.remove()
    assert not Path(directory.path).exists()


def test_a_symlink_in_the_place_of_a_file_is_not_followed(directory: state.StateDir, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("{}")
    os.symlink(tmp_path / "elsewhere", directory.file("state.json"))
    with pytest.raises(StateError):
        directory.load()


def test_ids_lists_directories_only(directory: state.StateDir) -> None:
    Path(directory.root, "file").write_text("")
    assert state.ids(directory.root) == ["one"]
    assert state.ids(directory.root + "/none") == []


def test_removing_gets_rid_of_what_appears_meanwhile(
    directory: state.StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = iter([Path(directory.path, "exit-status")])
    rmdir = os.rmdir

    def write_before(path: str) -> None:
        for file in late:
            file.write_text("0\n")
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", write_before)
    directory.remove()
    assert not directory.exists()


def test_a_directory_that_vanishes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`delete --force` takes one without a lock for what a dead creator left."""
    chmod, removals = os.chmod, iter([True, True])

    def removing(path: str, mode: int) -> None:
        if next(removals, False):
            os.rmdir(path)
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", removing)
    made = state.StateDir(str(tmp_path / "root"), "one")
    made.make()
    assert os.listdir(made.path) == ["lock"]
    made.unlock()


def test_the_lock_is_removed_last(directory: state.StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "state.json", "z"):
        directory.write(name, b"")
    removed: list[str] = []
    unlink = os.unlink

    def noting(path: str) -> None:
        removed.append(os.path.basename(path))
        unlink(path)

    monkeypatch.setattr(os, "unlink", noting)
    directory.remove()
    assert removed[-1] == "lock"
    assert len(removed) == 4
