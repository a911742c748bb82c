"""A supervisor for each test, with a state root of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.command import run
from tests.support.runtime import Runtime, runtime_under_test
from tests.support.supervised import Client, Supervisor


@pytest.fixture
def direct(directory: Path) -> Iterator[Runtime]:
    """`ctrun` that works on the supervisor's state root without it; deletes what is left there."""
    made = Runtime(runtime_under_test(), directory / "root")
    yield made
    if made.state_root.exists():
        for container in sorted(os.listdir(made.state_root)):
            run(made.path, *made.globals, "delete", "--force", container, timeout=60)


@pytest.fixture
def supervisor(directory: Path, direct: Runtime) -> Iterator[Supervisor]:
    """A running supervisor."""
    made = Supervisor(directory)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(supervisor: Supervisor) -> Iterator[Client]:
    """A connection to it."""
    with supervisor.client() as made:
        yield made


@pytest.fixture
def cheap_bundle(bundle: Bundles) -> Callable[..., Path]:
    """A factory of bundles whose containers cost little: a pid and a mount namespace, few mounts."""

    def make(*args: str) -> Path:
        def strip(config: dict[str, Any]) -> None:
            config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] == "/proc"]
            config["linux"] = {"namespaces": [{"type": "pid"}, {"type": "mount"}]}
            config["process"]["capabilities"] = {}
            del config["hostname"]

        return bundle(strip, args=list(args))

    return make
