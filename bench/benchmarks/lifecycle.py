"""`create`, `start` and `delete`, each for itself and together, under a parent that waits for the container.

This process is the parent, as engines are: a child subreaper, so that the container's process becomes its child when
`create` ends. The whole goes from the call of `create` to the end of `delete`, the container's own end included.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import Series, take_turns
from bench.results import Row
from bench.runtimes import Runtime
from bench.subreaper import become_subreaper
from bench.world import World

NAME = "lifecycle"
VERBS = ("create", "start", "delete")


def measure(world: World) -> Iterator[Row]:
    """With both configurations."""
    become_subreaper()
    for kind in ("default", "docker"):
        parts: dict[tuple[str, str], Series] = {}
        things = {}
        for name, runtime in world.with_verb("lifecycle").items():
            series = [parts.setdefault((verb, name), Series()) for verb in VERBS]
            things[name] = life(world, runtime, kind, series)
        taken = take_turns(things, world.meter, world.rounds)
        for name, whole in taken.items():
            yield Row.timed("create+start+delete", kind, world.view, name, whole)
        for (verb, name), part in parts.items():
            # the first ones were for warming up
            del part.wall[: -world.rounds]
            yield Row.timed(verb, kind, world.view, name, part)


def life(world: World, runtime: Runtime, kind: str, parts: list[Series]) -> Callable[[], float]:
    """One container from beginning to end; what each verb takes goes to its series."""
    bundle = world.bundle(kind, "true")
    container = f"{world.cgroup}-{runtime.name}-life"
    pid_file = Path(world.states, f"{container}.pid")
    create = runtime.create(bundle, container, pid_file)
    start = runtime("start", container)
    delete = runtime("delete", container)

    def once() -> float:
        begin = time.perf_counter()
        parts[0].wall.append(create())
        pid = int(pid_file.read_text())
        parts[1].wall.append(start())
        os.waitpid(pid, 0)
        parts[2].wall.append(delete())
        return time.perf_counter() - begin

    return once
