"""Exit statuses that nobody but the supervisor has seen, written down for whoever comes next."""

from ctr_supervisor.service.entry import Entry
from ctr_supervisor.service.loop import Loop, Timer

# Seconds. The one who waited for a container deletes it as a rule, and is left alone with its directory for so long.
RECORD_AFTER = 0.5


class Records:
    """Entries whose status is still to be written down."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._entries: set[Entry] = set()
        self._timer: Timer | None = None

    def add(self, entry: Entry) -> None:
        """Its status is known to the supervisor alone."""
        self._entries.add(entry)
        if self._timer is None:
            self._timer = self.loop.call_later(RECORD_AFTER, self.write)

    def forget(self, entry: Entry) -> None:
        """It is being deleted."""
        self._entries.discard(entry)

    def write(self) -> None:
        """Writes them down now; does so by itself after a moment."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._entries = self._entries, set()
        for entry in entries:
            entry.record()
