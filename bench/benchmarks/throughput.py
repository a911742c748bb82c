"""200 containers, two at a time: how many a second."""

import threading
import time
from collections.abc import Iterator

from bench.measure import CommandFailed
from bench.results import Row
from bench.runtimes import Runtime
from bench.world import World

NAME = "throughput"
CONTAINERS = 200
AT_A_TIME = 2
BLOCKS = 4


def measure(world: World) -> Iterator[Row]:
    """`run` of `true`, in blocks that take turns."""
    count = (40 if world.quick else CONTAINERS) // BLOCKS
    runtimes = world.with_verb("run")
    runtimes.pop("bwrap", None)
    values: dict[str, dict[str, list[float]]] = {name: {"rate": [], "cpu": []} for name in runtimes}
    for _ in range(BLOCKS):
        for name, runtime in runtimes.items():
            before = world.meter.settled()
            taken = block(world, runtime, count)
            cpu = world.meter.settled() - before
            values[name]["rate"].append(count / taken)
            values[name]["cpu"].append(cpu / count * 1000)
    for name, samples in values.items():
        yield Row("starts, two at a time", "default", world.view, name, samples)


def block(world: World, runtime: Runtime, count: int) -> float:
    """So many containers; seconds.

    Raises:
        CommandFailed: one of them failed.
    """
    failures: list[CommandFailed] = []
    numbers = iter(range(count))
    taking = threading.Lock()

    def work(worker: int) -> None:
        bundle = world.bundle("default", "true")
        while not failures:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            try:
                runtime.run(bundle, f"{world.cgroup}-{runtime.name}-{number}", f"worker{worker}")()
            except CommandFailed as failure:
                failures.append(failure)

    begin = time.perf_counter()
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(AT_A_TIME)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - begin
    if failures:
        raise failures[0]
    return taken
