"""What the programs import at run time, counted in the processes themselves.

Every module costs: json 10 ms, enum 6, typing 8, dataclasses 14, re 6, argparse 11, subprocess 20, where the whole of a
bare interpreter costs 10.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.command import Result, run
from tests.support.runtime import Runtime

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)

# What a bare `python -I -S` imports by itself differs between versions; it is measured, not listed.
ALLOWED = {
    "__future__",
    "_collections_abc",
    "_blake2",
    "_json",
    "_sha2",
    "_sha256",
    "_stat",
    "errno",
    "fcntl",
    "gc",
    "genericpath",
    "os",
    "os.path",
    "posixpath",
    "select",
    "stat",
    "struct",
    "_struct",
}

pytestmark = [pytest.mark.needs_ctrun]


def launcher_python() -> str:
    """The interpreter that the launcher names."""
    first = (ROOT / "bin/ctrun-direct").read_text().splitlines()[0]
    return first.removeprefix("#!").split()[0]


def imported(result: Result) -> set[str]:
    """Modules of others in the output of `-X importtime`, the forked worker's included."""
    bare = run(launcher_python(), "-I", "-S", "-X", "importtime", "-c", "pass").ok()
    return {name for name in set(LINE.findall(result.err)) - set(LINE.findall(bare.err)) if not name.startswith("ctr_")}


def traced(*args: str | Path) -> Result:
    """Runs ctrun with its imports printed to stderr."""
    return run(launcher_python(), "-I", "-S", "-X", "importtime", ROOT / "bin/ctrun-direct", *args)


def test_version_imports_only_what_is_allowed():
    result = traced("--version")
    assert result.out.startswith("ctrun version")
    assert imported(result) <= ALLOWED


def test_state_imports_only_what_is_allowed():
    assert imported(traced("state", "there-is-no-such-container")) <= ALLOWED


@pytest.fixture
def packed_ctrun(directory: Path) -> Path:
    """The command line with a pack of the sources as they are now, whenever the last build was."""
    python = launcher_python()
    run(python, "-I", ROOT / "scripts/pack.py", "--to", directory / "pack", ROOT).ok()
    where = ("--path", ROOT, "--pack", directory / "pack", "--to", directory)
    run(python, "-I", ROOT / "scripts/launcher.py", "--python", python, *where, ROOT / "bin/ctrun-direct.in").ok()
    return directory / "ctrun-direct"


@pytest.mark.needs_root
@pytest.mark.needs_busybox
def test_a_run_finds_all_that_it_imports_in_the_pack(bundle: Bundles, container_id: str, packed_ctrun: Path):
    verbose = run(
        launcher_python(), "-I", "-S", "-v", packed_ctrun, "run", "-b", bundle(args=["true"]), container_id
    ).ok()
    imports = re.findall(r"^import '(ctr_[\w.]+)' # <(\S+)", verbose.err, re.MULTILINE)
    assert "ctr_supervisor.cli.run" in dict(imports)
    others = {name for name, loader in imports if loader != "ctr_common.packed.Pack"}
    assert others == {"ctr_common.kernel._kernel"}, "add to ROOTS in scripts/pack.py, or import it later"


@pytest.mark.needs_root
@pytest.mark.needs_busybox
def test_run_imports_only_what_is_allowed_in_the_engine_and_the_worker(
    bundle: Bundles, container_id: str, ctrun: Runtime
):
    assert imported(traced("run", "-b", bundle(args=["true"]), container_id).ok()) <= ALLOWED
