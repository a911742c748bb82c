"""The API for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

import ctr_supervisor as api
from ctr_supervisor import aio
from tests.integration.api.conftest import ENVIRONMENT
from tests.support.bundles import Config
from tests.support.supervised import Supervisor

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_busybox,
    pytest.mark.needs_ctr_init,
]

LIMIT = 60


def init(text: str = "exec sleep 1000", **options: Any) -> aio.Process:
    """A container's first process, which runs a shell script."""
    return script(text, init=True, **options)


def script(text: str, **options: Any) -> aio.Process:
    """One more process."""
    return aio.Process(["sh", "-c", text], **{"env": ENVIRONMENT, "stdin": api.DEVNULL, **options})


World = Callable[[Callable[[aio.Container], Coroutine[Any, Any, None]]], None]


@pytest.fixture(params=["direct", "supervised"])
def inside(
    request: pytest.FixtureRequest, state_root: str, config: Config, new_container_id: Callable[[], str]
) -> World:
    """Runs a coroutine function with a container, which is destroyed in the end."""
    running: Supervisor | None = None
    if request.param == "supervised":
        running = request.getfixturevalue("supervisor_process")

    @asynccontextmanager
    async def container() -> AsyncIterator[aio.Container]:
        if running is None:
            async with await aio.create(state_root, new_container_id(), config) as made:  # type: ignore[arg-type]
                yield made
        else:
            async with (
                await aio.connect(str(running.socket)) as supervisor,
                supervisor.create(new_container_id(), config) as made,  # type: ignore[arg-type]
            ):
                yield made

    def run(body: Callable[[aio.Container], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(LIMIT), container() as made:
                await body(made)

        asyncio.run(main())

    return run


def test_a_process_has_its_pipes_and_its_exit_status(inside: World):
    async def body(container: aio.Container) -> None:
        process = init("cat; echo err >&2; exit 7", stdin=api.PIPE, stdout=api.PIPE, stderr=api.PIPE)
        async with await container.run(process):
            assert await process.communicate(b"hello\n" * 30_000) == (b"hello\n" * 30_000, b"err\n")
            assert await process.wait() == 7
        assert await container.wait() == 7
        assert await container.exit_status() == 7
        assert await container.status() == "stopped"

    inside(body)


def test_a_container_is_created_until_exec_lets_it_go(inside: World):
    async def body(container: aio.Container) -> None:
        async with await container.start(init()) as process:
            assert await container.status() == "created"
            assert await container.pid() == process.pid
            await container.exec()
            assert await container.status() == "running"

    inside(body)


def test_a_supervisor_knows_how_a_destroyed_container_ended(
    supervisor_process: Supervisor,
    config: Config,
    new_container_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
):
    """Kernels before 6.15 tell nobody."""
    monkeypatch.setattr("ctr_supervisor.api.ends.status_of_other", lambda *_: None)

    async def main() -> None:
        async with asyncio.timeout(LIMIT), await aio.connect(str(supervisor_process.socket)) as supervisor:
            container = supervisor.create(new_container_id(), config)  # type: ignore[arg-type]
            async with await container.run(init()) as process:
                await container.destroy(force=True)
                assert await process.wait() == 137

    asyncio.run(main())


def test_several_processes_at_once(inside: World):
    async def body(container: aio.Container) -> None:
        async def execute(number: int) -> int:
            async with await container.run(script(f"exit {number}")) as process:
                return await process.wait()

        async with await container.run(init()):
            assert await asyncio.gather(*map(execute, range(8))) == list(range(8))

    inside(body)


@pytest.mark.needs_limits
def test_a_pause_limits_statistics_and_processes(inside: World):
    async def body(container: aio.Container) -> None:
        async with await container.run(init()) as process:
            await container.pause()
            assert await container.status() == "paused"
            await container.resume()
            await container.set({"pids": {"limit": 9}})
            assert (await container.stats())["pids"] == {"current": 1, "limit": 9}
            assert (await container.config())["linux"]["resources"]["pids"]["limit"] == 9
            assert await container.processes() == [process.pid]
            assert (await container.state())["id"] == container.id

    inside(body)


def test_an_end_is_told_to_everybody_who_waits(inside: World):
    async def body(container: aio.Container) -> None:
        async with await container.run(init()) as process, await container.events() as events:
            waits = [asyncio.create_task(wait) for wait in (process.wait(), process.wait(), container.wait())]
            with pytest.raises(TimeoutError):
                await process.wait(0.01)
            await container.signal("KILL")
            assert await asyncio.gather(*waits) == [137] * 3
            assert [event.type async for event in events][-1] == "exited"

    inside(body)


def test_a_process_that_nobody_waits_for_does_not_hold_up_the_end(inside: World):
    async def body(container: aio.Container) -> None:
        async with await container.run(init()) as process:
            await container.run(script("exec sleep 1000"))
            process.signal("KILL")
            assert await process.wait() == 137

    inside(body)


def test_an_event_is_not_lost_to_somebody_who_waits_no_longer(inside: World):
    async def body(container: aio.Container) -> None:
        async with await container.run(init()) as process, await container.events() as events:
            assert await events.next(0.01) is None
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(events.next(), 0.01)
            process.signal("KILL")
            assert [event.type async for event in events] == ["exited"]
            assert await process.wait() == 137

    inside(body)


def test_a_failure_is_the_same_error(inside: World):
    async def body(container: aio.Container) -> None:
        with pytest.raises(api.InitError):
            await container.run(aio.Process(["/no/such/program"], init=True))
        with pytest.raises(api.WrongState):
            await container.run(script("true"))

    inside(body)


@pytest.mark.needs_limits
def test_a_notification_can_be_awaited(inside: World):
    async def body(container: aio.Container) -> None:
        async with await container.run(init()) as process, await container.notify_oom() as oom:
            assert await oom.wait(0.01) == 0
            process.signal("KILL")
            assert [count async for count in oom] == []
            assert oom.gone
            assert await process.wait() == 137

    inside(body)


def test_a_cancelled_start_leaves_no_process(state_root: str, config: Config, new_container_id: Callable[[], str]):
    async def main() -> None:
        async with await aio.create(state_root, new_container_id(), config) as container:  # type: ignore[arg-type]
            task = asyncio.create_task(container.start(init()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await container.status() == "stopped"

    asyncio.run(main())


def test_containers_are_listed_and_loaded(state_root: str, config: Config, new_container_id: Callable[[], str]):
    async def main() -> None:
        async with await aio.create(state_root, new_container_id(), config) as container:  # type: ignore[arg-type]
            assert [found.id for found in await aio.list(state_root)] == [container.id]
            assert await (await aio.load(state_root, container.id)).status() == "stopped"

    asyncio.run(main())
