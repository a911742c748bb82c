"""How quiet the machine is: what the same work takes when it is done again and again between the benchmarks."""

import os
import platform
import time
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Any

from bench.measure import percentile

PROBE = bytes(1 << 20)
PROBES = 40


class Noise:
    """Watches the machine while benchmarks run."""

    def __init__(self) -> None:
        self.probes: list[float] = []
        self.load = [os.getloadavg()[0]]
        self.before = _cpu_ticks()

    def probe(self) -> None:
        """Does a millisecond of work a few times; it takes longer when somebody else wants the processor."""
        for _ in range(PROBES):
            begin = time.perf_counter()
            blake2b(PROBE).digest()
            self.probes.append(time.perf_counter() - begin)
        self.load.append(os.getloadavg()[0])

    def describe(self) -> dict[str, Any]:
        """What was seen."""
        after = _cpu_ticks()
        ticks = [new - old for new, old in zip(after, self.before, strict=True)]
        total = sum(ticks) or 1
        return {
            "probe_median_ms": round(median(self.probes) * 1000, 3),
            "probe_p95_over_median": round(percentile(self.probes, 95) / median(self.probes), 2),
            "probe_maximum_over_median": round(max(self.probes) / median(self.probes), 2),
            "load": [round(load, 2) for load in (self.load[0], max(self.load))],
            "steal_percent": round(100 * ticks[7] / total, 2),
        }


def machine() -> dict[str, Any]:
    """What machine it is."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu_ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
