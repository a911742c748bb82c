"""`ctrun events`."""

import os

from ctr_common.errors import UsageError
from ctr_common.fd import Fd
from ctr_supervisor.cli import output
from ctr_supervisor.cli.parser import BOOL, DURATION, Flag
from ctr_supervisor.cli.quantities import SECOND
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "events",
    "print statistics and out-of-memory events of a container",
    arguments="<container-id>",
    description="""\
Prints a JSON object on a line of its own for each event, until the container
ends: "stats" (CPU, memory, processes, block I/O …) at an interval, and "oom"
whenever the kernel kills because the container is out of memory.

    # ctrun events --stats web | jq .data.memory.usage""",
    flags=(
        Flag("interval", "time between statistics, such as '500ms' or '1m'", DURATION, default=5 * SECOND),
        Flag("stats", "print the statistics of this moment and exit", BOOL),
    ),
    minimum=1,
    maximum=1,
)

# How long a reader of the last events may take, in milliseconds.
PATIENCE = 10_000


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Prints the events."""
    from ctr_supervisor.engine import container, events, stats

    container_id = arguments.rest[0]
    runtime = surroundings.runtime()
    found = container.load(runtime, container_id)
    interval = arguments.integer("interval")
    if interval <= 0:
        raise UsageError("duration interval must be greater than 0")
    if arguments.boolean("stats"):
        stats.check_running(found)
        output.write_json(events.stats_event(found))
        return 0
    pidfd = found.open_pidfd()
    if pidfd is None:
        pidfd = -1
    with Fd(pidfd):
        for event in events.events(runtime, container_id, interval, reader=output.STDOUT):
            if not write(output.STDOUT, output.as_json(event).encode(), pidfd):
                break
    return 0


def write(fd: int, data: bytes, pidfd: int) -> bool:
    """Writes an event, however long the reader takes for it; but not for ever once the container has ended.

    Args:
        fd: where to.
        data: the event.
        pidfd: of the container's init process; -1 for one that has ended.

    Returns:
        Whether it was written.

    Raises:
        ReaderGone: nobody reads any more.
    """
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if pidfd >= 0:
        poll.register(pidfd, select.POLLIN)
    left = memoryview(data)
    wait = None if pidfd >= 0 else PATIENCE
    while left:
        ready = dict(poll.poll(wait))
        if fd in ready:
            try:
                # So much has room in a pipe that says that it has some (pipe(7)).
                left = left[os.write(fd, left[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise output.ReaderGone from None
        elif pidfd in ready:
            poll.unregister(pidfd)
            wait = PATIENCE
        else:
            return False
    return True
