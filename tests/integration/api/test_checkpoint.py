"""Checkpoint and restore by the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import ctr_supervisor as api
from ctr_supervisor import aio
from tests.integration.api.conftest import ENVIRONMENT, Make, init, script
from tests.support import criu
from tests.support.bundles import Config
from tests.support.slowness import SLOWNESS
from tests.support.supervised import Supervisor, readable

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


@pytest.mark.timeout(120 * SLOWNESS)
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


LARGE = (
    "x=0123456789abcdef; while [ ${#x} -lt 2000000 ]; do x=$x$x; done; : > /dev/shm/count; while :; do sleep 1; done"
)
QUIET = {"stdout": api.DEVNULL, "stderr": api.DEVNULL}


@pytest.mark.needs_criu_feature("mem_dirty_track")
@pytest.mark.timeout(120 * SLOWNESS)
def test_a_checkpoint_after_a_pre_dump_has_little_left_to_write(make_any: Make, directory: Path):
    path, container = str(criu.find()), make_any()
    with container.run(init(LARGE, **QUIET)) as process:
        with container.run(script("until [ -e /dev/shm/count ]; do :; done")) as other:
            assert other.wait(60) == 0
        before = container.pre_dump(api.CheckpointOptions(str(directory / "one"), criu_path=path))
        assert container.status == "running"
        told = container.checkpoint(api.CheckpointOptions(str(directory / "two"), criu_path=path, parent_path="../one"))
        # How it ended is known no more on kernels before 6.15: a checkpoint leaves nothing but the images.
        assert readable(process.pidfd)
    with pytest.raises(api.ContainerNotFound):
        assert container.status
    assert told["stats"]["pages_skipped_parent"] > 256
    assert told["stats"]["pages_written"] < before["stats"]["pages_written"]


def test_a_pre_dump_where_the_kernel_tracks_no_memory_is_told_with_a_hint(make_any: Make, directory: Path):
    if criu.has_feature("mem_dirty_track"):
        pytest.skip("needs a kernel without soft-dirty tracking")
    container = make_any()
    with container.run(init(**QUIET)) as process:
        with pytest.raises(api.CriuError, match="criu has not the feature mem_track") as error:
            container.pre_dump(api.CheckpointOptions(str(directory / "images"), criu_path=str(criu.find())))
        assert "soft-dirty" in error.value.hint
        assert container.status == "running"
        process.signal("KILL")


def test_a_pre_dump_is_refused_in_the_same_words_for_asyncio(
    supervisor_process: Supervisor, config: Config, new_container_id: Callable[[], str], directory: Path
):
    """By a CRIU that is not there."""

    async def main() -> None:
        async with await aio.connect(str(supervisor_process.socket)) as connected:
            container = connected.create(new_container_id(), config)  # type: ignore[arg-type]
            async with container, await container.run(aio.Process(["sleep", "1000"], env=ENVIRONMENT, init=True)):
                with pytest.raises(api.CtrError, match="executable file not found"):
                    await container.pre_dump(
                        api.CheckpointOptions(str(directory / "images"), criu_path="/no/such/criu")
                    )
                assert await container.status() == "running"
                await container.destroy(force=True)

    asyncio.run(main())


@pytest.mark.timeout(120 * SLOWNESS)
def test_a_supervisor_checkpoints_with_the_criu_that_it_is_told(
    supervisor: api.Supervisor, config: Config, new_container_id: Callable[[], str], directory: Path
):
    container = supervisor.create(new_container_id(), config)  # type: ignore[arg-type]
    with container.run(init(COUNT, **QUIET)) as process:
        counted(container)
        options = api.CheckpointOptions(str(directory / "images"), criu_path=str(criu.find()), leave_running=True)
        assert container.checkpoint(options)["stats"]["pages_written"] > 0
        assert container.status == "running"
        process.signal("KILL")
        process.wait(60)
    container.destroy()


def test_a_checkpoint_of_a_container_that_does_not_run_is_refused(make: Make, directory: Path):
    with pytest.raises(api.WrongState):
        make().checkpoint(str(directory / "images"))


def test_only_the_first_process_is_restored(make: Make, directory: Path):
    with pytest.raises(api.UsageError, match="init=True"):
        make().restore(script("true"), str(directory / "images"))
