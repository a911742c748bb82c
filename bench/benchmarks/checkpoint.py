"""`checkpoint` and `restore` beside bare criu, which saves and restores the same process with the same options.

The container is the default one without a mount of cgroups, which bare criu can't restore elsewhere. Whatever prepares
a restore, and ends what it made, is outside of the measured time; criu makes no cgroup, ctrun does.
"""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.measure import Command, take_turns
from bench.results import Row
from bench.runtimes import Runtime
from bench.world import HYBRID, World
from tests.support import criu as criu_of_tests

NAME = "checkpoint"
ROUNDS = 20
ROUNDS_QUICK = 5
COMMON = ("--manage-cgroups=ignore", "--network-lock", "skip")
OURS = ("--manage-cgroups-mode", "ignore", "--network-lock", "skip")


class Images:
    """A folder for one set of images, empty whenever it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fresh(self) -> Path:
        """The folder, emptied."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()
        return self.path


def measure(world: World) -> Iterator[Row]:
    """In the hybrid view only: the views make no difference to criu."""
    runtimes = [world.runtimes[name] for name in ("ctrun", "ctrun-supervised") if name in world.runtimes]
    if world.view != HYBRID or not runtimes:
        return
    try:
        criu = str(criu_of_tests.find())
    except criu_of_tests.Unavailable as error:
        world.notes.append(f"checkpoint not measured: {error}")
        return
    programs = [with_criu(runtime, criu) for runtime in runtimes]
    container = f"{world.cgroup}-saved"
    rounds = min(world.rounds, ROUNDS_QUICK if world.quick else ROUNDS)
    theirs = Images(world.scratch / "images-criu")
    ours = {program.name: Images(world.scratch / f"images-{program.name}") for program in programs}
    try:
        for program in programs:
            program("run", "-d", "-b", make_bundle(world, program), container)()
        state = programs[0]("state", container)
        found = subprocess.run(state.argv, env=state.environment, check=True, capture_output=True, text=True)
        pid = json.loads(found.stdout)["pid"]
        things = {program.name: save_by_ctrun(program, container, ours[program.name]) for program in programs}
        things["criu"] = save_by_criu(criu, pid, theirs)
        for name, series in take_turns(things, world.meter, rounds, warm_up=1).items():
            yield Row.timed("checkpoint", "default", world.view, name, series)
    finally:
        for program in programs:
            program.remove(container)
    root = world.scratch / "restored-root"
    root.mkdir()
    subprocess.run(["mount", "--bind", world.rootfs, root], check=True)
    try:
        things = {
            program.name: restore_by_ctrun(program, make_bundle(world, program), container, ours[program.name])
            for program in programs
            # a supervisor restores no container on behalf of a client
            if program.name == "ctrun"
        }
        things["criu"] = restore_by_criu(criu, root, theirs)
        for name, series in take_turns(things, world.meter, rounds, warm_up=1).items():
            yield Row.timed("restore", "default", world.view, name, series)
    finally:
        for program in programs:
            program.remove(container)
        subprocess.run(["umount", root], check=True)


def with_criu(runtime: Runtime, criu: str) -> Runtime:
    """The same runtime, told which criu to use."""
    told = copy.copy(runtime)
    told.program = [*runtime.program, "--criu", criu]
    return told


def make_bundle(world: World, runtime: Runtime) -> Path:
    """The default bundle less the mount of cgroups."""
    directory = world.bundle("default", "sleep", "1000000").directory(runtime.name, "saved")
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def save_by_ctrun(runtime: Runtime, container: str, images: Images) -> Callable[[], float]:
    """`ctrun checkpoint`, the container goes on."""

    def once() -> float:
        path = images.fresh()
        flags = ("--leave-running", "--image-path", path, "--work-path", path)
        return runtime("checkpoint", *flags, *OURS, container)()

    return once


def save_by_criu(criu: str, pid: int, images: Images) -> Callable[[], float]:
    """`criu dump`, the container goes on."""

    def once() -> float:
        path = images.fresh()
        flags = ("--leave-running", "-v4", "-o", "log", "--external", "mnt[]")
        return Command([criu, "dump", "-t", str(pid), "-D", path, *flags, *COMMON])()

    return once


def restore_by_ctrun(runtime: Runtime, bundle: Path, container: str, images: Images) -> Callable[[], float]:
    """`ctrun restore`, detached."""

    def once() -> float:
        flags = ("--detach", "--image-path", images.path, "--work-path", images.path, "-b", bundle)
        taken = runtime("restore", *flags, *OURS, container)()
        runtime.remove(container)
        return taken

    return once


def restore_by_criu(criu: str, root: Path, images: Images) -> Callable[[], float]:
    """`criu restore`, detached."""

    def once() -> float:
        pid_file = images.path / "pid"
        pid_file.unlink(missing_ok=True)
        flags = ("--restore-detached", "-v4", "-o", "log", "--external", "mnt[]", "--root", root, "--pidfile", pid_file)
        taken = Command([criu, "restore", "-D", images.path, *flags, *COMMON])()
        subprocess.run(["kill", "-9", pid_file.read_text()], check=True)
        return taken

    return once
