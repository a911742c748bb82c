"""Checkpoint and restore by the API."""

from __future__ import annotations

from pathlib import Path

import pytest

import ctr_supervisor as api
from tests.integration.api.conftest import Make, init, script
from tests.support import criu
from tests.support.bundles import Config

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_busybox, pytest.mark.needs_ctr_init, pytest.mark.needs_criu]

COUNT = "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; mv /dev/shm/new /dev/shm/count; done"


def counted(container: api.Container) -> int:
    """How far it has counted."""
    with container.run(
        script("until [ -s /dev/shm/count ]; do :; done; cat /dev/shm/count", stdout=api.PIPE)
    ) as process:
        output, _ = process.communicate(timeout=60)
    assert output is not None
    return int(output)


@pytest.mark.timeout(120)
def test_a_restored_container_goes_on_where_it_was(make: Make, config: Config, directory: Path):
    images, path = str(directory / "images"), str(criu.find())
    quiet = {"stdout": api.DEVNULL, "stderr": api.DEVNULL}
    before = make(config)
    with before.run(init(COUNT, **quiet)) as process:
        reached = counted(before)
        told = before.checkpoint(api.CheckpointOptions(images, criu_path=path))
        assert told["stats"]
        assert process.wait(60) == 137
    after = make(config)
    with after.restore(init(COUNT, **quiet), api.RestoreOptions(images, criu_path=path)) as process:
        assert after.status == "running"
        assert after.pid == process.pid
        assert counted(after) >= reached
        process.signal("KILL")
        assert after.wait(60) in (137, None)


def test_a_checkpoint_of_a_container_that_does_not_run_is_refused(make: Make, directory: Path):
    with pytest.raises(api.WrongState):
        make().checkpoint(str(directory / "images"))


def test_only_the_first_process_is_restored(make: Make, directory: Path):
    with pytest.raises(api.UsageError, match="init=True"):
        make().restore(script("true"), str(directory / "images"))
