"""The package `ctr_supervisor` as programs import it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import ctr_supervisor as api
from tests.support.runtime import ROOT


def python(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_an_import_of_the_package_imports_nothing():
    code = "import sys; before = set(sys.modules); import ctr_supervisor; print(set(sys.modules) - before)"
    assert python(code) == "{'ctr_supervisor'}"


def test_every_name_is_there():
    for name in api.__all__:
        assert getattr(api, name) is not None
    assert set(api.__all__) <= set(dir(api))


def test_an_unknown_name_is_none():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        api.nothing  # noqa: B018


def test_the_documentation_can_be_read():
    shown = python("import pydoc, ctr_supervisor; print(pydoc.plain(pydoc.render_doc(ctr_supervisor.Container)))")
    for name in ("checkpoint", "destroy", "events", "exec", "notify_oom", "pre_dump", "restore", "set", "start"):
        # newer interpreters put a long signature's arguments on lines of their own
        assert re.search(rf"{name}\(\s*(\|\s*)?self", shown), name


def test_the_help_of_the_package_names_what_is_there():
    shown = python("import pydoc; print(pydoc.plain(pydoc.render_doc('ctr_supervisor')))")
    assert "libcontainer" in shown
    assert "class Container(" in shown
