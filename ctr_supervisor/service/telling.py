"""Who is told what happens to containers: listeners of events, and those who wait for an end."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ctr_supervisor.service.entry import Entry

# Told of a container with the event's name and fields; the time is the teller's.
OnEvent = Callable[[dict[str, Any]], None]
# Told the exit status, None when it is not known.
OnEnd = Callable[[int | None], None]
# Told of a container that was deleted: its id, the pid of its init process, and how that ended.
OnDeleted = Callable[[str, int, int], None]


class Teller:
    """Collects what there is to be told, and tells it when it is let: whoever is told may ask for more.

    Args:
        on_event: told what happens to containers; may be changed.

    Attributes:
        silent: nothing of what is seen now is news.
        on_deleted: told of deleted containers whose exit status is known; may be changed.
    """

    def __init__(self, on_event: OnEvent | None) -> None:
        self.on_event = on_event
        self.silent = False
        self.on_deleted: OnDeleted | None = None
        self._waiting: dict[Entry, list[OnEnd]] = {}
        self._calls: deque[Callable[[], None]] = deque()

    def __bool__(self) -> bool:
        """Whether there is something to be told."""
        return bool(self._calls)

    def tell(self) -> None:
        """Tells everything, also what arises meanwhile."""
        while self._calls:
            self._calls.popleft()()

    def wait(self, entry: Entry, on_end: OnEnd) -> Callable[[], None]:
        """Has the end of a container told.

        Returns:
            Call it to be told no more.
        """
        self._waiting.setdefault(entry, []).append(on_end)

        def cancel() -> None:
            waiting = self._waiting.get(entry, [])
            if on_end in waiting:
                waiting.remove(on_end)
                if not waiting:
                    del self._waiting[entry]

        return cancel

    def progress(self, entry: Entry) -> None:
        """What its state directory shows by now."""
        if entry.prepared:
            if "created" not in entry.told:
                self._add(entry, "created", {"pid": entry.pid})
            if not entry.fifo and "started" not in entry.told:
                self._add(entry, "started", {"pid": entry.pid})
        if entry.settled:
            self.end(entry)

    def end(self, entry: Entry) -> None:
        """There is nothing more to be learned about how its process ended."""
        self._tell_end(entry)
        self._answer(entry)

    def gone(self, entry: Entry) -> None:
        """It was deleted, and there is nothing more to be learned about it."""
        self._tell_deletion(entry)
        self._answer(entry)
        if entry.exit_status is not None:
            self._calls.append(lambda: self._remember(entry))

    def succeeded(self, entry: Entry) -> None:
        """There is another one of its id, so that its events must come now; who waits goes on waiting."""
        if entry.pid > 0:
            self._tell_end(entry)
        self._tell_deletion(entry)

    def _tell_end(self, entry: Entry) -> None:
        if "exited" not in entry.told and "created" in entry.told:
            fields = {"pid": entry.pid}
            if entry.exit_status is not None:
                fields["status"] = entry.exit_status
            self._add(entry, "exited", fields)

    def _tell_deletion(self, entry: Entry) -> None:
        if "deleted" not in entry.told and "created" in entry.told:
            self._add(entry, "deleted", {})

    def pauses(self, entry: Entry) -> None:
        """It may have been frozen or thawed."""
        frozen = entry.is_frozen()
        if frozen != entry.paused:
            entry.paused = frozen
            if "created" in entry.told:
                self._add(entry, "paused" if frozen else "resumed", {})

    def _answer(self, entry: Entry) -> None:
        for on_end in self._waiting.pop(entry, []):
            self._calls.append(lambda on_end=on_end: on_end(entry.exit_status))  # type: ignore[misc]

    def _remember(self, entry: Entry) -> None:
        if self.on_deleted is not None and entry.exit_status is not None:
            self.on_deleted(entry.id, entry.pid, entry.exit_status)

    def _add(self, entry: Entry, event: str, fields: dict[str, Any]) -> None:
        entry.told.add(event)
        if not self.silent:
            told = {"event": event, "id": entry.id, "time": time.time(), **fields}
            self._calls.append(lambda: self._emit(told))

    def _emit(self, event: dict[str, Any]) -> None:
        if self.on_event is not None:
            self.on_event(event)
