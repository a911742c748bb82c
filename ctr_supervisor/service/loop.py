"""The event loop: fds on epoll, timers, signals by signalfd. Single-threaded; no callback may block."""

import heapq
import itertools
import select
import time
from collections.abc import Callable, Iterable

from ctr_common.fd import Fd
from ctr_common.kernel import _kernel

SIG_BLOCK = 0
READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
# The peer has closed its end, or half of it: told even to who waits for nothing else.
HUNG_UP = select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLERR

# Seconds; epoll_wait(2) takes no more milliseconds than an int has, and a timer may be for never.
PATIENCE_MAX = 3600.0


class Timer:
    """A call to come; made by `Loop.call_later`.

    Attributes:
        when: on the monotonic clock, in seconds.
    """

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forgets the call; does nothing after it happened."""
        self.callback = None


class Loop:
    """Calls back until it is stopped.

    What has to be heard before everything else in one round (the reports of jobs, before a request that asks about what
    they did) is added as urgent.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._urgent: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._signals = Fd(-1)
        self._on_signal: Callable[[int], None] | None = None
        self._running = False

    def add(self, fd: int, callback: Callable[[int], None], events: int = READABLE, *, urgent: bool = False) -> None:
        """Watches an fd, which stays the caller's, until `remove`.

        Args:
            callback: gets the EPOLL* events.
            events: EPOLL* bits.
            urgent: called before the others of one round.
        """
        self._callbacks[fd] = callback
        if urgent:
            self._urgent.add(fd)
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Watches an fd for other events."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stops to watch an fd, before it is closed; does nothing for one that is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._urgent.discard(fd)
            self._epoll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls once, after that time at the earliest."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.when, next(self._count), timer))
        return timer

    def handle_signals(self, signals: Iterable[int], callback: Callable[[int], None]) -> None:
        """Blocks the signals and has them told to the callback; once for each loop."""
        wanted = tuple(signals)
        _kernel.sigprocmask(SIG_BLOCK, wanted)
        self._signals = Fd(_kernel.signalfd(wanted))
        self._on_signal = callback
        self.add(self._signals.fileno(), self._read_signal, urgent=True)

    def _read_signal(self, _: int) -> None:
        number, _pid, _status = _kernel.read_signalfd(self._signals.fileno())
        if self._on_signal is not None:
            self._on_signal(number)

    def run(self) -> None:
        """Serves until `stop`."""
        self._running = True
        while self._running:
            self.run_once()

    def run_once(self, timeout: float | None = None) -> None:
        """Waits for something to happen, and serves all that has.

        Args:
            timeout: seconds to wait at most; None for as long as it takes.
        """
        self._serve(self._epoll.poll(self._patience(timeout)))
        self._call_timers()

    def drain_urgent(self) -> None:
        """Serves the urgent fds, as far as something is there now."""
        self._serve([event for event in self._epoll.poll(0) if event[0] in self._urgent])

    def stop(self) -> None:
        """Ends `run` after this round."""
        self._running = False

    def close(self) -> None:
        """Lets go of its own fds."""
        self._signals.close()
        self._epoll.close()

    def _serve(self, events: list[tuple[int, int]]) -> None:
        if len(events) > 1:
            events.sort(key=lambda event: event[0] not in self._urgent)
        for fd, happened in events:
            # An earlier callback of this round may have removed it.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(happened)

    def _patience(self, timeout: float | None) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return timeout
        left = min(max(0.0, self._timers[0][0] - time.monotonic()), PATIENCE_MAX)
        return left if timeout is None else min(left, timeout)

    def _call_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
