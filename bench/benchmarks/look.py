"""`exec` and `state` on a running container; `list` with 10, 100 and 1,000 of them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.measure import take_turns
from bench.results import Row
from bench.runtimes import Runtime
from bench.world import World

NAME = "look"
COUNTS = (10, 100, 1000)


def measure(world: World) -> Iterator[Row]:
    """Exec and state with both configurations, list with the default one."""
    for kind in ("default", "docker"):
        yield from exec_and_state(world, kind)
    for count in COUNTS:
        yield from list_of(world, count)


def exec_and_state(world: World, kind: str) -> Iterator[Row]:
    """`exec` of `true`, and `state`."""
    bundle = world.bundle(kind, "sleep", "1000000")
    container = f"{world.cgroup}-long"
    runtimes = world.with_verb("exec")
    started = []
    try:
        for runtime in runtimes.values():
            started.append(runtime)
            runtime.start_in_background(bundle, f"{container}-{runtime.name}")
        for verb, words in (("exec", ["true"]), ("state", [])):
            things = {name: runtime(verb, f"{container}-{name}", *words) for name, runtime in runtimes.items()}
            for name, series in take_turns(things, world.meter, world.rounds).items():
                yield Row.timed(verb, kind, world.view, name, series)
    finally:
        for runtime in started:
            runtime.remove(f"{container}-{runtime.name}")


def list_of(world: World, count: int) -> Iterator[Row]:
    """`list` of so many containers. One is real; the others are copies of its state under other names."""
    bundle = world.bundle("default", "sleep", "1000000")
    container = f"{world.cgroup}-list"
    made: list[Runtime] = []
    things = {}
    try:
        for name, runtime in world.with_verb("list").items():
            root = world.states / f"list-{count}-{name}"
            direct = Runtime(name, runtime.program, world, root)
            made.append(direct)
            direct.start_in_background(bundle, f"{container}-{name}")
            multiply(root, f"{container}-{name}", count)
            asked = runtime.at(root)
            made.append(asked)
            things[name] = asked("list")
        rounds = world.rounds if count < 1000 else max(10, world.rounds // 2)
        for name, series in take_turns(things, world.meter, rounds, warm_up=1).items():
            yield Row.timed(f"list of {count}", "default", world.view, name, series)
    finally:
        for runtime in reversed(made):
            runtime.stop()
            for copy in runtime.root.glob(f"{container}-{runtime.name}.*"):
                shutil.rmtree(copy)
            runtime.remove(f"{container}-{runtime.name}")


def multiply(root: Path, container: str, count: int) -> None:
    """Copies a container's state until there are so many.

    Args:
        root: state root.
        container: the one that is there.
        count: how many there shall be.
    """
    names = [path.name for path in (root / container).iterdir() if path.is_file()]
    for number in range(1, count):
        copy = f"{container}.{number}"
        (root / copy).mkdir(mode=0o711)
        for name in names:
            text = (root / container / name).read_bytes()
            if name == "state.json":
                state = json.loads(text)
                state["id"] = copy
                text = json.dumps(state).encode()
            (root / copy / name).write_bytes(text)
