"""Signals to all processes of a container, also to those that are being forked while it happens."""

import os

from ctr_common.errors import CgroupError
from ctr_common.kernel.constants import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cgroups.manager import Manager

# Where freezing is not possible, forks can outrun the list of pids; each round kills all that were there.
ROUNDS = 100


def signal_all(manager: "Manager", signal: int) -> None:
    """Freezes, signals all, thaws.

    While they are frozen no process can fork, nor end so that its number goes to somebody else. A caller that is
    itself in the cgroup neither freezes nor signals itself.

    Args:
        manager: the container's cgroups; paused ones stay paused, unless the signal is SIGKILL.
        signal: number of the signal.

    Raises:
        CgroupError: a process may not be signalled.
    """
    me = os.getpid()
    if me in manager.pids():
        _signal(manager, signal, me)
        return
    was_frozen = manager.frozen()
    frozen = was_frozen
    if not was_frozen:
        try:
            manager.freeze()
            frozen = True
        except CgroupError:
            # No freezer here, or new processes kept coming: rounds must do.
            pass
    try:
        rounds = 1 if frozen or signal != SIGKILL else ROUNDS
        for _ in range(rounds):
            if not _signal(manager, signal, me):
                break
    finally:
        if frozen and (not was_frozen or signal == SIGKILL):
            manager.thaw()


def _signal(manager: "Manager", signal: int, me: int) -> int:
    """Signals all; returns how many there were that had not ended."""
    count = 0
    for pid in manager.pids():
        # 0 stands for a process that this pid namespace can't see.
        if pid in (0, me):
            continue
        try:
            os.kill(pid, signal)
            count += 1
        except ProcessLookupError:
            continue
        except OSError as error:
            text = f"signalling process {pid} with {signal}"
            raise CgroupError(text, syscall="kill", errno=error.errno or 0) from None
    return count
