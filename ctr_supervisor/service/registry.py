"""Every container under the state root, whoever made it, as the kernel and the state directories have them.

Nothing here is believed from memory that the kernel can tell cheaply: every answer begins with what has happened by now
(observer.py).
"""

import os
import time
from collections.abc import Callable
from typing import Any

from ctr_common.errors import ContainerNotFound
from ctr_common.kernel import _kernel
from ctr_supervisor.engine.container import PENDING, STOPPED
from ctr_supervisor.service import limits
from ctr_supervisor.service.entry import Entry, load_config
from ctr_supervisor.service.loop import Loop
from ctr_supervisor.service.observer import Observer
from ctr_supervisor.service.telling import OnEnd, OnEvent, Teller

# Seconds. A creator has the directory before it has the lock; one so old without a holder has no creator any more.
HALF_MADE_AFTER = 5.0
# fds that are left for clients and jobs when very many containers want theirs.
FDS_LEFT = 512


class Registry:
    """The containers.

    Args:
        root: the state root; made if it is missing.
        on_event: told what happens to containers, but for what was so when this began.
        fds: how many fds it may hold; more containers are looked at by their pid.
        saved: what `export` of another program's registry returned; what has happened since is told then.
    """

    def __init__(
        self,
        root: str,
        loop: Loop,
        on_event: OnEvent | None = None,
        fds: int | None = None,
        saved: list[dict[str, Any]] | None = None,
    ) -> None:
        self.root = root
        self.teller = Teller(on_event)
        self.observer = Observer(root, loop, self.teller, (limits.soft() - FDS_LEFT) // 2 if fds is None else fds)
        self.teller.silent = saved is None
        for one in saved or ():
            self.observer.adopt(Entry.restored(root, one), one["pidfd"], deleted=one.get("deleted", False))
        self.observer.begin()
        self.teller.silent = False

    # -- answers

    def describe(self, container_id: str, *, as_answer: bool = False) -> dict[str, Any]:
        """One container as `engine.state.state` describes it.

        Args:
            as_answer: as the protocol has it, with the owner's name, and the exit status where it is known.

        Raises:
            ContainerNotFound: there is none of that id.
            UsageError: the id is not one.
            StateError: its state is unreadable.
        """
        entry = self.observer.find(container_id)
        status = self.observer.status(entry)
        described = entry.describe(status, entry.owner if as_answer else "")
        if as_answer:
            entry.add_exit_status(described)
        return described

    def describe_all(
        self, warn: Callable[[str], None] | None = None, *, as_answer: bool = False
    ) -> list[dict[str, Any]]:
        """Every container as `engine.list.list_containers` describes it, sorted by id.

        Args:
            as_answer: as the protocol has it, with the exit status where it is known.
            warn: told of containers whose state is unreadable; they are left out.
        """
        self.observer.refresh()
        found = []
        for container_id, entry in sorted(self.observer.entries.items()):
            if entry.problem is not None:
                entry.reload()
            if entry.problem is not None:
                if warn is not None and not isinstance(entry.problem, ContainerNotFound):
                    warn(f"load container {container_id}: {entry.problem}")
                continue
            try:
                found.append(entry.describe(self.observer.status(entry), entry.owner))
            except ContainerNotFound:
                continue
            if as_answer:
                entry.add_exit_status(found[-1])
        return found

    def ids(self) -> list[str]:
        """Ids of all containers, sorted."""
        self.observer.refresh()
        return sorted(self.observer.entries)

    def status(self, container_id: str) -> str:
        """Status of a container; see `describe`."""
        return self.observer.status(self.observer.find(container_id))

    def pid(self, container_id: str) -> int:
        """Pid of the init process, 0 once it has ended; see `describe`."""
        entry = self.observer.find(container_id)
        return 0 if self.observer.status(entry) == STOPPED else entry.pid

    def state(self, container_id: str) -> dict[str, Any]:
        """Contents of state.json, not to be changed; see `describe`."""
        return self.observer.find(container_id).state

    def config(self, container_id: str) -> dict[str, Any]:
        """The configuration as it was when the container was made; see `describe`."""
        return load_config(self.observer.find(container_id))

    def exit_status(self, container_id: str) -> int | None:
        """How a stopped container ended, as a shell shows it; None where that is not known. See `describe`."""
        return self.observer.find(container_id).exit_status

    def count(self) -> tuple[int, int]:
        """How many containers there are, and how many of them have a living process."""
        self.observer.refresh()
        return len(self.observer.entries), sum(1 for entry in self.observer.entries.values() if entry.is_alive())

    def live(self) -> list[tuple[str, dict[str, str]]]:
        """Ids and cgroups, by controller, of the containers with a living process."""
        self.observer.refresh()
        return [
            (entry.id, entry.state.get("cgroup_paths") or {})
            for entry in self.observer.entries.values()
            if entry.is_alive()
        ]

    def half_made(self, older_than: float = HALF_MADE_AFTER) -> list[str]:
        """Ids of containers whose creation ended half way, because their creator did.

        Args:
            older_than: seconds; a directory that is younger may be about to be locked by its creator.
        """
        self.observer.refresh()
        newest = time.time() - older_than
        found = []
        for entry in self.observer.entries.values():
            if entry.prepared and entry.problem is None:
                continue
            entry.reload()
            if PENDING in entry.state:
                continue
            try:
                old = os.stat(entry.directory.path, follow_symlinks=False).st_mtime <= newest
            except OSError:
                continue
            if old and not entry.prepared and not entry.directory.is_locked() and not entry.is_of_another_release():
                found.append(entry.id)
        return sorted(found)

    def wait(self, container_id: str, on_end: OnEnd) -> Callable[[], None]:
        """Tells when the init process has ended, at once if it has.

        Args:
            on_end: told the exit status as a shell shows it; None where it is not known.

        Returns:
            Call it to be told no more.

        Raises:
            ContainerNotFound, UsageError, StateError: as `describe`.
        """
        return self._wait(self.observer.find(container_id), on_end)

    def wait_for_process(self, container_id: str, pid: int, on_end: OnEnd) -> Callable[[], None] | None:
        """As `wait`, for the container whose init process has that pid, also while its deletion is not told yet.

        Returns:
            None when there is none.
        """
        entry = self.observer.find_process(container_id, pid)
        return None if entry is None else self._wait(entry, on_end)

    def _wait(self, entry: Entry, on_end: OnEnd) -> Callable[[], None]:
        stopped = self.observer.status(entry) == STOPPED
        if entry.settled or (stopped and entry.pid <= 0):
            on_end(entry.exit_status)
            return lambda: None
        self.observer.hold(entry)
        return self.teller.wait(entry, on_end)

    def init_pid(self, container_id: str) -> int:
        """Pid that the init process has, or had; 0 while there is none yet. See `describe`."""
        return self.observer.find(container_id).pid

    def signal(self, container_id: str, number: int) -> bool:
        """Sends a signal to the init process; whether there was one to take it. See `describe`."""
        entry = self.observer.find(container_id)
        if not self.observer.hold(entry):
            return False
        try:
            _kernel.pidfd_send_signal(entry.pidfd.number, number)
        except OSError:
            return False
        return True

    # -- what happens

    def tell_at_once(self, live: bool) -> None:
        """See `Observer.tell_at_once`."""
        self.observer.tell_at_once(live)

    def refresh(self) -> None:
        """See `Observer.refresh`."""
        self.observer.refresh()

    def reaped(self, pid: int, status: int) -> None:
        """See `Observer.reaped`."""
        self.observer.reaped(pid, status)

    def record(self) -> None:
        """Writes down the exit statuses that nobody else has; does so by itself after a moment."""
        self.observer.records.write()

    def export(self, keep: Callable[[int], int]) -> list[dict[str, Any]]:
        """What another program in this process needs to tell what happens from now on, for `saved` (upgrade.py).

        Args:
            keep: told of every fd that the other program is to have.
        """
        self.refresh()
        self.record()
        leaving = [{**entry.export(keep), "deleted": True} for entry in self.observer.leaving]
        return leaving + [entry.export(keep) for entry in self.observer.entries.values()]

    def close(self) -> None:
        """Writes down what is known, and lets go of everything."""
        self.observer.close()
