"""The first `run` after the machine has forgotten all files: programs, libraries and bundle come from the disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from bench.measure import take_turns
from bench.results import Row
from bench.world import World

NAME = "cold"
ROUNDS = 5
DROP = Path("/proc/sys/vm/drop_caches")


def measure(world: World) -> Iterator[Row]:
    """All runtimes; the page cache is emptied before each single run."""
    if not os.access(DROP, os.W_OK):
        world.notes.append(f"cold start not measured: {DROP} can't be written")
        return
    bundle = world.bundle("default", "true")
    things = {name: runtime.run(bundle, f"{world.cgroup}-{name}") for name, runtime in world.with_verb("run").items()}
    for name, series in take_turns(things, world.meter, ROUNDS, warm_up=1, between=forget).items():
        yield Row.timed("cold run", "default", world.view, name, series)


def forget() -> None:
    """Empties the page cache, and the caches of names and inodes."""
    os.sync()
    DROP.write_text("3")
