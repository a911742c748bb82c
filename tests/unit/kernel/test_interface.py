"""The stubs tell the truth about the extensions, and the numbers are those of their sources."""

from __future__ import annotations

import ast
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ctr_common.kernel import _kernel, _seccomp, constants

ROOT = Path(__file__).parents[3]
PROTOCOL = (ROOT / "c/nsexec/protocol.def").read_text()


def stub_of(module: ModuleType) -> ast.Module:
    return ast.parse((ROOT / f"ctr_common/kernel/{module.__name__.rpartition('.')[2]}.pyi").read_text())


def public(module: ModuleType) -> set[str]:
    return {name for name in dir(module) if not name.startswith("_")}


@pytest.mark.parametrize("module", [_kernel, _seccomp])
def test_the_stub_lists_every_name_and_no_other(module: ModuleType) -> None:
    stub = stub_of(module)
    names = [node.name for node in stub.body if isinstance(node, ast.FunctionDef)]
    names += [
        node.target.id for node in stub.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]

    assert len(names) == len(set(names))
    assert set(names) == public(module)


@pytest.mark.parametrize("module", [_kernel, _seccomp])
def test_the_stub_has_the_parameters_that_the_functions_have(module: ModuleType) -> None:
    for node in stub_of(module).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        described = re.match(r"\w+\((.*?)\)(?: |$)", getattr(module, node.name).__doc__)
        assert described, node.name
        names = [part.partition("=")[0].strip(" )") for part in described[1].split(",") if part.strip(" )")]
        assert names == [argument.arg for argument in node.args.args], node.name


def test_every_function_of_the_kernel_takes_its_parameters_by_name() -> None:
    for node in stub_of(_kernel).body:
        if isinstance(node, ast.FunctionDef) and node.args.args:
            with pytest.raises(TypeError, match="nosuchparameter|missing|required"):
                getattr(_kernel, node.name)(nosuchparameter=1)


def test_messages_and_attributes_are_those_of_the_protocol() -> None:
    for kind, prefix, names in (
        ("MESSAGE", "MSG_", _kernel.MESSAGE_NAMES),
        ("ATTRIBUTE", "ATTR_", _kernel.ATTRIBUTE_NAMES),
    ):
        found = {int(number): name for name, number in re.findall(rf"^CTR_{kind}\((\w+), (\d+),", PROTOCOL, re.M)}
        assert names == found
        assert {name for name in public(_kernel) if name.startswith(prefix)} == {
            prefix + name for name in found.values()
        }
        assert all(getattr(_kernel, prefix + name) == number for number, name in found.items())


def test_constants_are_in_alphabetical_order() -> None:
    source = Path(constants.__file__).read_text()
    names = re.findall(r"^(\w+) = ", source, re.M)

    assert names == sorted(names)


@pytest.mark.parametrize("module", [os, signal, socket, resource])
def test_constants_agree_with_the_standard_library(module: ModuleType) -> None:
    for name in public(constants):
        theirs = getattr(module, name, None)
        if isinstance(theirs, int) and name != "RLIM_INFINITY":
            assert int(theirs) == getattr(constants, name), name


def test_importing_costs_no_other_module() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules);"
        "from ctr_common.kernel import _kernel, constants; print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, ROOT], capture_output=True, text=True, check=True, timeout=30
    )

    assert set(result.stdout.split()) <= {
        "ctr_common",
        "ctr_common.kernel",
        "ctr_common.kernel._kernel",
        "ctr_common.kernel.constants",
    }
