"""AppArmor profiles on the processes of a container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import Bundles
from tests.support.command import run
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_apparmor, pytest.mark.usefixtures("no_leaks")]

PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  ptrace,
  deny /etc/** w,
}}
"""
NAME = "ctrtest-container"


@pytest.fixture(scope="module")
def profile(run_directory: Path) -> Iterator[str]:
    """A profile in the kernel under which nothing below /etc can be written."""
    path = run_directory / "profile"
    path.write_text(PROFILE.format(name=NAME))
    flags = ["--skip-cache"]
    run("apparmor_parser", *flags, "--replace", path, timeout=60).ok()
    yield NAME
    run("apparmor_parser", *flags, "--remove", path, timeout=60).ok()


@pytest.mark.vm_short
def test_process_is_confined_by_the_profile(ctrun: Runtime, bundle: Bundles, container_id: str, profile: str):
    def confined(config):
        config["process"]["apparmorProfile"] = profile

    script = "cat /proc/self/attr/current; echo x >/tmp/x && echo outside; echo x >/etc/x"
    made = bundle(confined, args=["sh", "-c", script], writable=True)
    result = ctrun("run", "-b", made, container_id)
    assert result.out.splitlines() == [f"{profile} (enforce)", "outside"]
    assert "Permission denied" in result.err


def test_exec_takes_the_container_s_profile_or_its_own(
    ctrun: Runtime, bundle: Bundles, container_id: str, profile: str
):
    def confined(config):
        config["process"]["apparmorProfile"] = profile

    ctrun("run", "-d", "-b", bundle(confined, args=["sleep", "1000"]), container_id, stdin="").ok()
    assert ctrun("exec", container_id, "cat", "/proc/self/attr/current").text == f"{profile} (enforce)"
    ctrun("delete", "--force", container_id).ok()
    ctrun("run", "-d", "-b", bundle(args=["sleep", "1000"]), container_id, stdin="").ok()
    own = ctrun("exec", "--apparmor", profile, container_id, "cat", "/proc/self/attr/current")
    assert own.text == f"{profile} (enforce)"
    assert ctrun("exec", container_id, "cat", "/proc/self/attr/current").text == "unconfined"
    ctrun("delete", "--force", container_id).ok()


def test_unknown_profile_is_an_error_that_names_it(ctrun: Runtime, bundle: Bundles, container_id: str):
    def confined(config):
        config["process"]["apparmorProfile"] = "ctrtest-no-such-profile"

    result = ctrun("run", "-b", bundle(confined), container_id)
    assert result.code == 1
    assert "ctrtest-no-such-profile" in result.err
    assert len(result.err.splitlines()) == 1
