"""Memory of each process: a created container's, the runtime's in the foreground, and what stays resident."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.measure import CommandFailed
from bench.memory import pss, pss_of_all
from bench.results import Row
from bench.subreaper import become_subreaper
from bench.waiting import until
from bench.world import World

NAME = "memory"
COPIES = 8


def measure(world: World) -> Iterator[Row]:
    """Waiting container processes of each runtime, its foreground, its daemons."""
    become_subreaper()
    for name, runtime in world.with_verb("lifecycle").items():
        bundle = world.bundle("default", "sleep", "1000000")
        containers = [f"{world.cgroup}-{name}-memory-{number}" for number in range(COPIES)]
        pid_file = Path(world.states, f"{world.cgroup}-{name}.pid")
        pids = []
        try:
            for container in containers:
                # a bundle each: their cgroups must differ
                command = runtime(
                    "create", "--pid-file", pid_file, "-b", bundle.directory(name, container[-8:]), container
                )
                command()
                pids.append(int(pid_file.read_text()))
            values = [float(pss(pid)) for pid in pids]
            yield Row("memory of a created container's process", "default", world.view, name, {"memory": values})
            for what, resident in runtime.processes().items():
                memory = {"memory": [float(pss_of_all(resident))]}
                yield Row(f"memory of its {what}", "default", world.view, name, memory)
        finally:
            for container in containers:
                runtime.remove(container)
            for pid in pids:
                os.waitpid(pid, 0)
        yield from foreground(world, name)


def foreground(world: World, name: str) -> Iterator[Row]:
    """The command that stays in the foreground of `run`."""
    runtime = world.runtimes[name]
    bundle = world.bundle("default", "sleep", "1000000")
    container = f"{world.cgroup}-{name}-memory"
    command = runtime.run(bundle, container)
    null = subprocess.DEVNULL
    with subprocess.Popen(command.argv, env=command.environment, stdin=null, stdout=null, stderr=null) as process:
        try:
            state = runtime("state", container)
            until(lambda: _is_running(state.argv, state.environment))
            yield Row(
                "memory of run in the foreground", "default", world.view, name, {"memory": [float(pss(process.pid))]}
            )
        finally:
            try:
                runtime("kill", container, "KILL")()
            except CommandFailed:
                process.kill()


def _is_running(argv: list[str], environment: dict[str, str]) -> bool:
    return '"running"' in subprocess.run(argv, env=environment, check=False, capture_output=True, text=True).stdout
