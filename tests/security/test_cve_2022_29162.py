"""CVE-2022-29162: `exec --cap` gave inheritable capabilities, which files with such bits turned into permitted ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.security.hostile import FOREVER, plain, running
from tests.support.bundles import Bundles, Config
from tests.support.command import Result
from tests.support.runtime import Runtime

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ctrun, pytest.mark.usefixtures("no_leaks")]

NET_RAW = 1 << 13
SHOW = ["grep", "^Cap", "/proc/self/status"]


def sets(result: Result) -> dict[str, int]:
    """The capability sets that a process printed."""
    return {line.split(":")[0]: int(line.split()[1], 16) for line in result.lines}


def test_a_container_has_no_inheritable_capabilities_unless_it_asks(ctrun: Runtime, bundle: Bundles, container_id: str):
    found = sets(ctrun("run", "-b", bundle(plain, args=SHOW), container_id))
    assert found["CapPrm"] != 0
    assert (found["CapInh"], found["CapAmb"]) == (0, 0)


@pytest.mark.parametrize("user", ["0", "1000"])
def test_exec_with_a_capability_leaves_the_inheritable_set_empty(
    ctrun: Runtime, bundle: Bundles, container_id: str, user: str
):
    with running(ctrun, bundle(plain, args=FOREVER), container_id):
        found = sets(ctrun("exec", "--user", user, "--cap", "CAP_NET_RAW", container_id, *SHOW))
    assert found["CapBnd"] & NET_RAW
    assert (found["CapInh"], found["CapAmb"]) == (0, 0)
    # a user without an id of root has it in his reach, but not in hand after execve
    assert bool(found["CapEff"] & NET_RAW) == (user == "0")


def test_a_process_file_without_inheritable_capabilities_gets_none(
    ctrun: Runtime, bundle: Bundles, container_id: str, directory: Path
):
    def mutate(config: Config) -> None:
        plain(config)
        config["process"]["capabilities"]["inheritable"] = ["CAP_KILL"]

    made = bundle(mutate, args=FOREVER)
    process = json.loads((made / "config.json").read_text())["process"]
    process["args"] = SHOW
    del process["capabilities"]["inheritable"]
    (directory / "process.json").write_text(json.dumps(process))
    with running(ctrun, made, container_id):
        assert sets(ctrun("exec", "-p", directory / "process.json", container_id))["CapInh"] == 0


def test_the_configuration_that_spec_writes_asks_for_no_inheritable_capabilities(ctrun: Runtime, directory: Path):
    ctrun("spec", "-b", directory).ok()
    assert "inheritable" not in json.loads((directory / "config.json").read_text())["process"]["capabilities"]
