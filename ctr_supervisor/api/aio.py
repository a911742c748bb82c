"""The same for asyncio: every method that may wait is a coroutine.

    async with await aio.create("/run/ctrun", "hello", config) as container:
        process = await container.run(aio.Process(["echo", "hello"], init=True, stdout=PIPE))
        print(await process.communicate())

In-process the work of a container is done in threads of the loop's default executor; the ends of processes, and their
pipes, are waited for by the loop itself. Against a supervisor (`connect`) everything is, on one socket.
"""

from ctr_supervisor.api.aio_base import Container, EventStream, Notification, Process
from ctr_supervisor.api.aio_client import Supervisor, connect
from ctr_supervisor.api.aio_direct import create, load
from ctr_supervisor.api.aio_direct import list_containers as list  # noqa: A004  # as in the blocking form

__all__ = ["Container", "EventStream", "Notification", "Process", "Supervisor", "connect", "create", "list", "load"]
