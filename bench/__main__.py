"""Benchmarks of ctrun beside its peers; see bench/README.md.

usage: ./dev bench [--quick] [--rounds N] [--views v1,v2] [--runtimes NAME,…] [--save] [NAME…]

NAME is one of the benchmarks: run, lifecycle, look (exec, state, list), throughput, memory, crowd, cold, instructions,
checkpoint. Without any, all are done. --quick takes a rough look in two minutes. --save makes the result the one that
bench/README.md shows.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import goals, noise, peers, picture, report
from bench.measure import CpuMeter
from bench.results import Results, Row
from bench.runtimes import ROOT
from bench.world import CGROUPS, HYBRID, UNIFIED, World, cgroups

BENCHMARKS = ("run", "lifecycle", "look", "throughput", "memory", "cold", "instructions", "checkpoint", "crowd")
ROUNDS = 50
QUICK_ROUNDS = 10
RESULTS = ROOT / "bench/results"

# a cgroup v2 mount without controllers in a mount namespace of its own: harmless to the host
UNIFIED_VIEW = 'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'


def main() -> int:
    """Does what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--views", default="")
    parser.add_argument("--runtimes", default="")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], metavar="NAME")
    given = parser.parse_args()
    if given.part:
        return measure_view(json.loads(given.part))
    if os.geteuid() != 0:
        parser.error("benchmarks need root")
    os.environ.pop("CTRUN_SUPERVISOR", None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    views = given.views.split(",") if given.views else views_here()
    document = run(given, views)
    results = Results([Row.from_dict(row) for row in document["rows"]])
    print(report.text(document, results))
    save(document, results, given.save)
    return 0


def views_here() -> list[str]:
    """The views of cgroups that this host can show."""
    return [UNIFIED] if (CGROUPS / "cgroup.procs").exists() else [HYBRID, UNIFIED]


def run(given: argparse.Namespace, views: list[str]) -> dict[str, Any]:
    """Measures every view; returns all that is known afterwards."""
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    watch = noise.Noise()
    began = time.time()
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    try:
        peers.unpack("crun")
    except (peers.Unavailable, OSError) as error:
        notes.append(f"crun of Debian 13 left out: {error}")
    for view in views:
        part = {
            "view": view,
            "quick": given.quick,
            "rounds": rounds,
            "names": given.names or list(BENCHMARKS),
            "runtimes": [name for name in given.runtimes.split(",") if name],
        }
        watch.probe()
        found = in_view(part)
        watch.probe()
        rows += found["rows"]
        notes += [note for note in found["notes"] if note not in notes]
    results = Results([Row.from_dict(row) for row in rows])
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime(began)),
        "seconds": round(time.time() - began),
        "rounds": rounds,
        "machine": noise.machine(),
        "noise": watch.describe(),
        "goals": goals.check(results),
        "notes": notes,
        "rows": rows,
    }


def in_view(part: dict[str, Any]) -> dict[str, Any]:
    """Measures in a process of its own, which has the view and the cgroup whose CPU time is counted.

    Args:
        part: what to measure there.
    """
    name = f"ctrun-bench-{os.getpid()}"
    with cgroups(name) as (home, count), tempfile.NamedTemporaryFile(prefix="ctrun-bench.") as answer:
        fd = os.open(count, os.O_RDONLY)
        part |= {"cgroup": name, "meter": fd, "answer": answer.name}
        command = ["sh", "-c", f'echo 0 >{home}/cgroup.procs; exec "$@"', "sh"]
        if part["view"] == UNIFIED and views_here() != [UNIFIED]:
            command += ["unshare", "-m", "--propagation", "private", "sh", "-c", UNIFIED_VIEW, "sh"]
        command += [sys.executable, "-m", "bench", "--part", json.dumps(part)]
        try:
            with subprocess.Popen(command, pass_fds=[fd], cwd=ROOT) as process:
                try:
                    status = process.wait()
                except BaseException:
                    # it has containers to delete
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    process.terminate()
                    process.wait()
                    raise
            if status:
                raise SystemExit(f"bench: measuring the {part['view']} view ended with {status}")
        finally:
            os.close(fd)
        found: dict[str, Any] = json.loads(Path(answer.name).read_text())
        return found


def measure_view(part: dict[str, Any]) -> int:
    """The process in a view: measures, and writes down what it found."""
    # the terminal's interrupt reaches the parent too, which then asks for the end
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # as /run is everywhere: on a disk every rename would wait for it
    tmpfs = "/dev/shm" if os.path.ismount("/dev/shm") else None
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="ctrun-bench.") as scratch,
        tempfile.TemporaryDirectory(prefix="ctrun-bench.", dir=tmpfs) as states,
    ):
        world = World(
            part["view"],
            Path(scratch),
            Path(states),
            part["cgroup"],
            CpuMeter(part["meter"]),
            part["quick"],
            part["rounds"],
        )
        try:
            world.add_runtimes(set(part["runtimes"]))
            for name in part["names"]:
                begin = time.monotonic()
                print(f"{part['view']}: {name} …", end="", file=sys.stderr, flush=True)
                try:
                    rows += import_module(f"bench.benchmarks.{name}").measure(world)
                except Exception as error:
                    world.notes.append(f"{name}, {part['view']}: ended by {type(error).__name__}: {error}")
                print(f" {time.monotonic() - begin:.0f} s", file=sys.stderr)
        finally:
            for runtime in world.runtimes.values():
                runtime.stop()
    found = {"rows": [row.as_dict() for row in rows], "notes": world.notes}
    Path(part["answer"]).write_text(json.dumps(found))
    return 0


def save(document: dict[str, Any], results: Results, last: bool) -> None:
    """Writes the JSON and the picture.

    Args:
        document: all that is known.
        results: its rows.
        last: make it the one that is committed, with its table in bench/README.md.
    """
    RESULTS.mkdir(exist_ok=True)
    name = "last" if last else time.strftime("%Y%m%d-%H%M%S")
    (RESULTS / f"{name}.json").write_text(compact(document))
    (RESULTS / f"{name}.svg").write_text(picture.draw(document, results))
    print(f"written to bench/results/{name}.json and .svg")
    if last:
        readme = ROOT / "bench/README.md"
        readme.write_text(report.put_into(readme.read_text(), report.markdown(document, results)))


def compact(document: dict[str, Any]) -> str:
    """JSON with a line for each row: 50 samples are no reading matter."""
    rows = ",\n".join("  " + json.dumps(row) for row in document["rows"])
    head = json.dumps({**document, "rows": []}, indent=1, ensure_ascii=False)
    return head.replace('"rows": []', f'"rows": [\n{rows}\n ]') + "\n"


if __name__ == "__main__":
    sys.exit(main())
