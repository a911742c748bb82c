"""Brings what is known of the containers in line with what the kernel and the state directories have.

Nothing is looked at while nothing happens: inotify tells what changes on disk, and a pidfd for each init process when
and how that ends. `refresh` takes in what has happened by now.

              state directories ──inotify──▶ Changes ─┐
              init processes ─────pidfds────▶ Pidfds ──┴─▶ entries ──▶ Teller
"""

import os
import select
from itertools import chain

from ctr_common.errors import ContainerNotFound, CtrError, StateError
from ctr_common.spec.validate import validate_id
from ctr_common.state import FIFO_FILE, LOCK_FILE, STATE_FILE, StateDir, ids
from ctr_supervisor.engine.container import CREATED, PAUSED, RUNNING, STOPPED
from ctr_supervisor.process import status as process_status
from ctr_supervisor.service import options
from ctr_supervisor.service.changes import Changes
from ctr_supervisor.service.entry import STATUS_FILE, Entry
from ctr_supervisor.service.loop import READABLE, Loop, Timer
from ctr_supervisor.service.pidfds import Pidfds, kernel_tells_statuses
from ctr_supervisor.service.records import Records
from ctr_supervisor.service.telling import Teller

# Seconds after which a change on disk is looked at when nobody asks and nobody listens: one creation alone makes ten.
LAG = 0.05
# Where the kernel does not tell exit statuses, how long the keeper gets to write one down, or to be reaped.
KEEPER_TIME = 1.0
# How long who starts a container that has ended already gets to say so; one that was stopped holds up nobody.
STARTER_TIME = 2.0
# How long a look at everything is put off that could not be done.
SCAN_PAUSE = 1.0


