"""Every container under the state root, whoever made it, as the kernel and the state directories have them.

Nothing here is believed from memory that the kernel can tell cheaply, and nothing is looked at while nothing happens:
inotify tells what changes on disk, and a pidfd for each init process when and how that ends. `refresh` takes in what
has happened by now; every answer begins with it.

              state directories ──inotify──▶ Changes ─┐
              init processes ─────pidfds────▶ epoll ───┴─▶ entries ──▶ describe, wait, events
"""

import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_common.errors import ContainerNotFound, CtrError
from ctr_common.fd import Fd
from ctr_common.kernel import _kernel
from ctr_common.spec.validate import validate_id
from ctr_common.state import FIFO_FILE, LOCK_FILE, STATE_FILE, StateDir, ids
from ctr_supervisor.engine.container import CREATED, PAUSED, PENDING, RUNNING, STOPPED
from ctr_supervisor.process import status as process_status
from ctr_supervisor.service import limits
from ctr_supervisor.service.changes import Changes
from ctr_supervisor.service.entry import STATUS_FILE, Entry, load_config
from ctr_supervisor.service.loop import READABLE, Loop, Timer

# Seconds after which a change on disk is looked at when nobody asks and nobody listens: one creation alone makes ten.
LAG = 0.05
# Where the kernel does not tell exit statuses, how long the keeper gets to write one down.
KEEPER_TIME = 1.0
# The one who waited for a container deletes it as a rule, and is left alone with its directory for so long.
RECORD_AFTER = 0.5
# A creator has the directory before it has the lock; a directory so old without a holder has no creator any more.
HALF_MADE_AFTER = 5.0
# fds that are left for clients and jobs when very many containers want theirs.
FDS_LEFT = 512

