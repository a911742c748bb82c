"""What a test may leave behind by mistake: mounts, cgroups, processes, state.

Only what carries this run's own names is looked at, so tests can share a machine with other work.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.waiting import until

PR_SET_CHILD_SUBREAPER = 36
libc = ctypes.CDLL(None, use_errno=True)

# Mounted by whichever process of Podman's comes first, also by one that tidies up in the background after its test.
PODMANS_OWN = "/podman/storage/overlay"


def mounts(below: Sequence[Path]) -> set[str]:
    """Mount points of this mount namespace at or below one of the directories."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4]
        if not point.endswith(PODMANS_OWN) and any(f"{point}/".startswith(f"{top}/") for top in below):
            found.add(f"mount {point}")
    return found


def cgroups(prefix: str) -> set[str]:
    """Cgroups, in any hierarchy, with a name that contains the prefix."""
    found: set[str] = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found.update(f"cgroup {directory}/{name}" for name in names if prefix in name)
    return found


def states(roots: Sequence[Path], prefix: str) -> set[str]:
    """Files in the state directories with a name that contains the prefix."""
    return {f"state {root}/{name}" for root in roots if root.exists() for name in os.listdir(root) if prefix in name}


def _parents() -> dict[int, tuple[int, str, str]]:
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            command, rest = stat.partition("(")[2].rsplit(") ", 1)
            state, parent = rest.split()[:2]
            table[int(name)] = (int(parent), state, command)
    return table


def descendants() -> dict[int, str]:
    """Living processes below this one: number and command."""
    table = _parents()
    found: dict[int, str] = {}
    grown = True
    while grown:
        grown = False
        for pid, (parent, state, command) in table.items():
            if pid not in found and state != "Z" and (parent == os.getpid() or parent in found):
                found[pid] = command
                grown = True
    return found


def reap(known: set[int]) -> None:
    """Buries dead children that were handed to this process as their subreaper."""
    for pid, (parent, state, _) in _parents().items():
        if parent == os.getpid() and state == "Z" and pid not in known:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


class LeakCheck:
    """Remembers what there is, and fails when there is more at the end.

    Args:
        directories: where mounts of the test would be.
        roots: state directories.
        prefix: what the names of the run's containers start with.
    """

    def __init__(self, directories: Sequence[Path], roots: Sequence[Path], prefix: str) -> None:
        self.directories = directories
        self.roots = roots
        self.prefix = prefix
        # orphans come back to this process rather than to init, so none can hide
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.processes = set(descendants())
        self.before = self._things()

    def _things(self) -> set[str]:
        return mounts(self.directories) | cgroups(self.prefix) | states(self.roots, self.prefix)

    def _left(self) -> list[str]:
        reap(self.processes)
        processes = {f"process {pid} ({name})" for pid, name in descendants().items() if pid not in self.processes}
        return sorted((self._things() - self.before) | processes)

    def check(self) -> None:
        """Fails the test with a list of what is left; what is just going gets a moment to go."""
        __tracebackhide__ = True
        left: list[str] = []

        def nothing_left() -> bool:
            left[:] = self._left()
            return not left

        try:
            until("nothing left behind", nothing_left, limit=3)
        except AssertionError:
            raise AssertionError("left behind: " + ", ".join(left)) from None
        finally:
            libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
