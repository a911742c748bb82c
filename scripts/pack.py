"""Packs the compiled modules of the command line into one file, which ctr_common/packed.py imports from.

usage: pack.py [--final DIRECTORY] [--unchecked] --to FILE TREE

TREE holds the packages. With --final, that is where TREE will be in the end. With --unchecked, nobody will ever look
whether a source has changed: for an installed tree. Run it with the interpreter that will read the pack.
"""

import argparse
import ast
import marshal
import os
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path

PACKAGES = ("ctr_common", "ctr_criu_bridge", "ctr_init", "ctr_supervisor")
LOADER = "ctr_common/packed.py"
VERBS = ("checkpoint", "create", "delete", "exec", "kill", "list", "restore", "run", "start", "state")
# The modules that these import at module level, and so on, are packed. Rare things are left to Python: a larger pack
# takes longer to read.
ROOTS = (
    *(f"ctr_supervisor.{room}.{verb}" for room in ("cli", "engine") for verb in VERBS),
    "ctr_common.spec.validate_linux",
    "ctr_common.spec.validate_process",
    "ctr_common.wire",
    "ctr_criu_bridge.server",
    "ctr_init.inside",
    "ctr_init.plan",
    "ctr_init.worker",
    "ctr_supervisor.cgroups.devices_ebpf",
    "ctr_supervisor.cgroups.v1",
    "ctr_supervisor.cgroups.v2",
    "ctr_supervisor.cli.main",
    "ctr_supervisor.process.foreground",
)


def sources(tree: Path) -> dict[str, Path]:
    """All modules: path from the tree by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((tree / package).rglob("*.py")):
            relative = path.relative_to(tree)
            parts = relative.with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = relative
    return found


class Module:
    """A module to pack.

    Args:
        name: its name.
        source: where it is now.
        shown_as: where it will be, for tracebacks.
    """

    def __init__(self, name: str, source: Path, shown_as: Path) -> None:
        self.name = name
        self.shown_as = shown_as
        self.is_package = source.name == "__init__.py"
        self.status = source.stat()
        syntax = ast.parse(source.read_bytes())
        self.imports = list(dict.fromkeys(imports(syntax)))
        self.code = marshal.dumps(compile(without_docstrings(syntax), shown_as, "exec", dont_inherit=True))


def imports(syntax: ast.Module) -> Iterator[str]:
    """What a module may import when it is imported itself, each name behind the packages that it is in."""
    for node in syntax.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def without_docstrings(syntax: ast.Module) -> ast.Module:
    """The same without docstrings, a seventh of the size; assertions stay."""
    for node in ast.walk(syntax):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node):
            # nothing may stand before a module's `from __future__ import`
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
    return syntax


def closure(known: dict[str, Path], tree: Path, final: Path) -> dict[str, Module]:
    """The modules to pack, by name: ROOTS and what they import at module level.

    Args:
        known: all modules.
        tree: the directory that holds the packages.
        final: where it will be.
    """
    found: dict[str, Module] = {}
    left = [name for root in ROOTS for name in (root.rpartition(".")[0], root)]
    while left:
        name = left.pop()
        if name in known and name not in found:
            found[name] = Module(name, tree / known[name], final / known[name])
            left += found[name].imports
    return found


def pack(tree: Path, final: Path, unchecked: bool) -> bytes:
    """The contents of a pack.

    Args:
        tree: the directory that holds the packages.
        final: where it will be.
        unchecked: sources never change.
    """
    packed = closure(sources(tree), tree, final)
    index = {}
    start = -sum(len(module.code) for module in packed.values())
    for module in packed.values():
        index[module.name] = (
            str(module.shown_as),
            None if unchecked else (module.status.st_mtime_ns, module.status.st_size),
            module.is_package,
            tuple(name for name in module.imports if name in packed and name != module.name),
            start,
            len(module.code),
        )
        start += len(module.code)
    loader = compile((tree / LOADER).read_bytes(), final / LOADER, "exec", dont_inherit=True)
    return MAGIC_NUMBER + marshal.dumps((loader, index)) + b"".join(module.code for module in packed.values())


def main() -> None:
    """Writes the pack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--final", type=Path)
    parser.add_argument("--unchecked", action="store_true")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("tree", type=Path)
    args = parser.parse_args()
    contents = pack(args.tree, args.final or args.tree.absolute(), args.unchecked)
    # by rename: a start that comes meanwhile reads the old one or the new one
    new = args.to.with_name(f".{args.to.name}.new")
    args.to.parent.mkdir(parents=True, exist_ok=True)
    new.write_bytes(contents)
    new.chmod(0o644)
    os.replace(new, args.to)


if __name__ == "__main__":
    main()
