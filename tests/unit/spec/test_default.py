"""ctr_common/spec/default.py: what `runc spec` writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ctr_common import fastjson
from ctr_common.spec import default, load, schema


@pytest.mark.needs_runc
@pytest.mark.parametrize("rootless", [False, True])
def test_it_is_runcs_to_the_byte_but_for_the_version(rootless: bool, tmp_path: Path) -> None:
    flags = ["--rootless"] if rootless else []
    subprocess.run(["runc", "spec", *flags, "--bundle", tmp_path], check=True, timeout=30)
    text = (tmp_path / "config.json").read_text()
    theirs = fastjson.loads(text)
    # Up to runc 1.2; nothing ambient is possible while nothing is inheritable.
    theirs["process"]["capabilities"].pop("ambient", None)
    theirs["ociVersion"] = default.OCI_VERSION
    ours = fastjson.dumps(default.default_config(rootless), "\t", go=True)
    assert ours == fastjson.dumps(theirs, "\t", go=True)
    assert fastjson.dumps(fastjson.loads(text), "\t", go=True) == text


@pytest.mark.parametrize("unified", [False, True])
def test_a_host_with_cgroup_v2_alone_gets_a_cgroup_namespace(unified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "is_unified", lambda: unified)
    kinds = [entry["type"] for entry in default.default_config()["linux"]["namespaces"]]
    assert ("cgroup" in kinds) == unified


@pytest.mark.parametrize("rootless", [False, True])
def test_it_has_the_right_types(rootless: bool) -> None:
    config = default.default_config(rootless)
    assert load.parse(fastjson.dumps(config).encode(), schema.CONFIG, "config.json") == config


def test_every_call_makes_a_new_one() -> None:
    default.default_config()["process"]["args"].append("x")
    assert default.default_config()["process"]["args"] == ["sh"]
