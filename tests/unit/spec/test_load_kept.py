"""Configurations that a worker is given again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_common.errors import ConfigError
from ctr_common.spec import load

TEXT = '{"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"args": ["x"], "cwd": "/"}, "x": null}'


@pytest.fixture(autouse=True)
def keeps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process remembers, for the time of a test."""
    monkeypatch.setattr(load, "_found_right", {})
    yield


def test_the_same_text_gives_the_same_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(TEXT)
    first = load.load_config(str(tmp_path))
    assert load.load_config(str(tmp_path)) == first == load.parse_config(TEXT.encode(), "config.json")


def test_what_one_container_changes_is_not_the_next_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(TEXT)
    for _ in range(2):
        config = load.load_config(str(tmp_path))
        assert config["process"]["args"] == ["x"]
        config["process"]["args"].append("y")
        config["mounts"] = [{"destination": "/secret"}]
    assert "mounts" not in load.load_config(str(tmp_path))


def test_a_text_that_is_wrong_is_wrong_each_time(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"process": {"args": 1}}')
    for _ in range(2):
        with pytest.raises(ConfigError, match="args"):
            load.load_config(str(tmp_path))


def test_memory_has_an_end(tmp_path: Path) -> None:
    for number in range(3 * load.KEPT_MAX):
        (tmp_path / "config.json").write_text(TEXT.replace("1.3.0", f"1.3.{number}"))
        assert load.load_config(str(tmp_path))["ociVersion"] == f"1.3.{number}"
    assert load._found_right is not None
    assert len(load._found_right) == load.KEPT_MAX
    (tmp_path / "config.json").write_text(TEXT + " " * load.KEPT_SIZE)
    load.load_config(str(tmp_path))
    assert len(load._found_right) == load.KEPT_MAX
    assert all(len(text) <= load.KEPT_SIZE for text in load._found_right)
