"""ctr_supervisor/engine/features.py: valid against the published schema, and true."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT4

from ctr_supervisor.engine import features

DATA = Path(__file__).parents[2] / "data" / "oci-1.3.0"


def validator() -> jsonschema.Draft4Validator:
    resources = [
        (path.name, DRAFT4.create_resource(json.loads(path.read_text())))
        for path in DATA.iterdir()
        if path.suffix == ".json"
    ]
    schema = json.loads((DATA / "features-schema.json").read_text())
    return jsonschema.Draft4Validator(schema, registry=Registry().with_resources(resources))


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
