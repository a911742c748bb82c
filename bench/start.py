"""Times commands of container runtimes side by side: a round runs every runtime once, so that all meet the same noise.

usage: bench/start.py [--rounds N] [--warm-up N] [--verbs run,state,list,exec] [NAME=PATH…]

Without NAME=PATH it compares ctrun of this checkout with runc. The first runtime is the one that the others are held
against. For each verb it prints, in milliseconds: median and 95th percentile of the wall time, median of the CPU time
(user + system, of the command and of all that it waited for) and the ratio of the medians to the first one's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]


class Runtime:
    """One runtime under test, with a state root of its own.

    Args:
        name: as the table shows it.
        path: of the program.
        root: state root.
        bundle: directory of the bundle that it runs.
    """

    def __init__(self, name: str, path: str, root: Path, bundle: Path) -> None:
        self.name = name
        self.base = [path, "--root", str(root)]
        self.bundle = str(bundle)
        self.long_lived = f"ctrun-bench-{os.getpid()}-{name}-long"
        self.short_lived = f"ctrun-bench-{os.getpid()}-{name}"

    def command(self, verb: str) -> list[str]:
        """What is timed.

        Args:
            verb: one of VERBS.
        """
        if verb == "run":
            return [*self.base, "run", "-b", self.bundle, self.short_lived]
        arguments = {"state": [self.long_lived], "list": [], "exec": [self.long_lived, "true"]}
        return [*self.base, verb, *arguments[verb]]

    def set_up(self) -> None:
        """Starts the container that `state`, `list` and `exec` look at."""
        subprocess.run(
            [*self.base, "run", "-d", "-b", f"{self.bundle}-long", self.long_lived],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def clean_up(self) -> None:
        """Leaves nothing."""
        for container in (self.long_lived, self.short_lived):
            subprocess.run([*self.base, "delete", "--force", container], check=False, stderr=subprocess.DEVNULL)


VERBS = ("run", "state", "list", "exec")


def sample(command: list[str]) -> tuple[float, float]:
    """Runs a command once; wall and CPU time in milliseconds.

    Args:
        command: program, by its path, and arguments.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    begin = time.perf_counter()
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
    pid = os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    end = time.perf_counter()
    os.close(null)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return (end - begin) * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def compare(runtimes: list[Runtime], verb: str, rounds: int, warm_up: int) -> None:
    """Times one verb and prints its part of the table.

    Args:
        runtimes: the first is the reference.
        verb: one of VERBS.
        rounds: how often each runtime runs.
        warm_up: rounds before that, which do not count.
    """
    wall: dict[str, list[float]] = {runtime.name: [] for runtime in runtimes}
    cpu: dict[str, list[float]] = {runtime.name: [] for runtime in runtimes}
    for number in range(warm_up + rounds):
        # whoever comes second in a round may profit from the first
        turn = number % len(runtimes)
        for runtime in runtimes[turn:] + runtimes[:turn]:
            taken = sample(runtime.command(verb))
            if number >= warm_up:
                wall[runtime.name].append(taken[0])
                cpu[runtime.name].append(taken[1])
    reference = runtimes[0].name
    for name, times in wall.items():
        print(
            f"{verb:6} {name:12} {median(times):8.1f} {percentile(times, 95):8.1f} {median(cpu[name]):8.1f}"
            f" {median(times) / median(wall[reference]):7.2f} {median(cpu[name]) / median(cpu[reference]):7.2f}",
            flush=True,
        )


@contextmanager
def bundle(directory: Path) -> Iterator[Path]:
    """A busybox bundle that runs `true`, and beside it, with -long behind its name, one that sleeps.

    Args:
        directory: where to make them.
    """
    for name, arguments in (("bundle", ["true"]), ("bundle-long", ["sleep", "1000000"])):
        path = directory / name
        path.mkdir()
        subprocess.run([ROOT / "examples/bundle/make-rootfs", path / "rootfs"], check=True)
        subprocess.run([ROOT / "bin/ctrun", "spec", "-b", path], check=True)
        config = json.loads((path / "config.json").read_text())
        # the version that every runtime of the last years takes
        config["ociVersion"] = "1.0.2"
        config["process"].update(terminal=False, args=arguments)
        (path / "config.json").write_text(json.dumps(config))
    yield directory / "bundle"


def main() -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--verbs", default=",".join(VERBS))
    parser.add_argument("runtimes", nargs="*", metavar="NAME=PATH")
    arguments = parser.parse_args()
    named = arguments.runtimes or [f"ctrun={ROOT / 'bin/ctrun'}", f"runc={shutil.which('runc') or 'runc'}"]
    # as /run is everywhere: on a disk every rename would wait for it
    tmpfs = "/dev/shm" if os.path.ismount("/dev/shm") else None
    with (
        tempfile.TemporaryDirectory(prefix="ctrun-bench.") as scratch,
        tempfile.TemporaryDirectory(prefix="ctrun-bench.", dir=tmpfs) as states,
        bundle(Path(scratch)) as path,
    ):
        runtimes = []
        for name, _, program in (word.partition("=") for word in named):
            runtimes.append(Runtime(name, program, Path(states, name), path))
        try:
            for runtime in runtimes:
                runtime.set_up()
            print("verb   runtime        median      p95      cpu   ratio     cpu")
            for verb in arguments.verbs.split(","):
                compare(runtimes, verb, arguments.rounds, arguments.warm_up)
        finally:
            for runtime in runtimes:
                runtime.clean_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
