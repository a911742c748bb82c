"""The surroundings of a run of benchmarks: bundles, state roots, cgroups, and which view of cgroups it has."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import CpuMeter
from bench.runtimes import ROOT, Bubblewrap, Floor, Runtime, Supervised

CGROUPS = Path("/sys/fs/cgroup")
BUILT = ROOT / "build/bench"

HYBRID = "v1"
UNIFIED = "v2"


class Bundle:
    """One configuration, with a copy for each runtime, since each container needs a cgroup of its own.

    Args:
        world: where it stands.
        kind: `default` or `docker`.
        arguments: what runs in it.
    """

    def __init__(self, world: "World", kind: str, arguments: list[str]) -> None:
        self.world = world
        self.kind = kind
        self.arguments = arguments
        self.rootfs = str(world.rootfs)
        self.config = configuration(world, kind)
        self.config["process"].update(terminal=False, args=arguments)
        self.config["root"]["path"] = self.rootfs
        self.floor_options = floor_options(self.config, world.scratch)

    def directory(self, runtime: str, container: str = "") -> Path:
        """The bundle for one runtime.

        Args:
            runtime: its name.
            container: for more than one container at a time.
        """
        path = self.world.scratch / "-".join(["bundle", self.kind, self.arguments[0], runtime, container])
        if not path.exists():
            path.mkdir()
            cgroup = f"/{self.world.cgroup}/{path.name}"
            config = {**self.config, "linux": {**self.config["linux"], "cgroupsPath": cgroup}}
            (path / "config.json").write_text(json.dumps(config))
        return path


class World:
    """Everything that benchmarks share.

    Args:
        view: HYBRID or UNIFIED.
        scratch: directory on a disk.
        states: directory on a tmpfs, as /run is: on a disk every rename would wait for it.
        cgroup: name of the parent cgroup of all that is made.
        meter: of this process's cgroup.
        quick: a rough look is wanted.
        rounds: how often each thing is measured.
    """

    def __init__(
        self, view: str, scratch: Path, states: Path, cgroup: str, meter: CpuMeter, quick: bool, rounds: int
    ) -> None:
        self.view = view
        self.scratch = scratch
        self.states = states
        self.cgroup = cgroup
        self.meter = meter
        self.quick = quick
        self.rounds = rounds
        self.rootfs = scratch / "rootfs"
        self.notes: list[str] = []
        self.runtimes: dict[str, Runtime] = {}
        subprocess.run([ROOT / "examples/bundle/make-rootfs", self.rootfs], check=True)
        self._bundles: dict[tuple[str, str], Bundle] = {}

    def bundle(self, kind: str, *arguments: str) -> Bundle:
        """A bundle of one of the configurations.

        Args:
            kind: `default` or `docker`.
            arguments: what runs in it.
        """
        key = (kind, " ".join(arguments))
        if key not in self._bundles:
            self._bundles[key] = Bundle(self, kind, list(arguments))
        return self._bundles[key]

    def with_verb(self, verb: str) -> dict[str, Runtime]:
        """The runtimes that can do something."""
        return {name: runtime for name, runtime in self.runtimes.items() if verb in runtime.verbs}

    def add_runtimes(self, wanted: set[str]) -> None:
        """Finds out which runtimes there are and work in this view.

        Args:
            wanted: names; all if it is empty.
        """
        for name, make, program in candidates():
            if (wanted and name not in wanted) or name in self.runtimes:
                continue
            try:
                runtime = make(name, program, self)
            except (RuntimeError, OSError) as error:
                self.notes.append(f"{name} left out: {error}")
                continue
            try:
                runtime.run(self.bundle("default", "true"), f"{self.cgroup}-{name}-try")()
            except Exception as error:
                words = str(error).rpartition(": status ")[2] or str(error)
                note = f"{name} left out in the {self.view} view: {words[-200:]}"
                if note not in self.notes:
                    self.notes.append(note)
                runtime.stop()
                continue
            self.runtimes[name] = runtime


def candidates() -> Iterator[tuple[str, type[Runtime], list[str | Path]]]:
    """Name, class and program of what may be there; of two with one name the first that works counts."""
    ctrun = ROOT / "bin/ctrun"
    yield "ctrun", Runtime, [ctrun]
    if (ROOT / "bin/ctr-supervisor").exists():
        yield "ctrun-supervised", Supervised, [ctrun]
    for name in ("crun", "runc"):
        newer = BUILT / f"{name}/usr/bin/{name}"
        for found in (newer, shutil.which(name)):
            if found and Path(found).exists():
                yield name, Runtime, [found]
    bwrap = shutil.which("bwrap")
    if bwrap:
        yield "bwrap", Bubblewrap, [bwrap]
    yield "floor", Floor, [BUILT / "floor"]


def configuration(world: World, kind: str) -> dict[str, Any]:
    """config.json as `spec` writes it, or as Docker does.

    Args:
        world: its view decides what a cgroup configuration can say.
        kind: `default` or `docker`.
    """
    if kind == "default":
        directory = Path(tempfile.mkdtemp(dir=world.scratch))
        subprocess.run([ROOT / "bin/ctrun", "spec", "-b", directory], check=True)
        text = (directory / "config.json").read_text()
    else:
        files = world.scratch / "files"
        files.mkdir(exist_ok=True)
        for name in ("resolv.conf", "hostname", "hosts"):
            (files / name).write_text(f"{name}\n")
            (world.rootfs / "etc" / name).touch()
        text = (ROOT / "bench/configs/docker.json").read_text().replace("FILES", str(files))
    config: dict[str, Any] = json.loads(text)
    # the version that every runtime of the last years takes
    config["ociVersion"] = "1.0.2"
    if world.view == UNIFIED and kind == "docker":
        # what Docker says there; this view has no controllers, so the limits go
        config["linux"]["namespaces"].append({"type": "cgroup"})
        config["linux"]["resources"] = {"devices": config["linux"]["resources"]["devices"]}
    return config


def floor_options(config: dict[str, Any], scratch: Path) -> list[str]:
    """What bench/floor has to be told of a configuration.

    Args:
        config: that it shall do.
        scratch: for its seccomp filter.
    """
    linux = config["linux"]
    words: list[str] = []
    if linux.get("seccomp"):
        from ctr_supervisor.engine.seccomp import compile_filter

        compiled = compile_filter(linux["seccomp"])
        assert compiled is not None
        filter_file = scratch / "filter.bpf"
        filter_file.write_bytes(compiled.bpf)
        words += ["-s", str(filter_file)]
    for mount in config["mounts"]:
        if mount["type"] == "bind":
            words += ["-b", f"{mount['source']}:{mount['destination']}"]
    for name, value in (linux.get("sysctl") or {}).items():
        words += ["-y", f"{name}={value}"]
    if not config["root"].get("readonly"):
        words.append("-w")
        from ctr_common.spec import capabilities

        words += ["-c", str(capabilities.mask(config["process"]["capabilities"]["effective"]))]
    return words


def hierarchies() -> list[Path]:
    """Top directories of all cgroup hierarchies."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return [path for path in sorted(CGROUPS.iterdir()) if (path / "cgroup.procs").exists() and not path.is_symlink()]


@contextmanager
def cgroups(name: str) -> Iterator[tuple[Path, Path]]:
    """A parent cgroup in all hierarchies; gives the one to put the benchmark in and the file with its CPU time.

    Args:
        name: of the cgroup.
    """
    made = [top / name for top in hierarchies()]
    for path in made:
        path.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (path / file).exists():
                (path / file).write_text((path.parent / file).read_text())
    try:
        if len(made) == 1:
            # no process may be where controllers are handed down
            (made[0] / "bench").mkdir()
            yield made[0] / "bench", made[0] / "cpu.stat"
        else:
            counting = next(path for path in made if (path / "cpuacct.usage").exists())
            yield counting, counting / "cpuacct.usage"
    finally:
        for path in made:
            remove_tree(path)


def remove_tree(cgroup: Path) -> None:
    """Removes a cgroup and those below it, with the processes that an interrupted benchmark left there."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        deadline = time.monotonic() + 10
        while True:
            for word in Path(directory, "cgroup.procs").read_text().split():
                os.kill(int(word), signal.SIGKILL)
            try:
                os.rmdir(directory)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)
