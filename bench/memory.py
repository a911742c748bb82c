"""Memory of processes, each page charged in equal parts to all who share it (PSS)."""

from pathlib import Path


def pss(pid: int) -> int:
    """Kilobytes that a process has.

    Args:
        pid: the process.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
