"""The client as it is installed, and built with sanitizers; each test that starts it runs with both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.client.fake import DIRECT, Client, Supervisor

SOURCE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def builds(run_directory: Path) -> dict[str, Path]:
    """Directories with a build of the client and a direct program that tells its arguments."""
    # relative, since make cannot make a file with a space in its path
    build = "../../build/client"
    outs = {"OUT": f"{build}/ctrun", "ASAN_OUT": f"{build}/ctrun.asan", "CHECK_OUT": f"{build}/decode.asan"}
    settings = [f"{name}={path}" for name, path in outs.items()]
    subprocess.run(
        ["make", "-s", "-C", SOURCE / "c/client", *settings, "all", "asan", "check"], check=True, timeout=300
    )
    made = {}
    for name, built in (("static", "ctrun"), ("asan", "ctrun.asan")):
        directory = run_directory / f"client-{name}"
        directory.mkdir()
        shutil.copy2(SOURCE / "build/client" / built, directory / "ctrun")
        direct = directory / "ctrun-direct"
        direct.write_text(DIRECT)
        direct.chmod(0o755)
        made[name] = directory
    return made


@pytest.fixture
def decoder(builds: dict[str, Path]) -> Path:
    """The decoder alone, with sanitizers."""
    return SOURCE / "build/client/decode.asan"


@pytest.fixture(params=["static", "asan"])
def binary(request: pytest.FixtureRequest, builds: dict[str, Path]) -> Path:
    return builds[request.param] / "ctrun"


@pytest.fixture
def supervisor(directory: Path) -> Iterator[Supervisor]:
    made = Supervisor(directory / "s.sock")
    yield made
    made.close()


@pytest.fixture
def start(binary: Path, supervisor: Supervisor) -> Iterator[Callable[..., Client]]:
    """Factory of clients that use the supervisor, unless they are told otherwise."""
    with ExitStack() as stack:

        def make(*arguments: str | Path, **options: Any) -> Client:
            options.setdefault("supervisor", supervisor.path)
            return stack.enter_context(Client(binary, arguments, **options))

        yield make
