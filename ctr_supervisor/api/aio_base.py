"""What the direct and the supervised form for asyncio have in common: processes, streams of events, the container."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO, TYPE_CHECKING

from ctr_common.errors import UsageError
from ctr_supervisor.api import ends
from ctr_supervisor.api import notifications as blocking_notifications
from ctr_supervisor.api import process as blocking
from ctr_supervisor.api.events import Event

if TYPE_CHECKING:
    from ctr_supervisor.api.criu import CheckpointOptions, RestoreOptions
    from ctr_supervisor.api.types import Config, ContainerState, PressureLevel, Resources, Stats, Status


def done(ready: asyncio.Future[None]) -> None:
    """What was waited for has happened."""
    if not ready.done():
        ready.set_result(None)


async def readable(fd: int) -> None:
    """Waits until a fd can be read, with the loop; any number of tasks may wait for one."""
    own = os.dup(fd)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(own, done, ready)
        await ready
    finally:
        loop.remove_reader(own)
        os.close(own)


async def end_of_init(pidfd: int) -> None:
    """Waits for the end of an init process, and reaps whatever else of ours ends meanwhile; see `ends.Children`."""
    watcher = ends.children.watch()
    try:
        while True:
            living = ends.children.living()
            living.pop(pidfd, None)
            waits = {asyncio.ensure_future(readable(fd)): fd for fd in (pidfd, watcher.fileno(), *living)}
            try:
                ready, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            fds = [waits[wait] for wait in ready]
            if pidfd in fds:
                return
            ends.take_news(fds, living, watcher)
    finally:
        ends.children.unwatch(watcher)


class Process(blocking.Process):
    """As the `Process` of this package, with coroutines where that one waits, and asyncio's streams for pipes.

    Attributes:
        stdin: an `asyncio.StreamWriter`; None where it is no PIPE.
        stdout, stderr: an `asyncio.StreamReader`; None where they are no PIPE.
    """

    _async_streams: tuple[asyncio.StreamWriter | None, asyncio.StreamReader | None, asyncio.StreamReader | None] = (
        None,
        None,
        None,
    )
    _transports: tuple[asyncio.BaseTransport, ...] = ()
    _ask_status: Callable[[], Awaitable[int]] | None = None

    async def attach(self) -> None:
        """Gives its pipes to the loop; done by whoever started it."""
        loop = asyncio.get_running_loop()
        stdin, stdout, stderr = self._files
        self._async_streams = (
            await self._writer(loop, stdin),
            await self._reader(loop, stdout),
            await self._reader(loop, stderr),
        )
        self._files = [None, None, None]

    async def _reader(self, loop: asyncio.AbstractEventLoop, file: IO[bytes] | None) -> asyncio.StreamReader | None:
        if file is None:
            return None
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        self._transports += (transport,)
        return reader

    async def _writer(self, loop: asyncio.AbstractEventLoop, file: IO[bytes] | None) -> asyncio.StreamWriter | None:
        if file is None:
            return None
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: protocol, file)
        self._transports += (transport,)
        return asyncio.StreamWriter(transport, protocol, None, loop)

    @property
    def stdin(self) -> asyncio.StreamWriter | None:  # type: ignore[override]  # the loop's streams in place of files
        """The writing end of its standard input, where that is a PIPE."""
        return self._async_streams[0]

    @property
    def stdout(self) -> asyncio.StreamReader | None:  # type: ignore[override]  # the loop's streams in place of files
        """The reading end of its standard output, where that is a PIPE."""
        return self._async_streams[1]

    @property
    def stderr(self) -> asyncio.StreamReader | None:  # type: ignore[override]  # the loop's streams in place of files
        """The reading end of its standard error, where that is a PIPE."""
        return self._async_streams[2]

    async def wait(self, timeout: float | None = None) -> int:  # type: ignore[override]  # a coroutine here
        """Waits for its end; see `Process.wait`. Several tasks may."""
        try:
            async with asyncio.timeout(timeout):
                await (end_of_init if self.init else readable)(self.pidfd)
        except TimeoutError:
            raise TimeoutError(f"process {self.pid} still runs after {timeout:g} seconds") from None
        if self._ask_status is not None:
            return await self._ask_status()
        return self.handle.status()

    async def communicate(  # type: ignore[override]  # a coroutine here
        self, input: bytes | None = None, timeout: float | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Writes its input, reads all its output, and waits for its end; see `Process.communicate`."""
        if input and self.stdin is None:
            raise UsageError("the standard input of the process is not a PIPE")
        try:
            async with asyncio.timeout(timeout):
                _, output, errors, _ = await asyncio.gather(
                    self._feed(input or b""), _all_of(self.stdout), _all_of(self.stderr), self.wait()
                )
        except TimeoutError:
            raise TimeoutError(f"process {self.pid} has not ended after {timeout:g} seconds") from None
        return output, errors

    async def _feed(self, data: bytes) -> None:
        if self.stdin is None:
            return
        try:
            self.stdin.write(data)
            await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it reads no more
        self.stdin.close()

    def poll(self) -> int | None:
        """Not here: `wait(0)` tells.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("await wait(0) instead")

    def close(self) -> None:
        """Closes streams, terminal and pidfd; the process goes on."""
        for transport in self._transports:
            transport.close()
        super().close()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def _all_of(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


class Notification:
    """As the `Notification` of this package, to be awaited."""

    def __init__(self, source: blocking_notifications.Notification) -> None:
        self._source = source
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Notification:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[int]:
        return self._counts()

    async def _counts(self) -> AsyncIterator[int]:
        while not self._source.gone and not self._closed.done():
            count = await self.wait()
            if count:
                yield count

    @property
    def gone(self) -> bool:
        """Whether the container has ended."""
        return self._source.gone

    def fileno(self) -> int:
        """The fd, readable once it has happened."""
        return self._source.fileno()

    async def wait(self, timeout: float | None = None) -> int:
        """Waits until it happens; see `Notification.wait`. Another task may close it meanwhile."""
        try:
            async with asyncio.timeout(timeout):
                while not self._source.gone and not self._closed.done():
                    ready = asyncio.ensure_future(readable(self.fileno()))
                    try:
                        await asyncio.wait((ready, self._closed), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        ready.cancel()
                        await asyncio.gather(ready, return_exceptions=True)
                    count = 0 if self._closed.done() else self._source.take()
                    if count:
                        return count
        except TimeoutError:
            pass
        return 0

    def close(self) -> None:
        """Ends the notifications, and the waits for them."""
        done(self._closed)
        self._source.close()


class EventStream(ABC):
    """Events as they come; an asynchronous iterator, which ends with the container."""

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    @abstractmethod
    async def next(self, timeout: float | None = None) -> Event | None:
        """Waits for the next event; None when the time is over, or the stream has ended."""

    @abstractmethod
    async def close(self) -> None:
        """Ends the stream."""


class Container(ABC):
    """As the `Container` of this package, with coroutines in place of methods and properties.

    What they take, return and raise is said there.
    """

    def __repr__(self) -> str:
        return f"<aio.{type(self).__name__} {self.id!r}>"

    async def __aenter__(self) -> Container:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.destroy(force=True)

    @property
    @abstractmethod
    def id(self) -> str:
        """Its id."""

    @abstractmethod
    async def status(self) -> Status:
        """See `Container.status`."""

    @abstractmethod
    async def state(self) -> ContainerState:
        """See `Container.state`."""

    @abstractmethod
    async def config(self) -> Config:
        """See `Container.config`."""

    @abstractmethod
    async def pid(self) -> int:
        """See `Container.pid`."""

    @abstractmethod
    async def exit_status(self) -> int | None:
        """See `Container.exit_status`."""

    @abstractmethod
    async def start(self, process: Process) -> Process:
        """See `Container.start`."""

    @abstractmethod
    async def run(self, process: Process) -> Process:
        """See `Container.run`."""

    @abstractmethod
    async def exec(self) -> None:
        """See `Container.exec`."""

    @abstractmethod
    async def wait(self, timeout: float | None = None) -> int | None:
        """See `Container.wait`."""

    @abstractmethod
    async def signal(self, signal: int | str, *, all: bool = False) -> None:
        """See `Container.signal`."""

    @abstractmethod
    async def pause(self) -> None:
        """See `Container.pause`."""

    @abstractmethod
    async def resume(self) -> None:
        """See `Container.resume`."""

    @abstractmethod
    async def destroy(self, *, force: bool = False) -> None:
        """See `Container.destroy`."""

    @abstractmethod
    async def set(self, resources: Resources, *, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """See `Container.set`."""

    @abstractmethod
    async def stats(self) -> Stats:
        """See `Container.stats`."""

    @abstractmethod
    async def processes(self) -> list[int]:
        """See `Container.processes`."""

    @abstractmethod
    async def events(self, interval: float | None = None) -> EventStream:
        """See `Container.events`."""

    @abstractmethod
    async def notify_oom(self) -> Notification:
        """See `Container.notify_oom`."""

    @abstractmethod
    async def notify_memory_pressure(self, level: PressureLevel = "low") -> Notification:
        """See `Container.notify_memory_pressure`."""

    @abstractmethod
    async def checkpoint(self, options: CheckpointOptions | str) -> Stats:
        """See `Container.checkpoint`."""

    @abstractmethod
    async def pre_dump(self, options: CheckpointOptions | str) -> Stats:
        """See `Container.pre_dump`."""

    @abstractmethod
    async def restore(self, process: Process, options: RestoreOptions | str) -> Process:
        """See `Container.restore`."""
