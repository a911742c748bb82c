"""The limits of a container as the kernel has them, whichever version of cgroups it is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.runtime import Runtime

# What v1 says for "no limit": the largest number of whole pages.
V1_UNLIMITED = 0x7FFFFFFFFFFFF000
UNLIMITED = -1


class Limits:
    """The cgroups of a container.

    Args:
        runtime: whose container it is.
        container: its id.
    """

    def __init__(self, runtime: Runtime, container: str) -> None:
        state = json.loads((runtime.state_root / container / "state.json").read_text())
        self.paths: dict[str, str] = state["cgroup_paths"]
        self.unified = list(self.paths) == [""]

    def directory(self, controller: str) -> Path:
        """The cgroup with a controller."""
        return Path(self.paths["" if self.unified else controller])

    def text(self, controller: str, name: str) -> str:
        """Contents of a file."""
        return (self.directory(controller) / name).read_text().strip()

    def _number(self, controller: str, v1: str, v2: str) -> int:
        text = self.text(controller, v2 if self.unified else v1)
        return UNLIMITED if text in ("max", "-1", str(V1_UNLIMITED)) else int(text)

    def memory(self) -> int:
        """Limit on memory in bytes."""
        return self._number("memory", "memory.limit_in_bytes", "memory.max")

    def memory_and_swap(self) -> int:
        """Limit on memory and swap together."""
        if not self.unified:
            return self._number("memory", "memory.memsw.limit_in_bytes", "")
        swap = self._number("memory", "", "memory.swap.max")
        return UNLIMITED if swap == UNLIMITED else swap + self.memory()

    def reservation(self) -> int:
        """Memory that is left to the container."""
        return self._number("memory", "memory.soft_limit_in_bytes", "memory.low")

    def pids(self) -> int:
        """Number of processes."""
        return self._number("pids", "pids.max", "pids.max")

    def bandwidth(self) -> tuple[int, int]:
        """Quota and period of the CPU in microseconds."""
        if not self.unified:
            return self._number("cpu", "cpu.cfs_quota_us", ""), int(self.text("cpu", "cpu.cfs_period_us"))
        quota, period = self.text("cpu", "cpu.max").split()
        return UNLIMITED if quota == "max" else int(quota), int(period)

    def burst(self) -> int:
        """CPU time that may be saved up."""
        return self._number("cpu", "cpu.cfs_burst_us", "cpu.max.burst")

    def idle(self) -> int:
        """Whether the CPU is for others first."""
        return self._number("cpu", "cpu.idle", "cpu.idle")

    def shares(self) -> int:
        """Weight of CPU time, in v1's terms."""
        if not self.unified:
            return int(self.text("cpu", "cpu.shares"))
        weight = int(self.text("cpu", "cpu.weight"))
        # The conversion that ctrun shares with current releases of runc is no straight line: look it up.
        from ctr_supervisor.cgroups.conversions import cpu_weight

        return next(shares for shares in (2, 100, 512, 1024, 2048, 262144) if cpu_weight(shares) == weight)

    def cpus(self) -> str:
        """The CPUs that were asked for."""
        return self.text("cpuset", "cpuset.cpus")

    def mems(self) -> str:
        """The memory nodes that were asked for."""
        return self.text("cpuset", "cpuset.mems")

    def all(self) -> dict[str, object]:
        """All of them that this host has."""
        found: dict[str, object] = {}
        for name in (
            "memory",
            "memory_and_swap",
            "reservation",
            "pids",
            "bandwidth",
            "burst",
            "idle",
            "shares",
            "cpus",
        ):
            try:
                found[name] = getattr(self, name)()
            except (FileNotFoundError, KeyError):
                continue
        return found
