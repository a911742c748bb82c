"""Containers of this very program for asyncio: what blocks is done in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from ctr_common.errors import CtrError
from ctr_supervisor.api import direct, ends
from ctr_supervisor.api.aio_base import Container, EventStream, Notification, Process, end_of_init
from ctr_supervisor.api.container import Container as BlockingContainer
from ctr_supervisor.api.events import Event
from ctr_supervisor.api.events import EventStream as BlockingEvents

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.direct_container import DirectContainer as BlockingDirect
    from ctr_supervisor.api.types import Config, ContainerState, Network, PressureLevel, Resources, Stats, Status


class _DirectEvents(EventStream):
    """A blocking stream, one call of which is under way in a thread as long as somebody has asked for an event."""

    def __init__(self, source: BlockingEvents) -> None:
        self._source = source
        self._call: asyncio.Future[Event | None] | None = None

    async def next(self, timeout: float | None = None) -> Event | None:
        """See the base."""
        if self._call is None:
            self._call = asyncio.ensure_future(asyncio.to_thread(self._source.next))
        # Neither the end of the time nor a cancellation ends the call: what it gets is for whoever asks next.
        done, _ = await asyncio.wait([self._call], timeout=timeout)
        if not done:
            return None
        call, self._call = self._call, None
        return call.result()

    async def close(self) -> None:
        """See the base."""
        self._source.close()
        if self._call is not None:
            call, self._call = self._call, None
            await asyncio.wait([call])


class DirectContainer(Container):
    """A container whose engine is this program.

    Args:
        container: the blocking form of it.
    """

    def __init__(self, container: BlockingContainer) -> None:
        self._container = container

    @property
    def id(self) -> str:
        """Its id."""
        return self._container.id

    async def _get(self, name: str) -> Any:
        return await asyncio.to_thread(getattr, self._container, name)

    async def status(self) -> Status:
        """See the base."""
        return cast("Status", await self._get("status"))

    async def state(self) -> ContainerState:
        """See the base."""
        return cast("ContainerState", await self._get("state"))

    async def config(self) -> Config:
        """See the base."""
        return cast("Config", await self._get("config"))

    async def pid(self) -> int:
        """See the base."""
        return cast("int", await self._get("pid"))

    async def exit_status(self) -> int | None:
        """See the base."""
        return cast("int | None", await self._get("exit_status"))

    async def _finish(self, call: Callable[..., Any], process: Process, *arguments: Any) -> Process:
        """Makes a process in a thread, whose end is awaited even by a cancelled task: nothing may be half made."""
        making = asyncio.ensure_future(asyncio.to_thread(call, process, *arguments))
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait([making])
            if making.exception() is None:
                await asyncio.to_thread(_end, process)
            raise
        await process.attach()
        return process

    async def start(self, process: Process) -> Process:
        """See the base."""
        return await self._finish(self._container.start, process)

    async def run(self, process: Process) -> Process:
        """See the base."""
        return await self._finish(self._container.run, process)

    async def exec(self) -> None:
        """See the base."""
        await asyncio.to_thread(self._container.exec)

    async def wait(self, timeout: float | None = None) -> int | None:
        """See the base."""
        container = cast("BlockingDirect", self._container)
        pidfd = await asyncio.to_thread(container.pidfd)
        if pidfd is not None:
            with pidfd:
                try:
                    async with asyncio.timeout(timeout):
                        await end_of_init(pidfd.fileno())
                except TimeoutError:
                    raise TimeoutError(f"container {self.id} still runs after {timeout:g} seconds") from None
                return await asyncio.to_thread(container.end_of, pidfd.fileno())
        return await asyncio.to_thread(container.end_of, -1)

    async def signal(self, signal: int | str, *, all: bool = False) -> None:
        """See the base."""
        await asyncio.to_thread(self._container.signal, signal, all=all)

    async def pause(self) -> None:
        """See the base."""
        await asyncio.to_thread(self._container.pause)

    async def resume(self) -> None:
        """See the base."""
        await asyncio.to_thread(self._container.resume)

    async def destroy(self, *, force: bool = False) -> None:
        """See the base."""
        await asyncio.to_thread(self._container.destroy, force=force)

    async def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """See the base."""
        await asyncio.to_thread(
            self._container.set, resources, l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema
        )

    async def stats(self) -> Stats:
        """See the base."""
        return await asyncio.to_thread(self._container.stats)

    async def processes(self) -> list[int]:
        """See the base."""
        return await asyncio.to_thread(self._container.processes)

    async def events(self, interval: float | None = None) -> EventStream:
        """See the base."""
        return _DirectEvents(await asyncio.to_thread(self._container.events, interval))

    async def notify_oom(self) -> Notification:
        """See the base."""
        return Notification(await asyncio.to_thread(self._container.notify_oom))

    async def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See the base."""
        return Notification(await asyncio.to_thread(self._container.notify_memory_pressure, level))

    async def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return await asyncio.to_thread(self._container.checkpoint, options)

    async def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """See the base."""
        return await asyncio.to_thread(self._container.pre_dump, options)

    async def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """See the base."""
        return await self._finish(self._container.restore, process, options)


def _end(process: Process) -> None:
    """Ends a process that nobody will hear of."""
    try:
        process.signal("KILL")
        ends.wait(process.handle, None, "the process", init=process.init)
    except CtrError:
        pass
    process.close()


async def create(
    root: str,
    id: str,
    config: Config,
    *,
    bundle: str | None = None,
    networks: Sequence[Network] = (),
    systemd_cgroup: bool = False,
    no_pivot: bool = False,
    no_new_keyring: bool = False,
) -> Container:
    """Takes an id for a container; see `create` of this package."""
    made = await asyncio.to_thread(
        direct.create,
        root,
        id,
        config,
        bundle=bundle,
        networks=networks,
        systemd_cgroup=systemd_cgroup,
        no_pivot=no_pivot,
        no_new_keyring=no_new_keyring,
    )
    return DirectContainer(made)


async def load(root: str, id: str) -> Container:
    """A container that is there; see `load` of this package."""
    return DirectContainer(await asyncio.to_thread(direct.load, root, id))


async def list_containers(root: str) -> list[Container]:
    """All containers under a state root; see `list` of this package."""
    return [DirectContainer(found) for found in await asyncio.to_thread(direct.list_containers, root)]