class Observer:
    """The containers under a state root, as entries.

    Args:
        root: the state root; made if it is missing.
        teller: told what happens.
        fds: how many pidfds it may hold; more containers are looked at by their pid.

    Attributes:
        entries: by id, as of the last `refresh`.
        leaving: deleted ones, while how they ended is still to be heard.
        records: exit statuses to be written down.
    """

    def __init__(self, root: str, loop: Loop, teller: Teller, fds: int) -> None:
        self.root = root
        self.loop = loop
        self.teller = teller
        self.entries: dict[str, Entry] = {}
        self.leaving: list[Entry] = []
        self.records = Records(loop)
        self._by_watch: dict[int, Entry] = {}
        self._unwatched: set[Entry] = set()
        self._late_timer: Timer | None = None
        # The next look at everything that could not be done at its time.
        self._overdue: Timer | None = None
        self._lost = False
        self._refreshing = False
        self._live = False
        self._tells_statuses = kernel_tells_statuses()
        self._pidfds = Pidfds(fds)
        self._changes = Changes(root)
        os.makedirs(root, 0o700, exist_ok=True)
        self._changes.watch_root()

    def adopt(self, entry: Entry, pidfd: int, *, deleted: bool = False) -> None:
        """Goes on with an entry of another program; `begin` brings it up to date.

        Args:
            pidfd: of its process, -1 for none.
            deleted: it is one of `leaving`.
        """
        if deleted:
            self._see_off(entry)
            return
        if pidfd >= 0:
            self._pidfds.adopt(entry, pidfd)
        self.entries[entry.id] = entry

    def begin(self) -> None:
        """Looks at everything, and watches from now on."""
        self._scan()
        self.loop.add(self._pidfds.fileno(), lambda _: self.refresh(), urgent=True)
        if self._changes.usable:
            self.loop.add(self._changes.fileno(), self._on_changes)

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
            self.teller.tell()
        finally:
            self._refreshing = False

    def find(self, container_id: str) -> Entry:
        """One entry as of now, its state readable.

        Raises:
            ContainerNotFound: there is none of that id.
            UsageError: the id is not one.
            StateError: its state is unreadable.
        """
        self.refresh()
        entry = self.entries.get(container_id)
        if entry is None:
            validate_id(container_id)
            raise ContainerNotFound("container does not exist")
        if entry.problem is not None:
            self._take_state(entry)
            if entry.problem is not None:
                raise entry.problem
        return entry

    def find_process(self, container_id: str, pid: int) -> Entry | None:
        """The entry whose init process has, or had, that pid; also while it is leaving. None for a pid of no such."""
        self.refresh()
        entry = self.entries.get(container_id)
        if entry is not None and entry.pid == pid:
            return entry
        return next((entry for entry in self.leaving if (entry.id, entry.pid) == (container_id, pid)), None)

    def status(self, entry: Entry) -> str:
        """Status of a container at this moment; what it shows that was not told yet is told."""
        status = entry.status()
        if status == STOPPED and not entry.ended and entry.pid > 0:
            # No pidfd told of it.
            entry.ended = True
            self._settle(entry)
        elif status in (PAUSED, RUNNING, CREATED) and (status == PAUSED) != entry.paused:
            self.teller.pauses(entry)
        if self.teller:
            self.refresh()
        return status

    def reaped(self, pid: int, status: int) -> None:
        """This process has reaped a child; a keeper, or a container's, where it has adopted that from whoever made it.

        Args:
            status: as from waitpid(2): on kernels before 6.15 nobody else will ever know it.
        """
        for entry in chain(self.entries.values(), self.leaving):
            if pid in (entry.pid, entry.keeper) and not entry.settled:
                break
        else:
            return
        if pid == entry.keeper:
            entry.keeper = 0
            if os.WIFSIGNALED(status) or process_status.is_alive(entry.pid, entry.start_time):
                # Only a keeper that has waited for its process can tell how that ended.
                return
        # Before anything on disk is looked at, which may show that it was deleted.
        entry.learn(status)
        if not entry.ended:
            entry.ended = True
            # What it did before its end is on disk by now.
            self._take_state(entry)
        if entry.ended and not entry.settled:
            self.records.add(entry)
            self._settle(entry)
        self.refresh()

    def hold(self, entry: Entry) -> bool:
        """Gets a pidfd of the init process even if many are held, since somebody needs it; whether there is one."""
        if entry.pidfd.number < 0 and not entry.ended:
            self._hold(entry, must=True)
        return entry.pidfd.number >= 0

    def close(self) -> None:
        """Writes down what is known, and lets go of everything."""
        self.records.write()
        for timer in (self._late_timer, self._overdue):
            if timer is not None:
                timer.cancel()
        self.loop.remove(self._pidfds.fileno())
        if self._changes.usable:
            self.loop.remove(self._changes.fileno())
        for entry in self.entries.values():
            entry.close()
        self._pidfds.close()
        self._changes.close()

    # -- what has happened

    def _take_all(self) -> None:
        if self._lost:
            self._lost = False
            self._scan_if_possible()
        found = self._changes.read()
        if found is not None:
            if found.lost:
                self._changes.watch_root()
                self._scan_if_possible()
            else:
                for name, gone in found.directories.items():
                    if gone and name in self.entries:
                        self._remove(self.entries[name])
                    self._look_at(name)
            for watch, names in found.changed.items():
                entry = self._by_watch.get(watch)
                if entry is not None:
                    self._take_changes(entry, names)
        if not self._changes.complete:
            self._scan_if_possible()
        elif self._unwatched:
            for entry in list(self._unwatched):
                self._look_at(entry.id)
        for entry, events in self._pidfds.ended():
            self._take_end(entry, events)

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

    def _scan_if_possible(self) -> None:
        """Looks at everything, now or in a moment: without an fd left it can't be done, and is no reason to end."""
        if self._overdue is not None:
            return
        try:
            self._scan()
        except StateError as error:
            options.log(f"ignoring what has changed, for {SCAN_PAUSE:g} s: {error}")
            self._overdue = self.loop.call_later(SCAN_PAUSE, self._scan_at_last)

    def _scan_at_last(self) -> None:
        self._overdue = None
        self._lost = True
        self.refresh()

    def _scan(self) -> None:
        """Looks at everything.

        Raises:
            StateError: the state root can't be read.
        """
        names = ids(self.root)
        for name in set(names) | set(self.entries):
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        """Brings one entry in line with what is on disk, whatever that is."""
        entry = self.entries.get(name)
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
            self.entries[name] = entry
            self._watch(entry)
            for old in self.leaving:
                if old.id == name:
                    self.teller.succeeded(old)
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
            self.teller.pauses(entry)

    def _take_state(self, entry: Entry) -> None:
        changed = entry.reload()
        if entry.is_another:
            self._replace(entry)
            return
        if changed:
            self._pidfds.let_go(entry)
            entry.reset_process()
            self._hold(entry)
            entry.paused = self.teller.silent and entry.is_frozen()
        elif entry.fifo:
            entry.look_for_fifo()
        self.teller.progress(entry)

    # -- ends of processes

    def _hold(self, entry: Entry, *, must: bool = False) -> None:
        """Gets a pidfd of the init process, or learns how it ended.

        Args:
            must: somebody waits for its end.
        """
        if entry.pid <= 0 or self._pidfds.hold(entry, must=must):
            return
        # It is gone, or there is no fd left.
        if process_status.is_alive(entry.pid, entry.start_time):
            return
        entry.ended = True
        if entry.read_status_file() or self.teller.silent or entry.watch < 0:
            entry.settled = True
        else:
            # The keeper has reaped it, and may be about to write how it ended.
            self.loop.call_later(KEEPER_TIME, lambda: self._settle_late(entry))

    def _take_end(self, entry: Entry, events: int) -> None:
        if not entry.ended:
            entry.ended = True
            # What it did before its end is on disk by now.
            self._take_state(entry)
            if not entry.ended or entry.settled:
                # It is the past of what is on disk by now.
                return
            if not self._tells_statuses:
                self._pidfds.let_go(entry)
                if entry.read_status_file():
                    self._settle(entry)
                else:
                    self.loop.call_later(KEEPER_TIME, lambda: self._settle_late(entry))
                return
            self._pidfds.expect_reaping(entry)
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
            self.records.add(entry)
        elif entry.exit_status is None and self.entries.get(entry.id) is entry:
            entry.read_status_file()
        self._pidfds.let_go(entry)
        self._tell_end(entry)
        if entry in self.leaving:
            self.leaving.remove(entry)
            self._leave(entry)

    def _tell_end(self, entry: Entry, patience: float = STARTER_TIME) -> None:
        if patience > 0 and entry.fifo and self.entries.get(entry.id) is entry and entry.directory.is_locked():
            # Who starts it is about to remove the fifo; what comes first is to be told first.
            self.loop.call_later(LAG, lambda: self._tell_end_late(entry, patience - LAG))
        else:
            self.teller.end(entry)

    def _tell_end_late(self, entry: Entry, patience: float) -> None:
        if self.entries.get(entry.id) is entry and "exited" not in entry.told:
            entry.look_for_fifo()
            if entry.fifo:
                self._tell_end(entry, patience)
            else:
                self.teller.progress(entry)
            self.refresh()

    def _remove(self, entry: Entry) -> None:
        del self.entries[entry.id]
        self._unwatched.discard(entry)
        if entry.watch >= 0:
            self._by_watch.pop(entry.watch, None)
            self._changes.forget(entry.watch)
        if entry.pid > 0 and not entry.settled:
            entry.ended = True
            if entry.exit_status is None and not entry.ask_kernel() and entry.will_be_told():
                # What the keeper had to write down went with the directory; its end says the same.
                self._pidfds.let_go(entry)
                entry.close()
                self._see_off(entry)
                return
            self._settle(entry)
        self._leave(entry)

    def _see_off(self, entry: Entry) -> None:
        """It was deleted, and has nothing left but what is told of it once its status is known."""
        self.leaving.append(entry)
        self.loop.call_later(KEEPER_TIME, lambda: self._settle_late(entry))

    def _leave(self, entry: Entry) -> None:
        self.teller.gone(entry)
        self.records.forget(entry)
        self._pidfds.let_go(entry)
        entry.close()
