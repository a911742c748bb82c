"""Waits for what tells nobody that it has happened."""

import time
from collections.abc import Callable

LIMIT = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds.

    Raises:
        TimeoutError: it did not within LIMIT seconds.
    """
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a condition of a benchmark did not come true")
        time.sleep(0.005)