# Told of a container with the event's name and fields; the time is the teller's.
OnEvent = Callable[[dict[str, Any]], None]
# Told the exit status, None when it is not known.
OnEnd = Callable[[int | None], None]


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
        self.loop = loop
        self.on_event = on_event
        self._fds_max = (limits.soft() - FDS_LEFT) // 2 if fds is None else fds
        self._entries: dict[str, Entry] = {}
        self._by_watch: dict[int, Entry] = {}
        self._by_pidfd: dict[int, Entry] = {}
        self._waiting: dict[Entry, list[OnEnd]] = {}
        self._unwatched: set[Entry] = set()
        self._unrecorded: set[Entry] = set()
        self._record_timer: Timer | None = None
        self._late_timer: Timer | None = None
        self._calls: deque[Callable[[], None]] = deque()
        self._refreshing = False
        self._live = False
        self._tells_statuses = kernel_tells_statuses()
        self._epoll = select.epoll()
        self._changes = Changes(root)
        os.makedirs(root, 0o700, exist_ok=True)
        self._changes.watch_root()
        self._silent = saved is None
        for one in saved or ():
            self._restore(one)
        self._scan()
        self._silent = False
        loop.add(self._epoll.fileno(), self._on_pidfds, urgent=True)
        if self._changes.usable:
            loop.add(self._changes.fileno(), self._on_changes)

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
        entry = self._find(container_id)
        status = self._status(entry)
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
        self.refresh()
        found = []
        for container_id, entry in sorted(self._entries.items()):
            if entry.problem is not None:
                entry.reload()
            if entry.problem is not None:
                if warn is not None and not isinstance(entry.problem, ContainerNotFound):
                    warn(f"load container {container_id}: {entry.problem}")
                continue
            try:
                found.append(entry.describe(self._status(entry), entry.owner))
            except ContainerNotFound:
                continue
            if as_answer:
                entry.add_exit_status(found[-1])
        return found

    def ids(self) -> list[str]:
        """Ids of all containers, sorted."""
        self.refresh()
        return sorted(self._entries)

    def status(self, container_id: str) -> str:
        """Status of a container; see `describe`."""
        return self._status(self._find(container_id))

    def pid(self, container_id: str) -> int:
        """Pid of the init process, 0 once it has ended; see `describe`."""
        entry = self._find(container_id)
        return 0 if self._status(entry) == STOPPED else entry.pid

    def state(self, container_id: str) -> dict[str, Any]:
        """Contents of state.json, not to be changed; see `describe`."""
        return self._find(container_id).state

    def config(self, container_id: str) -> dict[str, Any]:
        """The configuration as it was when the container was made; see `describe`."""
        return load_config(self._find(container_id))

    def exit_status(self, container_id: str) -> int | None:
        """How a stopped container ended, as a shell shows it; None where that is not known. See `describe`."""
        return self._find(container_id).exit_status

    def count(self) -> tuple[int, int]:
        """How many containers there are, and how many of them have a living process."""
        self.refresh()
        return len(self._entries), sum(1 for entry in self._entries.values() if entry.is_alive())

    def live(self) -> list[tuple[str, dict[str, str]]]:
        """Ids and cgroups, by controller, of the containers with a living process."""
        self.refresh()
        return [
            (entry.id, entry.state.get("cgroup_paths") or {}) for entry in self._entries.values() if entry.is_alive()
        ]

    def half_made(self, older_than: float = HALF_MADE_AFTER) -> list[str]:
        """Ids of containers whose creation ended half way, because their creator did.

        Args:
            older_than: seconds; a directory that is younger may be about to be locked by its creator.
        """
        self.refresh()
        newest = time.time() - older_than
        found = []
        for entry in self._entries.values():
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
        entry = self._find(container_id)
        if self._status(entry) == STOPPED and (entry.settled or entry.pid <= 0):
            on_end(entry.exit_status)
            return lambda: None
        if entry.pidfd.number < 0 and not entry.ended:
            self._hold(entry, must=True)
        waiting = self._waiting.setdefault(entry, [])
        waiting.append(on_end)

        def cancel() -> None:
            if on_end in waiting:
                waiting.remove(on_end)

        return cancel

    def signal(self, container_id: str, number: int) -> bool:
        """Sends a signal to the init process; whether there was one to take it. See `describe`."""
        entry = self._find(container_id)
        if entry.pidfd.number < 0 and not entry.ended:
            self._hold(entry, must=True)
        if entry.pidfd.number < 0:
            return False
        try:
            _kernel.pidfd_send_signal(entry.pidfd.number, number)
        except OSError:
            return False
        return True

    # -- what happens

    def tell_at_once(self, live: bool) -> None:
        """Whether changes are looked at as they happen, because somebody listens, or within LAG seconds."""
        self._live = live
        if live:
            self.refresh()

    def refresh(self) -> None:
        """Takes in everything that has happened by now, and tells of it."""
        if self._refreshing:
            # Whoever is told asks for more.
            return
        self._refreshing = True
        try:
            self._take_all()
            while self._calls:
                self._calls.popleft()()
        finally:
            self._refreshing = False

    def _take_all(self) -> None:
        found = self._changes.read()
        if found is not None:
            if found.lost:
                self._changes.watch_root()
                self._scan()
            else:
                for name, gone in found.directories.items():
                    if gone and name in self._entries:
                        self._remove(self._entries[name])
                    self._look_at(name)
            for watch, names in found.changed.items():
                entry = self._by_watch.get(watch)
                if entry is not None:
                    self._take_changes(entry, names)
        if not self._changes.complete:
            self._scan()
        elif self._unwatched:
            for entry in list(self._unwatched):
                self._look_at(entry.id)
        if self._by_pidfd:
            for fd, events in self._epoll.poll(0, len(self._by_pidfd)):
                ended = self._by_pidfd.get(fd)
                if ended is not None:
                    self._take_end(ended, events)

    def _on_changes(self, _: int) -> None:
        if self._live:
            self.refresh()
        elif self._late_timer is None:
            self.loop.change(self._changes.fileno(), 0)
            self._late_timer = self.loop.call_later(LAG, self._take_late_changes)

    def _take_late_changes(self) -> None:
        self._late_timer = None
        self.loop.change(self._changes.fileno(), READABLE)
        self.refresh()

    def _on_pidfds(self, _: int) -> None:
        self.refresh()

    def _scan(self) -> None:
        """Looks at everything."""
        names = ids(self.root)
        for name in set(names) | set(self._entries):
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        """Brings one entry in line with what is on disk, whatever that is."""
        entry = self._entries.get(name)
        if entry is not None and not entry.is_current():
            # Not seen when inotify has told of it: inodes are used again at once.
            self._remove(entry)
            entry = None
        if entry is None:
            try:
                validate_id(name)
                entry = Entry(StateDir(self.root, name))
            except (CtrError, OSError):
                return
            self._entries[name] = entry
            self._watch(entry)
        elif entry.watch < 0:
            self._watch(entry)
        self._take_state(entry)

    def _replace(self, entry: Entry) -> None:
        """What was made since, under the same name and with the same inode, is another container."""
        self._remove(entry)
        self._look_at(entry.id)

    def _watch(self, entry: Entry) -> None:
        entry.watch = self._changes.watch(entry.directory.path)
        if entry.watch >= 0:
            self._by_watch[entry.watch] = entry
            self._unwatched.discard(entry)
        else:
            self._unwatched.add(entry)

    def _take_changes(self, entry: Entry, names: set[str]) -> None:
        if STATE_FILE in names or FIFO_FILE in names:
            self._take_state(entry)
        if STATUS_FILE in names and entry.ended and entry.pidfd.number < 0:
            self._settle(entry)
        if LOCK_FILE in names and entry.is_alive():
            self._tell_pauses(entry)

    def _take_state(self, entry: Entry) -> None:
        changed = entry.reload()
        if entry.is_another:
            self._replace(entry)
            return
        if changed:
            self._let_go(entry)
            entry.reset_process()
            self._hold(entry)
            entry.paused = self._silent and entry.is_frozen()
        elif entry.fifo:
            entry.look_for_fifo()
        self._tell_progress(entry)

    def _hold(self, entry: Entry, *, must: bool = False) -> None:
        """Gets a pidfd of the init process, or learns how it ended.

        Args:
            must: somebody waits for its end.
        """
        if entry.pid <= 0:
            return
        if must or len(self._by_pidfd) < self._fds_max:
            pidfd = open_pidfd(entry.pid, entry.start_time)
            if pidfd is not None:
                entry.pidfd = Fd(pidfd)
                self._by_pidfd[pidfd] = entry
                self._epoll.register(pidfd, READABLE)
                return
        # It is gone, or there is no fd left.
        if process_status.is_alive(entry.pid, entry.start_time):
            return
        entry.ended = True
        if entry.read_status_file() or self._silent or entry.watch < 0:
            entry.settled = True
        else:
            # The keeper has reaped it, and may be about to write how it ended.
            self.loop.call_later(KEEPER_TIME, lambda: self._settle_late(entry))

    def _take_end(self, entry: Entry, events: int) -> None:
        if not entry.ended:
            entry.ended = True
            # What it did before its end is on disk by now.
            self._take_state(entry)
            if not self._tells_statuses:
                self._let_go(entry)
                if entry.read_status_file():
                    self._settle(entry)
                else:
                    self.loop.call_later(KEEPER_TIME, lambda: self._settle_late(entry))
                return
            # From here on only the reaping is waited for, which shows as EPOLLHUP, and that is always told.
            self._epoll.modify(entry.pidfd.fileno(), 0)
        if events & select.EPOLLHUP:
            self._settle(entry)

    def _settle_late(self, entry: Entry) -> None:
        self._settle(entry)
        self.refresh()

    def _settle(self, entry: Entry) -> None:
        """There is nothing more to be learned: tells of the end."""
        if entry.settled:
            return
        entry.settled = True
        if entry.ask_kernel():
            self._record_later(entry)
        elif entry.exit_status is None:
            entry.read_status_file()
        self._let_go(entry)
        self._tell_end(entry)

    def _let_go(self, entry: Entry) -> None:
        fd = entry.pidfd.number
        if fd >= 0 and self._by_pidfd.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        entry.pidfd.close()

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]
        if entry.pid > 0 and not entry.settled:
            entry.ended = True
            self._settle(entry)
        if "created" in entry.told:
            self._tell(entry, "deleted", {})
        self._tell_waiting(entry)
        self._unwatched.discard(entry)
        self._unrecorded.discard(entry)
        if entry.watch >= 0:
            self._by_watch.pop(entry.watch, None)
            self._changes.forget(entry.watch)
        self._let_go(entry)
        entry.close()

    # -- exit statuses for whoever comes next

    def _record_later(self, entry: Entry) -> None:
        self._unrecorded.add(entry)
        if self._record_timer is None:
            self._record_timer = self.loop.call_later(RECORD_AFTER, self.record)

    def record(self) -> None:
        """Writes down the exit statuses that nobody else has; does so by itself after a moment."""
        self._record_timer = None
        entries, self._unrecorded = self._unrecorded, set()
        for entry in entries:
            entry.record()

    # -- events

    def _tell_progress(self, entry: Entry) -> None:
        if entry.prepared:
            if "created" not in entry.told:
                self._tell(entry, "created", {"pid": entry.pid})
            if not entry.fifo and "started" not in entry.told:
                self._tell(entry, "started", {"pid": entry.pid})
        if entry.settled:
            self._tell_end(entry)

    def _tell_end(self, entry: Entry) -> None:
        if "exited" not in entry.told and "created" in entry.told:
            fields = {"pid": entry.pid}
            if entry.exit_status is not None:
                fields["status"] = entry.exit_status
            self._tell(entry, "exited", fields)
        self._tell_waiting(entry)

    def _tell_waiting(self, entry: Entry) -> None:
        for on_end in self._waiting.pop(entry, []):
            self._calls.append(lambda on_end=on_end: on_end(entry.exit_status))  # type: ignore[misc]

    def _tell_pauses(self, entry: Entry) -> None:
        frozen = entry.is_frozen()
        if frozen != entry.paused:
            entry.paused = frozen
            if "created" in entry.told:
                self._tell(entry, "paused" if frozen else "resumed", {})

    def _tell(self, entry: Entry, event: str, fields: dict[str, Any]) -> None:
        entry.told.add(event)
        if not self._silent:
            told = {"event": event, "id": entry.id, "time": time.time(), **fields}
            self._calls.append(lambda: self._emit(told))

    def _emit(self, event: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(event)

    # -- another program in this process (upgrade.py)

    def export(self, keep: Callable[[int], int]) -> list[dict[str, Any]]:
        """What another program needs to tell what happens from now on, and how processes end, for `saved`.

        Args:
            keep: told of every fd that the other program is to have.
        """
        self.refresh()
        self.record()
        return [
            {
                "id": entry.id,
                "created": entry.state.get("created"),
                "pid": entry.pid,
                "start_time": entry.start_time,
                "pidfd": keep(entry.pidfd.number) if entry.pidfd.number >= 0 else -1,
                "ended": entry.ended,
                "settled": entry.settled,
                "raw_status": entry.raw_status,
                "told": sorted(entry.told),
                "paused": entry.paused,
            }
            for entry in self._entries.values()
        ]

    def _restore(self, saved: dict[str, Any]) -> None:
        """An entry as another program had it; the scan brings it up to date."""
        entry = Entry(StateDir(self.root, saved["id"]), gone=True)
        entry.state = {"created": saved["created"]} if saved["created"] else {}
        entry.pid, entry.start_time = saved["pid"], saved["start_time"]
        entry.ended, entry.settled = saved["ended"], saved["settled"]
        entry.told = set(saved["told"])
        entry.paused = saved["paused"]
        if saved["raw_status"] is not None:
            entry.learn(saved["raw_status"])
        if saved["pidfd"] >= 0:
            entry.pidfd = Fd(saved["pidfd"])
            self._by_pidfd[entry.pidfd.number] = entry
            self._epoll.register(entry.pidfd.number, 0 if entry.ended else READABLE)
        self._entries[entry.id] = entry

    # -- the rest

    def _find(self, container_id: str) -> Entry:
        self.refresh()
        entry = self._entries.get(container_id)
        if entry is None:
            validate_id(container_id)
            raise ContainerNotFound("container does not exist")
        if entry.problem is not None:
            self._take_state(entry)
            if entry.problem is not None:
                raise entry.problem
        return entry

    def _status(self, entry: Entry) -> str:
        status = entry.status()
        if status == STOPPED and not entry.ended and entry.pid > 0:
            # No pidfd told of it.
            entry.ended = True
            self._settle(entry)
        elif status in (PAUSED, RUNNING, CREATED) and (status == PAUSED) != entry.paused:
            self._tell_pauses(entry)
        if self._calls:
            self.refresh()
        return status

    def close(self) -> None:
        """Writes down what is known, and lets go of everything."""
        self.record()
        for timer in (self._late_timer, self._record_timer):
            if timer is not None:
                timer.cancel()
        self.loop.remove(self._epoll.fileno())
        if self._changes.usable:
            self.loop.remove(self._changes.fileno())
        for entry in self._entries.values():
            entry.close()
        self._epoll.close()
        self._changes.close()


def open_pidfd(pid: int, start_time: int) -> int | None:
    """A pidfd that is certainly of that process, which may have ended but is not reaped; None if it is gone."""
    try:
        pidfd = _kernel.pidfd_open(pid)
    except OSError:
        return None
    found = process_status.read_stat(pid)
    if found is not None and found[1] == start_time:
        return pidfd
    os.close(pidfd)
    return None


def kernel_tells_statuses() -> bool:
    """Whether holders of a pidfd are told how a process ended that is not their child (Linux 6.15)."""
    with Fd(_kernel.pidfd_open(os.getpid())) as own:
        try:
            _kernel.pidfd_info(own.fileno())
        except OSError:
            return False
    return True
