import os

import pytest

from ctr_common.errors import CtrError, UsageError
from ctr_supervisor.cli import parser, surroundings
from ctr_supervisor.engine import runtime


def surroundings_of(*arguments):
    return surroundings.from_arguments(parser.parse(arguments, surroundings.FLAGS))


@pytest.fixture
def user(monkeypatch, tmp_path):
    """Makes this process look like one of another user, with a runtime directory."""

    def become(euid, *, initial_namespace=True, name=None):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: euid)
        monkeypatch.setattr(runtime, "in_initial_user_namespace", lambda: initial_namespace)
        if name is None:
            monkeypatch.delenv("USER", raising=False)
        else:
            monkeypatch.setenv("USER", name)
        return str(tmp_path / "ctrun")

    return become


def test_the_root_of_a_plain_user_is_in_the_runtime_directory_and_sticky(user):
    root = user(1000)
    assert surroundings_of().root == root
    assert os.stat(root).st_mode & 0o7777 == 0o1700


def test_root_does_not_look_at_the_runtime_directory(user):
    user(0)
    assert surroundings_of().root == "/run/ctrun"


def test_root_in_a_user_namespace_looks_at_it_unless_named_root(user):
    root = user(0, initial_namespace=False)
    assert surroundings_of().root == root
    assert user(0, initial_namespace=False, name="me") == surroundings_of().root
    user(0, initial_namespace=False, name="root")
    assert surroundings_of().root == "/run/ctrun"


def test_without_a_runtime_directory_the_root_is_the_same_for_all(user, monkeypatch):
    user(1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert surroundings_of().root == "/run/ctrun"


def test_the_flag_goes_before_the_environment(user, tmp_path):
    root = user(1000)
    assert surroundings_of("--root", str(tmp_path / "x")).root == str(tmp_path / "x")
    assert not os.path.exists(root)


def test_a_runtime_directory_that_cannot_be_written_is_named(user, monkeypatch):
    user(1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/self")
    with pytest.raises(CtrError, match="mkdir /proc/self/ctrun: no such file or directory") as caught:
        surroundings_of()
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_a_relative_root_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert surroundings_of("--root", "states/../other").root == str(tmp_path / "other")


@pytest.mark.parametrize("root", ["/", "//", "/tmp/.."])
def test_the_root_of_the_file_system_is_refused(root):
    with pytest.raises(UsageError, match="must not be /"):
        surroundings_of("--root", root)


@pytest.mark.parametrize(
    ("text", "choice"),
    [("auto", "auto"), ("AUTO", "auto"), ("", "auto"), ("true", "true"), ("1", "true"), ("f", "false")],
)
def test_rootless_is_auto_or_a_boolean(text, choice):
    assert surroundings_of("--rootless", text).rootless_choice() == choice


def test_rootless_is_looked_at_only_where_it_counts():
    given = surroundings_of("--rootless", "maybe")
    with pytest.raises(UsageError) as caught:
        given.rootless_choice()
    assert str(caught.value) == 'strconv.ParseBool: parsing "maybe": invalid syntax'
