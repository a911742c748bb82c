"""The order of requests: those of one connection about one container are carried out one after the other."""

from collections import deque
from collections.abc import Hashable

from ctr_common.wire import Packet

# docs/PROTOCOL.md: these overtake; what the supervisor answers by itself waits for nobody anyway.
OVERTAKING = ("kill",)


class Order:
    """Requests that wait for an earlier one."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Hashable, str], deque[Packet]] = {}

    def must_wait(self, owner: Hashable, request: Packet) -> bool:
        """Takes a request that is not its turn; otherwise the turn is its, until `done`.

        Args:
            owner: the connection.
        """
        key = (owner, str(request.body.get("id", "")))
        if request.type in OVERTAKING:
            return False
        if key in self._waiting:
            self._waiting[key].append(request)
            return True
        self._waiting[key] = deque()
        return False

    def done(self, owner: Hashable, request: Packet) -> Packet | None:
        """A request that had its turn is done with; the next one, whose turn it is."""
        key = (owner, str(request.body.get("id", "")))
        if request.type in OVERTAKING or key not in self._waiting:
            return None
        waiting = self._waiting[key]
        if waiting:
            return waiting.popleft()
        del self._waiting[key]
        return None

    def of(self, owner: Hashable) -> list[Packet]:
        """The requests of an owner that wait, in their order; they stay here."""
        return [request for (whose, _), waiting in self._waiting.items() if whose is owner for request in waiting]

    def forget(self, owner: Hashable) -> None:
        """Drops what waits for an owner that is gone; what has its turn goes on."""
        for key in [key for key in self._waiting if key[0] is owner]:
            for request in self._waiting.pop(key):
                request.close()
