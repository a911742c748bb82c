"""What the tests of real cgroup v2 share: containers with limits, by each cgroup driver."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundles
from tests.support.command import Result
from tests.support.needs import lacking
from tests.support.runtime import Runtime
from tests.vm.users import SessionUser

CGROUPS = Path("/sys/fs/cgroup")


# What the machines of CI lack. A test elsewhere that needs one of these runs nowhere but in the guest.
GUEST_ALONE = ("needs_cgroup_v2", "needs_systemd", "needs_apparmor")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs a host with nothing but cgroup v2, and systemd on it; CI runs those that only do there."""
    for item in items:
        if "/tests/vm/" in str(item.path):
            for mark in ("needs_cgroup_v2", "needs_systemd", "needs_root"):
                item.add_marker(getattr(pytest.mark, mark))
        # elsewhere that file sees one controller alone
        elif item.path.name == "test_cgroups_v2.py" or any(item.get_closest_marker(mark) for mark in GUEST_ALONE):
            item.add_marker(pytest.mark.vm_short)


class Driver:
    """One cgroup driver of a runtime.

    Args:
        name: `cgroupfs` or `systemd`.
        ctrun: the runtime.
    """

    def __init__(self, name: str, ctrun: Runtime) -> None:
        self.name = name
        self.ctrun = ctrun

    def path(self, container: str) -> str:
        """The `cgroupsPath` that an engine would choose."""
        return f"/{container}" if self.name == "cgroupfs" else f"system.slice:ctrtest:{container}"

    def __call__(self, verb: str, *args: str | Path, **keywords: Any) -> Result:
        """Runs one verb with this driver."""
        __tracebackhide__ = True
        flags = ["--systemd-cgroup"] if self.name == "systemd" else []
        return self.ctrun(*flags, verb, *args, **keywords)

    def cgroup(self, container: str) -> Path:
        """Where the first process of a container is."""
        __tracebackhide__ = True
        pid = self.ctrun.state(container)["pid"]
        return CGROUPS / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


@pytest.fixture(params=["cgroupfs", "systemd"])
def driver(request: pytest.FixtureRequest, ctrun: Runtime) -> Driver:
    """Each of the cgroup drivers in turn."""
    return Driver(request.param, ctrun)


@pytest.fixture
def limited(bundle: Bundles, driver: Driver, container_id: str) -> Callable[..., Path]:
    """Factory of bundles with limits: `limited(["sh", …], pids={"limit": 3})`."""

    def make(args: list[str], **resources: Any) -> Path:
        def change(config: dict[str, Any]) -> None:
            config["linux"]["resources"] |= resources
            config["linux"]["cgroupsPath"] = driver.path(container_id)

        return bundle(change, args=args)

    return make


@pytest.fixture
def running(limited: Callable[..., Path], driver: Driver, container_id: str) -> Callable[..., Path]:
    """Starts a container with limits in the background; returns the cgroup of its first process."""

    def start(args: list[str] | None = None, **resources: Any) -> Path:
        made = limited(args or ["sleep", "1000"], **resources)
        driver("run", "-d", "-b", made, container_id, stdin="").ok()
        return driver.cgroup(container_id)

    return start


@pytest.fixture(scope="session")
def session_user() -> Iterator[SessionUser]:
    """An ordinary user with a systemd of its own, to which the host's systemd delegates cgroups."""
    reason = lacking("needs_systemd")
    if reason:
        pytest.skip(reason)
    user = SessionUser("ctrtestuser")
    yield user
    user.remove()


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the config.json of a bundle."""
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
