"""Instructions of a `run`, where the machine can count: the number that noise changes least."""

from collections.abc import Iterator

from bench.perf_events import Descendants
from bench.results import Row
from bench.world import World

NAME = "instructions"
ROUNDS = 10


def measure(world: World) -> Iterator[Row]:
    """Direct runtimes only: a supervisor was started before the counting, and would not be counted."""
    try:
        counter = Descendants()
    except OSError as error:
        world.notes.append(f"instructions not counted: {error.strerror or error}")
        return
    bundle = world.bundle("default", "true")
    things = {
        name: runtime.run(bundle, f"{world.cgroup}-{name}")
        for name, runtime in world.with_verb("run").items()
        if not runtime.processes()
    }
    counts: dict[str, list[float]] = {name: [] for name in things}
    try:
        for _ in range(ROUNDS):
            for name, command in things.items():
                before = counter.read()
                command()
                counts[name].append(float(counter.read() - before))
    finally:
        counter.close()
    for name, values in counts.items():
        yield Row("instructions of run", "default", world.view, name, {"instructions": values})
