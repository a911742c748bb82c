"""ctr-init as it is installed, and built with sanitizers; each test that starts it runs with both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.nsexec.driver import Attribute, Driver
from tests.support.slowness import SLOWNESS

SOURCE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def binaries(run_directory: Path) -> dict[str, Path]:
    """Both builds, where every user may execute them."""
    source = SOURCE / "c/nsexec"
    # relative, since make cannot make a file with a space in its path
    build = "../../build/nsexec"
    made = {"static": f"{build}/ctr-init", "asan": f"{build}/ctr-init.asan"}
    subprocess.run(
        ["make", "-s", "-C", source, f"OUT={made['static']}", f"ASAN_OUT={made['asan']}", "all", "asan"],
        check=True,
        timeout=300 * SLOWNESS,
    )
    return {name: Path(shutil.copy2(source / path, run_directory)) for name, path in made.items()}


@pytest.fixture(params=["static", "asan"])
def binary(request: pytest.FixtureRequest, binaries: dict[str, Path]) -> Path:
    return binaries[request.param]


@pytest.fixture
def start(binary: Path) -> Iterator[Callable[..., Driver]]:
    """Factory of started ctr-inits that wait for BOOTSTRAP."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Driver(binary, **options))


@pytest.fixture
def ready(start: Callable[..., Driver]) -> Callable[..., Driver]:
    """Factory of container processes that wait for SETTINGS; the arguments are attributes of BOOTSTRAP."""

    def make(*pairs: Attribute, fds: Any = (), **options: Any) -> Driver:
        driver = start(**options)
        driver.bootstrap(*pairs, fds=fds)
        driver.go()
        return driver

    return make
