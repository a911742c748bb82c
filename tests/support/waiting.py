"""Waiting for something that no file descriptor announces."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.slowness import SLOWNESS

T = TypeVar("T")


def until(what: str, condition: Callable[[], T], limit: float = 20) -> T:
    """The first true value that `condition` returns; fails the test when there is none within the limit.

    Args:
        what: names the event in the failure.
        condition: asked again every few milliseconds.
        limit: seconds, on a real processor.
    """
    __tracebackhide__ = True
    limit *= SLOWNESS
    deadline = time.monotonic() + limit
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {limit} seconds; last seen: {value!r}"
        select.select([], [], [], pause)
        pause = min(pause * 1.5, 0.2)
