"""Imports run one way, and the start-up path imports little: the rules of docs/ARCHITECTURE.md, read from the code.

The same at run time, with what the imported modules import in their turn, is in test_start_up.py.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ctr_common", "ctr_init", "ctr_supervisor", "ctr_criu_bridge")

# room → rooms that it may import from
MAY_IMPORT = {
    "ctr_common": {"ctr_common"},
    "ctr_init": {"ctr_common", "ctr_init"},
    "ctr_supervisor": {"ctr_common", "ctr_supervisor"},
    "ctr_criu_bridge": {"ctr_common", "ctr_criu_bridge"},
}
# From the engine into the worker: it forks one, or a worker of the pool does without, or it is a program of its own.
# And into the bridge, for which it forks, too.
EXCEPTIONS = {
    ("ctr_supervisor/api/making.py", "ctr_init"),
    ("ctr_supervisor/engine/create.py", "ctr_init"),
    ("ctr_supervisor/engine/criu.py", "ctr_criu_bridge"),
    ("ctr_supervisor/service/job.py", "ctr_init"),
}

# What start-up code may import at module level: builtin modules, and the few of the standard library that cost nothing.
START_UP_MODULES = {"_frozen_importlib", "os", "posixpath", "stat", "struct"} | set(sys.builtin_module_names)
# built in on one distribution and a small shared object on another
START_UP_MODULES |= {
    "_json",
    "_sha2",
    "_sha256",
    "_socket",
    "_blake2",
    "_frozen_importlib",
    "fcntl",
    "select",
    "termios",
}
# json does far more at import than its C scanner; these are what the list is there to keep out
NEVER_AT_START = {"dataclasses", "enum", "json", "logging", "pathlib", "re", "subprocess", "typing"}
# Rooms below ctr_supervisor that live long, or belong to a program that does, and import what they like.
LONG_LIVED = ("ctr_supervisor/service/", "ctr_supervisor/api/")
# Files that no start ever imports: types are for the type checker, wire for the long-lived programs, help for `--help`.
NOT_AT_START = ("ctr_common/spec/types.py", "ctr_common/wire.py", "ctr_supervisor/cli/help.py")


def sources(package: str) -> list[Path]:
    """Every Python file of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """The path as it is called in messages."""
    return str(path.relative_to(ROOT))


def is_type_checking(node: ast.stmt) -> bool:
    """Whether the statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(node: ast.AST, path: Path) -> Iterator[str]:
    """Dotted names that an import statement brings in; relative ones made absolute."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom):
        parent = path.relative_to(ROOT).parent.parts
        above = parent[: len(parent) - node.level + 1] if node.level else ()
        yield ".".join([*above, *([node.module] if node.module else [])])


def at_module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, those in `if`, `try` and `with` included.

    What an `except ImportError` does instead is left out: it runs where there is no choice.
    """
    for node in body:
        if is_type_checking(node):
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from at_module_level(getattr(node, field, []))


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str):
    wrong = []
    for path in sources(package):
        for node in ast.walk(ast.parse(path.read_text())):
            for module in imported(node, path):
                room = module.split(".")[0]
                allowed = room not in PACKAGES or room in MAY_IMPORT[package]
                if not allowed and (name_of(path), room) not in EXCEPTIONS:
                    wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_the_cgroup_managers_know_nothing_of_the_engine_and_the_command_line():
    forbidden = ("ctr_supervisor.engine", "ctr_supervisor.cli")
    for path in sources("ctr_supervisor/cgroups"):
        modules = {module for node in ast.walk(ast.parse(path.read_text())) for module in imported(node, path)}
        assert not {module for module in modules if module.startswith(forbidden)}, name_of(path)


def test_the_engine_knows_nothing_of_the_command_line():
    for path in sources("ctr_supervisor/engine"):
        modules = {module for node in ast.walk(ast.parse(path.read_text())) for module in imported(node, path)}
        assert not {module for module in modules if module.startswith("ctr_supervisor.cli")}, name_of(path)


@pytest.mark.parametrize("package", ["ctr_common", "ctr_init", "ctr_supervisor"])
def test_start_up_code_imports_only_what_costs_nothing(package: str):
    wrong = []
    for path in sources(package):
        if name_of(path).startswith(LONG_LIVED) or name_of(path) in NOT_AT_START:
            continue
        for node in at_module_level(ast.parse(path.read_text()).body):
            for module in imported(node, path):
                top = module.split(".")[0]
                if top in PACKAGES or module == "__future__":
                    continue
                if top not in START_UP_MODULES or top in NEVER_AT_START:
                    wrong.append(f"{name_of(path)}:{getattr(node, 'lineno', 0)} imports {module}")
    assert wrong == []


def test_the_bridge_is_called_in_a_process_of_its_own_alone():
    """The one that is forked for it, where a worker of the pool has its modules already: all else takes its socket."""
    path = ROOT / "ctr_supervisor/engine/criu.py"
    module = ast.parse(path.read_text())
    fork = next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "fork")

    def count(tree: ast.AST) -> int:
        return sum(name.startswith("ctr_criu_bridge") for node in ast.walk(tree) for name in imported(node, path))

    assert count(fork) == count(module) == 1


def test_the_command_line_prints_past_python_s_buffers():
    """The launcher ends the process without the flush that the interpreter would do in the end."""
    buffered = re.compile(r"\bprint\(|\bsys\.std(out|err)\b")
    paths = [path for room in ("cli", "engine", "cgroups", "process") for path in sources(f"ctr_supervisor/{room}")]
    assert [name_of(path) for path in paths if buffered.search(path.read_text())] == []
