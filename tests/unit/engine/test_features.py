"""ctr_supervisor/engine/features.py: valid against the published schema, and true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ctr_supervisor.engine import features

DATA = Path(__file__).parents[2] / "data" / "oci-1.3.0"


def inlined(node: Any, file: str = "features-schema.json") -> Any:
    """A part of a published schema with what it refers to in place: how jsonschema finds files differs by release."""
    if isinstance(node, list):
        return [inlined(each, file) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {key: inlined(value, file) for key, value in node.items()}
    where, _, pointer = node["$ref"].partition("#")
    file = where or file
    target = json.loads((DATA / file).read_text())
    for part in pointer.strip("/").split("/"):
        target = target[part]
    return inlined(target, file)


def validator() -> jsonschema.Draft4Validator:
    return jsonschema.Draft4Validator(inlined(json.loads((DATA / "features-schema.json").read_text())))


@pytest.mark.covers("verb features")
def test_the_features_are_valid() -> None:
    assert [error.message for error in validator().iter_errors(features.features())] == []


@pytest.mark.parametrize("path", sorted((DATA / "test" / "features" / "bad").iterdir()), ids=lambda path: path.name)
def test_the_schema_is_really_used(path: Path) -> None:
    assert list(validator().iter_errors(json.loads(path.read_text())))


def test_every_hook_of_the_specification_is_there() -> None:
    sample = json.loads((DATA / "test" / "features" / "good" / "runc.json").read_text())
    assert features.features()["hooks"] == sample["hooks"]


def test_every_mount_option_and_capability_of_runc_is_there() -> None:
    sample = json.loads((DATA / "test" / "features" / "good" / "runc.json").read_text())
    ours = features.features()
    assert set(sample["mountOptions"]) <= set(ours["mountOptions"])
    assert set(sample["linux"]["capabilities"]) <= set(ours["linux"]["capabilities"])
    assert set(sample["linux"]["seccomp"]["archs"]) <= set(ours["linux"]["seccomp"]["archs"])


def test_supported_seccomp_flags_are_known_ones() -> None:
    seccomp = features.features()["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in seccomp["supportedFlags"]
