"""Taking times: wall time and the CPU time of everything that was caused, of commands that take turns."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

# After a command the machine is left alone until whoever works on behind its answer is done too.
SETTLE_STEP = 0.001
SETTLED_BELOW = 0.00003
SETTLE_LIMIT = 0.1


class CommandFailed(Exception):
    """A command under test ended with a status that is no success; the text has its last words."""


class CpuMeter:
    """CPU seconds that a cgroup has used, this process's own left out.

    Daemons and containers count too, and so do processes that nobody waits for, which the resource usage of children
    does not show.

    Args:
        fd: of `cpuacct.usage` (v1) or `cpu.stat` (v2) of the cgroup that this process is in.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self) -> float:
        """Seconds so far."""
        text = os.pread(self.fd, 4096, 0).decode()
        if text.startswith("usage_usec"):
            used = int(text.split()[1]) / 1e6
        else:
            used = int(text) / 1e9
        return used - time.process_time()

    def settled(self) -> float:
        """Seconds, once nothing more is added."""
        deadline = time.perf_counter() + SETTLE_LIMIT
        used = self.read()
        while time.perf_counter() < deadline:
            time.sleep(SETTLE_STEP)
            before, used = used, self.read()
            if used - before < SETTLED_BELOW:
                break
        return used


class Command:
    """What is run once and timed.

    Args:
        argv: program, by its path, and arguments.
        environment: of the program; None for this process's.
    """

    def __init__(self, argv: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None) -> None:
        self.argv = [os.fspath(word) for word in argv]
        self.environment = dict(os.environ if environment is None else environment)

    def __call__(self) -> float:
        """Runs it; seconds until its end.

        Raises:
            CommandFailed: with the end of what it wrote to stderr.
        """
        words = os.memfd_create("stderr")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, words, 2)]
        try:
            begin = time.perf_counter()
            pid = os.posix_spawn(self.argv[0], self.argv, self.environment, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            end = time.perf_counter()
            if status:
                said = os.pread(words, 4096, 0).decode(errors="replace").strip()
                raise CommandFailed(f"{' '.join(self.argv)}: status {os.waitstatus_to_exitcode(status)}: {said}")
        finally:
            os.close(words)
            os.close(null)
        return end - begin


class Series:
    """The samples of one thing.

    Attributes:
        wall: seconds.
        cpu: seconds, of all processes together.
    """

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def take_turns(
    things: Mapping[str, Callable[[], float]],
    meter: CpuMeter,
    rounds: int,
    warm_up: int = 2,
    between: Callable[[], None] | None = None,
) -> dict[str, Series]:
    """Runs each thing once in every round, so that all meet the same noise.

    Args:
        things: by name; each does its work and says how many seconds of it count.
        rounds: how often each runs.
        warm_up: rounds before that, which do not count.
        between: called before each single run.

    Returns:
        What was measured, by name.
    """
    taken = {name: Series() for name in things}
    names = list(things)
    for number in range(warm_up + rounds):
        # whoever comes second in a round may profit from the first
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if between is not None:
                between()
            before = meter.settled()
            wall = things[name]()
            cpu = meter.settled() - before
            if number >= warm_up:
                taken[name].wall.append(wall)
                taken[name].cpu.append(cpu)
    return taken


def milliseconds(values: Iterable[float]) -> float:
    """Median of seconds, in milliseconds."""
    return median(values) * 1000
