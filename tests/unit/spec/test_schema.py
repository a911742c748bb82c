"""ctr_common/spec/schema.py and types.py: the shape is that of the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from ctr_common.spec import schema, types

SCHEMAS = Path(__file__).parents[2] / "data" / "oci-1.3.0"

# Where ours is wider than the published one; schema.py and validate.py say why.
DEVIATIONS = {
    ".process": "cwd is checked in runc's words",
    ".linux.devices[].fileMode": "engines put the whole st_mode there",
    ".linux.resources.pids": "Go leaves an unset limit out",
}

OTHER_PLATFORMS = {"solaris", "windows", "vm", "zos", "freebsd"}

INTEGERS: dict[Any, str] = {
    (low, high): name for name, (kind, low, high) in schema.SCALARS.items() if kind is int and name != "int"
}


def resolve(node: dict[str, Any], file: str) -> tuple[dict[str, Any], str]:
    while "$ref" in node:
        where, _, pointer = node["$ref"].partition("#")
        file = where or file
        node = json.loads((SCHEMAS / file).read_text())
        for part in pointer.strip("/").split("/"):
            node = node[part]
    return node, file


def published(node: dict[str, Any], file: str) -> schema.Node:
    """A node of the published schema in the form of ours."""
    node, file = resolve(node, file)
    if "anyOf" in node:
        (only,) = node["anyOf"]
        return published(only, file)
    if "allOf" in node:
        parts = [published(part, file) for part in node["allOf"]]
        properties = {key: value for part in parts for key, value in part[1].items()}
        return ("object", properties, tuple(key for part in parts for key in part[2]))
    if node["type"] == "object":
        if "properties" in node:
            properties = {key: published(value, file) for key, value in node["properties"].items()}
            return ("object", properties, tuple(node.get("required", ())))
        (values,) = (
            [node["additionalProperties"]] if "additionalProperties" in node else node["patternProperties"].values()
        )
        return ("map", published(values, file))
    if node["type"] == "array":
        return ("array", published(node["items"], file))
    if node["type"] == "integer":
        return INTEGERS.get((node.get("minimum"), node.get("maximum")), "int")
    return node["type"]


def differences(ours: schema.Node, theirs: schema.Node, path: str = "") -> list[str]:
    if isinstance(ours, str) or isinstance(theirs, str) or ours[0] != theirs[0]:
        return [] if ours == theirs else [path]
    if ours[0] != "object":
        return differences(ours[1], theirs[1], path + ("[]" if ours[0] == "array" else "{}"))
    found = []
    if set(ours[1]) != set(theirs[1]) or set(ours[2]) != set(theirs[2]):
        found.append(path)
    for key in ours[1].keys() & theirs[1].keys():
        found += differences(ours[1][key], theirs[1][key], f"{path}.{key}")
    return found


def test_every_property_is_known_with_the_published_type() -> None:
    root = json.loads((SCHEMAS / "config-schema.json").read_text())
    for platform in OTHER_PLATFORMS:
        del root["properties"][platform]
    theirs = published(root, "config-schema.json")
    assert set(differences(schema.CONFIG, theirs)) == set(DEVIATIONS)


def shape(kind: Any) -> Any:
    """A type of types.py without ranges, as `without_ranges` gives a node."""
    if is_typeddict(kind):
        return {key: shape(value) for key, value in get_type_hints(kind).items()}
    if get_origin(kind) is list:
        return [shape(get_args(kind)[0])]
    if get_origin(kind) is dict:
        return ("map", shape(get_args(kind)[1]))
    return kind


def without_ranges(node: schema.Node) -> Any:
    if isinstance(node, str):
        return schema.SCALARS[node][0]
    if node[0] == "object":
        return {key: without_ranges(value) for key, value in node[1].items()}
    inner = without_ranges(node[1])
    return [inner] if node[0] == "array" else ("map", inner)


@pytest.mark.parametrize(("kind", "node"), [(types.Config, schema.CONFIG), (types.Process, schema.PROCESS)])
def test_the_types_for_mypy_are_those_of_the_schema(kind: type, node: schema.Node) -> None:
    assert shape(kind) == without_ranges(node)
