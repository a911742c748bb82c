"""What is compared: each runtime knows how it is asked for the same things."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Command

if TYPE_CHECKING:
    from bench.world import Bundle, World

ROOT = Path(__file__).resolve().parents[1]
DAEMON_LIMIT = 20.0


class Runtime:
    """A runtime with runc's command line, and a state root of its own.

    Args:
        name: in tables.
        program: the words that start it.
        world: where it works.
        root: state root; None for one of its own.
    """

    verbs: frozenset[str] = frozenset({"run", "lifecycle", "exec", "state", "list"})

    def __init__(self, name: str, program: Sequence[str | Path], world: "World", root: Path | None = None) -> None:
        self.name = name
        self.program = [str(word) for word in program]
        self.world = world
        self.root = root or world.states / name
        self.root.mkdir(exist_ok=True)
        self.environment: dict[str, str] | None = None

    def __call__(self, *arguments: str | Path) -> Command:
        """A command line of it."""
        return Command([*self.program, "--root", str(self.root), *map(str, arguments)], self.environment)

    def at(self, root: Path) -> "Runtime":
        """The same one with another state root."""
        return Runtime(self.name, self.program, self.world, root)

    def run(self, bundle: "Bundle", container: str, worker: str = "") -> Command:
        """Runs a bundle in the foreground.

        Args:
            bundle: what to run.
            container: its id.
            worker: who runs it, where several do so at once.
        """
        return self("run", "-b", bundle.directory(self.name, worker), container)

    def start_in_background(self, bundle: "Bundle", container: str) -> None:
        """Leaves a container running."""
        self("run", "-d", "-b", bundle.directory(self.name), container)()

    def create(self, bundle: "Bundle", container: str, pid_file: Path) -> Command:
        """Creates a container."""
        return self("create", "--pid-file", pid_file, "-b", bundle.directory(self.name), container)

    def remove(self, container: str) -> None:
        """Ends a container, if it is there."""
        command = self("delete", "--force", container)
        subprocess.run(command.argv, env=command.environment, check=False, capture_output=True)

    def processes(self) -> dict[str, list[int]]:
        """Pids of what stays resident, by what it is."""
        return {}

    def stop(self) -> None:
        """Ends what stays resident."""


class Supervised(Runtime):
    """ctrun with a supervisor of its own, which lives as long as this object."""

    def __init__(self, name: str, program: Sequence[str | Path], world: "World", root: Path | None = None) -> None:
        super().__init__(name, program, world, root)
        self.socket = self.root.parent / f"{self.root.name}.sock"
        self.environment = {**os.environ, "CTRUN_SUPERVISOR": str(self.socket)}
        log = (self.root.parent / f"{self.root.name}.log").open("w")
        argv = [str(ROOT / "bin/ctr-supervisor"), "--root", str(self.root), "--socket", str(self.socket)]
        self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + DAEMON_LIMIT
        while not self.socket.exists():
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the supervisor did not start: {Path(log.name).read_text()[-500:]}")
            time.sleep(0.01)
        # a client that finds no supervisor for it does the same directly, which must not be taken for this
        command = self("list")
        command.argv.insert(1, "--debug")
        said = subprocess.run(command.argv, env=command.environment, check=True, capture_output=True, text=True).stderr
        if "the direct way" in said:
            self.stop()
            raise RuntimeError(f"the supervisor does not serve this client: {said.strip()[-300:]}")

    def at(self, root: Path) -> "Supervised":
        """The same with another state root, and another supervisor."""
        return Supervised(self.name, self.program, self.world, root)

    def processes(self) -> dict[str, list[int]]:
        """The supervisor and what it keeps ready."""
        return {"supervisor": [self.daemon.pid], "pool": descendants(self.daemon.pid)}

    def stop(self) -> None:
        """Ends the supervisor."""
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(DAEMON_LIMIT)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()


class Bubblewrap(Runtime):
    """bwrap: no configuration, no state, no cgroup; the closest that it has to the bundle."""

    verbs = frozenset({"run"})

    def run(self, bundle: "Bundle", container: str, worker: str = "") -> Command:
        """Runs the bundle's program on its rootfs."""
        words = (
            "--unshare-all --proc /proc --dev /dev --mqueue /dev/mqueue --tmpfs /dev/shm --hostname runc --cap-drop ALL"
        )
        return Command([*self.program, "--ro-bind", bundle.rootfs, "/", *words.split(), *bundle.arguments])


class Floor(Runtime):
    """bench/floor.c."""

    verbs = frozenset({"run"})

    def run(self, bundle: "Bundle", container: str, worker: str = "") -> Command:
        """The kernel's part of running the bundle."""
        cgroup = f"{self.world.cgroup}/{container}"
        return Command([*self.program, *bundle.floor_options, bundle.rootfs, cgroup, *bundle.arguments])


def descendants(pid: int) -> list[int]:
    """Pids of the processes below a process."""
    found = []
    for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(word), *descendants(int(word))]
    return found
