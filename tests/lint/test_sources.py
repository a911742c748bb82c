"""House rules on the text of the sources."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 600
# A file beyond that says at its top why it is not split.
REASON = re.compile(r"long (file|because)|not split", re.IGNORECASE)

# Places that exist on one machine alone, and hosts that a package client is configured for elsewhere.
FOREIGN = re.compile(
    r"/work/(main|shared)\b|/root/\.|py" + r"pi\.org|pythonhosted\.org|deb" + r"\.debian\.org"
    r"|registry\.npm" + r"js\.org|docker" + r"\.io/[a-z]|quay" + r"\.io/|ghcr" + r"\.io/"
)


def tracked() -> list[Path]:
    """Files of the project; without git, what looks like them."""
    try:
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        kept = [path for path in ROOT.iterdir() if path.name not in ("build", "dist", ".venv", ".git")]
        files = [path for top in kept for path in ([top] if top.is_file() else sorted(top.rglob("*")))]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"]


def text_of(path: Path) -> str:
    """Contents of a text file; nothing of another one."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def code() -> list[Path]:
    """Python and C files of the project."""
    return [path for path in tracked() if path.suffix in (".py", ".c", ".h")]


def test_no_file_is_longer_than_its_reason_allows():
    long = []
    for path in code():
        lines = text_of(path).splitlines()
        if len(lines) > LONGEST_FILE and not REASON.search("\n".join(lines[:12])):
            long.append(f"{path.relative_to(ROOT)}: {len(lines)} lines")
    assert long == []


def test_no_file_names_a_place_outside_of_the_project():
    found = []
    for path in tracked():
        if "tests/data" in str(path):
            continue
        for number, line in enumerate(text_of(path).splitlines(), 1):
            match = FOREIGN.search(line)
            if match:
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert found == []


def test_package_files_on_start_up_paths_hold_a_docstring_only():
    for package in ("ctr_common", "ctr_init", "ctr_supervisor"):
        for path in sorted((ROOT / package).rglob("__init__.py")):
            body = ast.parse(path.read_text()).body
            assert isinstance(body[0], ast.Expr), path.relative_to(ROOT)
            if str(path.relative_to(ROOT)) == "ctr_supervisor/__init__.py":
                # the names of the API, found when they are asked for
                assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in body)
            else:
                assert len(body) == 1, path.relative_to(ROOT)


def test_public_functions_and_classes_say_what_they_are_for():
    missing = []
    for package in ("ctr_common", "ctr_init", "ctr_supervisor", "ctr_criu_bridge", "scripts"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            places = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
            for place in places:
                for node in place.body:
                    named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                    if named and not node.name.startswith("_") and not ast.get_docstring(node):
                        missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert missing == []


def test_every_ignore_names_what_it_ignores():
    bare = []
    for path in code():
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if re.search(r"#\s*(noqa|type:\s*ignore)(?![:\[])", line) and path != Path(__file__):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []


SCRIPTS = ("drive-the-bridge", "rolling-restart", "run-by-hand", "watch-events", "bundle/make-rootfs", "bundle/show")


@pytest.mark.parametrize("script", ["dev", "scripts/demo", *(f"examples/{name}" for name in SCRIPTS)])
def test_shell_scripts_parse(script: str):
    done = subprocess.run(["sh", "-n", ROOT / script], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_launcher_templates_are_tracked():
    names = {str(path.relative_to(ROOT)) for path in tracked()}
    assert {"bin/ctrun-direct.in", "bin/ctr-init-setup.in"} <= names
