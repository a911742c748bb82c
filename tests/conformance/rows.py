"""What there is to conform to: a row for each property, value, option, namespace and flag.

The name of a row is what a test gives to `@pytest.mark.covers`:
    .process.user.uid                    a property of the published schema; `[]` is an entry of a list, `*` any key
    .process.scheduler.policy=SCHED_RR   a value that the schema enumerates
    mount option rro                     an option of the specification's table
    namespace pid joined                 new, joined by its path, or absent and so the runtime's own
    exec --cap                           a flag of a verb; those that stand before the verb: global --log
    verb start                           the verb itself
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.conformance import runc_flags
from tests.support.runtime import ROOT

SCHEMAS = ROOT / "tests/data/oci-1.3.0"
FOREIGN_PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")

# runtime-spec 1.3, config.md, "Linux mount options", and two that runc knows beside them.
_OPTIONS = """
    acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noacl noatime nodev
    nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime
    rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime
    rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow
    runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable
"""
MOUNT_OPTIONS = _OPTIONS.split()

NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
NAMESPACE_WAYS = ("new", "joined", "absent")


class Row:
    """One thing to conform to.

    Args:
        name: unique.
        section: heading of the page that it stands under.
        later: why no test is asked for; an empty string where one is.
    """

    def __init__(self, name: str, section: str, later: str = "") -> None:
        self.name = name
        self.section = section
        self.later = later


@cache
def _schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text())


def _resolve(node: Any, file: str) -> tuple[Any, str]:
    while "$ref" in node:
        name, _, pointer = node["$ref"].partition("#")
        file = name or file
        node = _schema(file)
        for part in pointer.strip("/").split("/"):
            node = node[part]
    return node, file


def _walk(node: Any, file: str, path: str, found: dict[str, None]) -> None:
    node, file = _resolve(node, file)
    parts = [part for key in ("allOf", "anyOf") for part in node.get(key, ())]
    for part in parts:
        _walk(part, file, path, found)
    if "properties" in node:
        for name, below in node["properties"].items():
            if path or name not in FOREIGN_PLATFORMS:
                _walk(below, file, f"{path}.{name}", found)
    elif isinstance(node.get("additionalProperties"), dict):
        _walk(node["additionalProperties"], file, f"{path}.*", found)
    elif node.get("type") == "array":
        entry, entry_file = _resolve(node["items"], file)
        of_objects = not {"properties", "allOf", "anyOf"}.isdisjoint(entry)
        _walk(entry, entry_file, path + "[]" if of_objects else path, found)
    elif not parts:
        found[path] = None
        found.update((f"{path}={value}", None) for value in node.get("enum", ()))


def schema_rows() -> list[Row]:
    """The properties of config.json, those for other platforms left out, and the values that the schema enumerates."""
    found: dict[str, None] = {}
    _walk(_schema("config-schema.json"), "config-schema.json", "", found)
    return [Row(name, "Properties of config.json") for name in found]


def flag_rows() -> list[Row]:
    """The verbs and their flags: runc's, and those that only ctrun has."""
    rows: dict[str, Row] = {}
    section = "The command line"
    for verb, flags in runc_flags.FLAGS.items():
        later = runc_flags.LATER.get(verb, "")
        if verb != "global":
            rows[f"verb {verb}"] = Row(f"verb {verb}", section, later)
        for flag in flags:
            rows[f"{verb} --{flag}"] = Row(f"{verb} --{flag}", section, later)
    for verb, flags in ctrun_flags().items():
        for name in [f"verb {verb}"] * (verb != "global") + [f"{verb} --{flag}" for flag in flags]:
            rows.setdefault(name, Row(name, section))
    return list(rows.values())


def ctrun_flags() -> dict[str, list[str]]:
    """The flags of each verb, as the command line itself describes them."""
    from ctr_supervisor.cli import main, surroundings

    flags = {"global": [flag.name for flag in surroundings.FLAGS] + ["help"]}
    for verb in main.VERBS:
        flags[verb] = [flag.name for flag in main.load(verb)[0].flags] + ["help"]
    return flags


def all_rows() -> list[Row]:
    """Every row, in the order of the page."""
    return [
        *schema_rows(),
        *(Row(f"mount option {name}", "Mount options") for name in MOUNT_OPTIONS),
        *(Row(f"namespace {kind} {way}", "Namespaces") for kind in NAMESPACES for way in NAMESPACE_WAYS),
        *flag_rows(),
    ]


def page() -> Path:
    """The committed page."""
    return ROOT / "docs/CONFORMANCE.md"
