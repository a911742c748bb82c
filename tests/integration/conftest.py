"""Containers to look around in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bundles import Bundles, copy_rootfs
from tests.support.command import run
from tests.support.inside import Inside, build_probe
from tests.support.needs import lacking
from tests.support.runtime import Runtime


@pytest.fixture(scope="session")
def probe(run_directory: Path) -> Path:
    """A static program that tells what a process can find out about itself."""
    reason = lacking("needs_command", "musl-gcc")
    if reason:
        pytest.skip(reason)
    return build_probe(run_directory)


@pytest.fixture(scope="session")
def probing_rootfs(run_directory: Path, busybox_rootfs: Path, probe: Path) -> Path:
    """A busybox root file system with the probe in its PATH."""
    rootfs = run_directory / "probing"
    copy_rootfs(busybox_rootfs, rootfs)
    (rootfs / "bin/probe").write_bytes(probe.read_bytes())
    (rootfs / "bin/probe").chmod(0o755)
    return rootfs


@pytest.fixture
def inside(
    ctrun: Runtime, runc: Runtime, directory: Path, probing_rootfs: Path, new_container_id: Callable[[], str]
) -> Inside:
    """Runs containers and gives what they print."""
    return Inside(ctrun, runc, Bundles(directory, probing_rootfs), new_container_id)


@contextmanager
def loaded_profile(directory: Path, suffix: str = "") -> Iterator[str]:
    """An AppArmor profile that allows nearly everything, in the kernel for as long as it is needed."""
    name = f"ctrtest-{os.getpid()}{suffix}"
    file = directory / f"profile{suffix}"
    file.write_text(
        f"profile {name} flags=(attach_disconnected,mediate_deleted) {{\n"
        "  capability,\n  network,\n  file,\n  signal,\n  unix,\n  deny /etc/group r,\n}\n"
    )
    run("apparmor_parser", "--replace", file).ok()
    yield name
    run("apparmor_parser", "--remove", file).ok()


@pytest.fixture
def apparmor_profile(directory: Path) -> Iterator[str]:
    """Name of a loaded AppArmor profile that allows nearly everything."""
    with loaded_profile(directory) as name:
        yield name


@pytest.fixture
def apparmor_other_profile(directory: Path) -> Iterator[str]:
    """Name of another one."""
    with loaded_profile(directory, "-other") as name:
        yield name
