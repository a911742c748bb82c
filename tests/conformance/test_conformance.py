"""Holds docs/CONFORMANCE.md: complete, true and up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conformance import collect, page, rows, runc_flags


@pytest.fixture(scope="module")
def tests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return collect.coverage(tmp_path_factory.mktemp("covers"))


def test_every_row_has_a_test(tests: dict[str, list[str]]):
    assert [row.name for row in rows.all_rows() if not row.later and row.name not in tests] == []


def test_every_mark_names_a_row(tests: dict[str, list[str]]):
    known = {row.name for row in rows.all_rows()}
    assert {name: found for name, found in tests.items() if name not in known} == {}


def test_what_is_put_off_has_no_test_yet(tests: dict[str, list[str]]):
    assert [row.name for row in rows.all_rows() if row.later and row.name in tests] == []


def test_the_page_is_what_would_be_written_now(tests: dict[str, list[str]]):
    assert rows.page().read_text() == page.render(rows.all_rows(), tests), "run scripts/conformance.py"


def test_rows_are_unique():
    names = [row.name for row in rows.all_rows()]
    assert sorted(set(names)) == sorted(names)


def test_the_schema_is_walked_to_its_ends():
    names = {row.name for row in rows.schema_rows()}
    assert {
        ".ociVersion",
        ".annotations",
        ".hooks.startContainer[].timeout",
        ".linux.namespaces[].type=time",
        ".linux.netDevices.*.name",
        ".linux.personality.domain=LINUX32",
        ".linux.resources.blockIO.weightDevice[].major",
        ".linux.resources.blockIO.weightDevice[].leafWeight",
        ".linux.resources.rdma.*.hcaHandles",
        ".linux.seccomp.syscalls[].args[].valueTwo",
        ".mounts[].uidMappings[].hostID",
        ".process.scheduler.flags=SCHED_FLAG_RECLAIM",
    } <= names
    assert not any(name.startswith((".windows", ".vm", ".solaris")) for name in names)


def test_ctrun_has_every_flag_of_runc_that_is_not_put_off():
    ours = rows.ctrun_flags()
    missing = [
        f"{verb} --{flag}"
        for verb, flags in runc_flags.FLAGS.items()
        if verb not in runc_flags.LATER
        for flag in flags
        if flag not in ours.get(verb, ())
    ]
    assert missing == []


@pytest.mark.needs_runc
def test_the_list_has_every_flag_that_the_installed_runc_shows():
    runc = shutil.which("runc") or "runc"
    text = subprocess.run([runc, "--help"], capture_output=True, text=True, timeout=20, check=True).stdout
    verbs = re.findall(
        r"^ {3}([a-z]+)(?:, \w)? {2,}", text.partition("COMMANDS:")[2].partition("GLOBAL OPTIONS:")[0], re.M
    )
    shown = {"global": text.partition("GLOBAL OPTIONS:")[2]}
    for verb in verbs:
        if verb != "help":
            done = subprocess.run([runc, verb, "--help"], capture_output=True, text=True, timeout=20, check=True)
            shown[verb] = done.stdout.partition("OPTIONS:")[2]
    assert len(shown) > 15
    for verb, options in shown.items():
        assert set(re.findall(r"^ {3}--([a-z0-9-]+)", options, re.M)) <= set(runc_flags.FLAGS[verb]), verb


def test_a_page_names_the_tests_or_the_reason():
    listed = [rows.Row("a", "One"), rows.Row("b", "Two", "later: why"), rows.Row("c", "Two")]
    text = page.render(listed, {"a": ["x/test_y.py::test_it_works", "x/test_y.py::test_more", "z.py::test_too"]})
    assert (
        "## One\n\n| what | tests |\n| --- | --- |\n| `a` | x/test_y.py: it_works, more; z.py: too |\n\n## Two\n"
        in text
    )
    assert text.endswith("| `b` | later: why |\n| `c` |  |\n")


def test_a_mark_may_name_parameters():
    # a stand-in: a real test with these marks would count as one that holds these rows
    item: Any = SimpleNamespace(
        callspec=SimpleNamespace(params={"option": "ro"}),
        iter_markers=lambda name: iter([pytest.mark.covers("mount option {option}", ".root.path").mark]),
    )
    assert collect.covered_rows(item) == ["mount option ro", ".root.path"]
