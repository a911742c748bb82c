"""Requests on one connection and what comes back: which belongs to which. Who sends, and waits, is somebody else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Protocol

from ctr_common.errors import CtrError, from_dict
from ctr_common.wire import ERROR, Packet
from ctr_supervisor.api.operations import Ask

if TYPE_CHECKING:
    from collections.abc import Callable

# Requests that the supervisor remembers until they are taken back, and by what they are.
TAKEN_BACK_BY = {"subscribe": "unsubscribe", "wait": "unwait"}


class Events(Protocol):
    """Where the events of a subscription go; a queue is one."""

    def put_nowait(self, told: dict[str, Any] | None, /) -> None:
        """One more, or None: there will be no more."""


class Future(Protocol):
    """Where the answer to a request goes; those of asyncio and of concurrent.futures are such."""

    def done(self) -> bool:
        """Whether nobody needs it any more."""

    def set_result(self, answer: Packet, /) -> None:
        """It is there."""

    def set_exception(self, error: BaseException, /) -> None:
        """There is an error in its place."""


class Exchange:
    """What was asked and is not answered yet, and who listens to events. Used by one thread at a time.

    Attributes:
        failure: why nothing more will come; None as long as something may.
    """

    def __init__(self) -> None:
        self.failure: CtrError | None = None
        self._seq = itertools.count(1)
        self._pending: dict[int, Future] = {}
        self._subscriptions: dict[int, Events] = {}

    def begin(self, answer: Future, events: Events | None = None) -> int:
        """One more request.

        Args:
            events: gets the events that follow with the same seq.

        Returns:
            Its seq.

        Raises:
            CtrError: nothing more will come.
        """
        self.check()
        seq = next(self._seq)
        self._pending[seq] = answer
        if events is not None:
            self._subscriptions[seq] = events
        return seq

    def check(self) -> None:
        """Makes sure that something may still come.

        Raises:
            CtrError: nothing will. Always another object: a traceback belongs to one thread.
        """
        if self.failure is not None:
            raise from_dict(self.failure.as_dict())

    def take(self, packet: Packet) -> None:
        """Hands a message to whoever waits for it.

        Raises:
            CtrError: it is an error that concerns the connection itself.
        """
        seq = packet.body.get("seq")
        number = seq if isinstance(seq, int) else 0
        if packet.type == "event":
            packet.close()
            events = self._subscriptions.get(number)
            if events is not None:
                events.put_nowait(packet.body)
            return
        future = self._pending.pop(number, None)
        if future is not None and not future.done() and packet.type != ERROR:
            future.set_result(packet)
            return
        packet.close()
        if future is not None and not future.done():
            future.set_exception(packet.error())
        elif packet.type == ERROR and not isinstance(seq, int):
            raise packet.error()

    def give_up(self, ask: Ask, seq: int, send: Callable[[Ask, int], None]) -> None:
        """Nobody waits for an answer any more.

        Args:
            send: sends what takes the request back, where the supervisor would go on with it. Nobody waits for that.
        """
        self._pending.pop(seq, None)
        self._subscriptions.pop(seq, None)
        if ask.type in TAKEN_BACK_BY and self.failure is None:
            send(Ask(TAKEN_BACK_BY[ask.type], {"to": seq}), next(self._seq))

    def forget(self, seq: int, send: Callable[[Ask, int], None]) -> None:
        """Nobody reads the events of a subscription any more.

        Args:
            send: see `give_up`.
        """
        events = self._subscriptions.pop(seq, None)
        if events is not None:
            events.put_nowait(None)
            if self.failure is None:
                send(Ask("unsubscribe", {"to": seq}), next(self._seq))

    def fail(self, error: CtrError) -> None:
        """Nothing more will come; does nothing the second time."""
        if self.failure is not None:
            return
        self.failure = error
        pending, self._pending = self._pending, {}
        subscriptions, self._subscriptions = self._subscriptions, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(from_dict(error.as_dict()))
        for events in subscriptions.values():
            events.put_nowait(None)
