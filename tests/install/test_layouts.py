"""ctrun from a fresh checkout, from `make install` and from a wheel: each runs a container.

One copy of the sources, at a path with a space, is built once for all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.command import run
from tests.support.runtime import Runtime

ROOT = Path(__file__).parents[2]
PARTS = [
    *("MANIFEST.in", "Makefile", "README.md", "dev", "pyproject.toml", "setup.py"),
    *(
        "completions",
        "docs",
        "bin",
        "c",
        "ctr_common",
        "ctr_criu_bridge",
        "ctr_init",
        "ctr_supervisor",
        "examples",
        "scripts",
    ),
]
PROGRAMS = ("ctr-criu-bridge", "ctr-init", "ctr-init-setup", "ctr-supervisor", "ctrun", "ctrun-direct")
BUILT = shutil.ignore_patterns("__pycache__", "*.so", *PROGRAMS)

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_ctrun,
    pytest.mark.needs_cc,
    pytest.mark.needs_busybox,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def checkout(run_directory: Path) -> Path:
    """A copy of the sources, nothing built, then `./dev build`."""
    top = run_directory / "a fresh checkout"
    top.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, top / part, ignore=BUILT)
        elif source.exists():
            shutil.copy2(source, top / part)
    run(top / "dev", "build", timeout=250).ok()
    return top


@pytest.fixture
def runs_a_container(bundle: Bundles, container_id: str, directory: Path) -> Callable[..., None]:
    """Checks that an executable is a runtime that works; an isolated one, whatever Python's variables say."""

    def check(program: Path, isolated: bool = True) -> None:
        runtime = Runtime(program, directory / "states")
        made = bundle(args=["sh", "-c", "echo inside $$; exit 5"])
        env = {**os.environ, "PYTHONPATH": str(directory), "PYTHONHOME": "/nowhere"}
        result = runtime("run", "-b", made, container_id, env=env if isolated else None)
        assert (result.code, result.out, result.err) == (5, "inside 1\n", ""), repr(result)

    return check


def test_a_fresh_checkout_runs_a_container(checkout: Path, runs_a_container: Callable[..., None]):
    runs_a_container(checkout / "bin/ctrun")


def test_a_second_build_changes_nothing(checkout: Path):
    programs = [checkout / "bin/ctrun", checkout / "bin/ctr-init", *checkout.rglob("*.so")]
    before = [path.stat().st_mtime_ns for path in programs]
    run(checkout / "dev", "build").ok()
    assert [path.stat().st_mtime_ns for path in programs] == before


def test_the_launcher_may_be_called_through_a_link(checkout: Path, directory: Path):
    (directory / "ctrun").symlink_to(checkout / "bin/ctrun")
    assert run(directory / "ctrun", "--version", cwd="/").text.startswith("ctrun version")


def test_make_install_into_a_prefix(checkout: Path, directory: Path, runs_a_container: Callable[..., None]):
    prefix = directory / "prefix"
    run("make", "-C", checkout, "install", f"PREFIX={prefix}", timeout=200).ok()
    shutil.move(checkout, checkout.with_name("elsewhere"))
    try:
        runs_a_container(prefix / "bin/ctrun")
    finally:
        shutil.move(checkout.with_name("elsewhere"), checkout)
    pages = {path.name for path in (prefix / "share/man").rglob("*.[18]")}
    assert pages == {"ctrun.1", "ctr-init.8", "ctr-supervisor.8", "ctr-criu-bridge.8"}
    run("make", "-C", checkout, "uninstall", f"PREFIX={prefix}").ok()
    assert [path for path in prefix.rglob("*") if not path.is_dir()] == []


def test_a_wheel_in_a_fresh_environment(checkout: Path, directory: Path, runs_a_container: Callable[..., None]):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, "."],
        cwd=checkout,
        check=True,
        timeout=200,
    )
    (wheel,) = directory.glob("ctrun-*.whl")
    assert "linux" in wheel.name
    environment = directory / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=100)
    program = environment / "bin/ctrun"
    run(environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", wheel, timeout=100).ok()
    made = run(program, "--version", cwd="/")
    assert made.text.startswith("ctrun version")
    runs_a_container(program, isolated=False)
