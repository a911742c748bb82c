"""Imports from a pack, by the launcher's own lines, in a process of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import Result, run

ROOT = Path(__file__).parents[2]
PYTHON = getattr(sys, "_base_executable", sys.executable)
MAIN = """\
import sys
from ctr_supervisor.cli import other

def main():
    module = sys.modules[sys.argv[1]]
    print(type(module.__spec__.loader).__name__, module.__file__, module.__package__, other.VALUE, flush=True)
    other.fail()
"""
OTHER = """\
VALUE = 'packed'

def fail():
    assert VALUE != 'packed'
"""


class Tree:
    """A small program with a pack and the launcher of the command line.

    Args:
        directory: an empty one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pack_file = directory / "pack"
        self.launcher = directory / "ctrun-direct"
        for package in ("ctr_common", "ctr_supervisor", "ctr_supervisor/cli"):
            (directory / package).mkdir()
            self.write(f"{package}/__init__.py", "")
        shutil.copy(ROOT / "ctr_common/packed.py", directory / "ctr_common")
        self.write("ctr_supervisor/cli/main.py", MAIN)
        self.write("ctr_supervisor/cli/other.py", OTHER)
        self.script(
            "launcher.py", "--python", PYTHON, "--path", directory, "--pack", self.pack_file, "--to", directory,
            ROOT / "bin/ctrun-direct.in",
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def script(self, name: str, *args: str | Path) -> None:
        subprocess.run([PYTHON, "-I", ROOT / "scripts" / name, *args], check=True, timeout=60)

    def pack(self, *options: str | Path) -> None:
        self.script("pack.py", *options, "--to", self.pack_file, self.directory)

    def run(self, module: str = "ctr_supervisor.cli.other") -> Result:
        """What is known of a module, and then a failure in it."""
        return run(self.launcher, module)


@pytest.fixture
def tree(directory: Path) -> Tree:
    return Tree(directory)


@pytest.mark.parametrize("name", ["main", "other"])
def test_modules_come_from_the_pack_and_know_their_sources(tree: Tree, name: str):
    tree.pack()
    result = tree.run(f"ctr_supervisor.cli.{name}")
    assert result.out == f"Pack {tree.directory}/ctr_supervisor/cli/{name}.py ctr_supervisor.cli packed\n"


def test_packages_come_from_the_pack(tree: Tree):
    tree.pack()
    assert tree.run("ctr_supervisor").out.startswith(
        f"Pack {tree.directory}/ctr_supervisor/__init__.py ctr_supervisor "
    )


def test_tracebacks_show_file_line_and_source(tree: Tree):
    tree.pack()
    errors = tree.run().err
    assert f'File "{tree.directory}/ctr_supervisor/cli/other.py", line 4, in fail' in errors
    assert "assert VALUE != 'packed'" in errors


def test_an_edited_source_is_seen_at_once(tree: Tree):
    tree.pack()
    tree.write("ctr_supervisor/cli/other.py", OTHER.replace("'packed'", "'edited'", 1))
    assert (
        tree.run().out == f"SourceFileLoader {tree.directory}/ctr_supervisor/cli/other.py ctr_supervisor.cli edited\n"
    )


def test_a_removed_source_is_missed_at_once(tree: Tree):
    tree.pack()
    (tree.directory / "ctr_supervisor/cli/other.py").unlink()
    assert "cannot import name 'other'" in tree.run().err


def test_a_new_module_is_found(tree: Tree):
    tree.pack()
    tree.write("ctr_supervisor/cli/other.py", "from ctr_supervisor.cli.newer import VALUE\n")
    tree.write("ctr_supervisor/cli/newer.py", "VALUE = 'new'\n")
    assert tree.run().out.split()[-1] == "new"


def test_an_unchecked_pack_does_not_look_at_sources(tree: Tree):
    tree.pack("--unchecked", "--final", "/nowhere")
    shutil.rmtree(tree.directory / "ctr_supervisor")
    assert tree.run().out == "Pack /nowhere/ctr_supervisor/cli/other.py ctr_supervisor.cli packed\n"


def test_a_module_that_fails_is_not_there_half_imported(tree: Tree):
    tree.write("ctr_supervisor/cli/other.py", "import ctr_supervisor.cli.nothing\n")
    tree.write(
        "ctr_supervisor/cli/main.py",
        "import sys\ntry:\n    from ctr_supervisor.cli import other\nexcept ImportError:\n    pass\n"
        "def main():\n    print([name for name in sys.modules if name.endswith('other')], flush=True)\n    return 0\n",
    )
    tree.pack()
    assert tree.run().out == "[]\n"


def test_without_a_pack_imports_are_ordinary(tree: Tree):
    assert tree.run().out.startswith("SourceFileLoader ")


def test_the_pack_of_another_interpreter_is_left_alone(tree: Tree):
    tree.pack()
    tree.pack_file.write_bytes(b"\0\0\r\n" + tree.pack_file.read_bytes()[4:])
    assert tree.run().out.startswith("SourceFileLoader ")
