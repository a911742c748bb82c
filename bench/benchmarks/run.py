"""`run` of `true`: from the command to its end, nothing left."""

from collections.abc import Iterator

from bench.measure import take_turns
from bench.results import Row
from bench.world import World

NAME = "run"


def measure(world: World) -> Iterator[Row]:
    """With both configurations, all runtimes."""
    for kind in ("default", "docker"):
        bundle = world.bundle(kind, "true")
        things = {
            name: runtime.run(bundle, f"{world.cgroup}-{name}")
            for name, runtime in world.with_verb("run").items()
            if not (kind == "docker" and name == "bwrap")
        }
        for name, series in take_turns(things, world.meter, world.rounds).items():
            yield Row.timed(NAME, kind, world.view, name, series)
