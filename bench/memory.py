"""Memory of processes, each page charged in equal parts to all who share it (PSS)."""

from collections.abc import Iterable
from pathlib import Path


def pss_of_all(pids: Iterable[int]) -> int:
    """Kilobytes that processes have together.

    Args:
        pids: the processes; one that has ended meanwhile has nothing.
    """
    total = 0
    for pid in pids:
        try:
            total += pss(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def pss(pid: int) -> int:
    """Kilobytes that a process has.

    Args:
        pid: the process.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
