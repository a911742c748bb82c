"""A start among 10 and among 1,000 running containers, and what the supervisor keeps in memory for them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.measure import take_turns
from bench.memory import pss_of_all
from bench.results import Row
from bench.runtimes import Runtime
from bench.world import World

NAME = "crowd"
FEW = 10
MANY = 1000
MANY_QUICK = 100
AT_A_TIME = 2


def measure(world: World) -> Iterator[Row]:
    """The crowd is made by ctrun, supervised where that is possible, and so is in the supervisor's state root."""
    owner = world.runtimes.get("ctrun-supervised") or world.runtimes.get("ctrun")
    if owner is None:
        return
    many = MANY_QUICK if world.quick else MANY
    there: list[str] = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        try:
            for count in (FEW, many):
                new = [f"{world.cgroup}-crowd-{number}" for number in range(len(there), count)]
                there += new
                list(pool.map(lambda name: start(world, owner, name), new))
                yield from starts(world, count)
                for what, pids in owner.processes().items():
                    values = {"memory": [float(pss_of_all(pids))]}
                    yield Row(f"memory with {count} running of its {what}", "default", world.view, owner.name, values)
        finally:
            list(pool.map(owner.remove, there))


def start(world: World, owner: Runtime, name: str) -> None:
    """One more."""
    bundle = world.bundle("default", "sleep", "1000000")
    owner("run", "-d", "-b", bundle.directory(owner.name, name.rpartition("-")[2]), name)()


def starts(world: World, count: int) -> Iterator[Row]:
    """`run` of `true` beside them."""
    bundle = world.bundle("default", "true")
    things = {name: runtime.run(bundle, f"{world.cgroup}-{name}") for name, runtime in world.with_verb("run").items()}
    things.pop("bwrap", None)
    for name, series in take_turns(things, world.meter, world.rounds).items():
        yield Row.timed(f"run among {count}", "default", world.view, name, series)
