"""The terminal of a process, as a caller has it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ctr_common.errors import UsageError
from ctr_supervisor.api.stdio import Console


@pytest.fixture
def console() -> Iterator[Console]:
    master, slave = os.openpty()
    with Console(master) as made:
        yield made
    os.close(slave)


@pytest.mark.parametrize("size", [(0, 0), (80, 24), (65535, 65535), (65535, 0)])
def test_every_size_that_the_kernel_has_can_be_set(console: Console, size: tuple[int, int]) -> None:
    console.resize(1, 1)
    for _ in range(300):
        console.resize(*size)
    assert console.size == size


@pytest.mark.parametrize(
    ("size", "text"), [((65536, 1), "width of a console is 65536"), ((1, -1), "height of a console is -1")]
)
def test_a_size_that_there_is_not_is_a_mistake_that_says_which(
    console: Console, size: tuple[int, int], text: str
) -> None:
    console.resize(80, 24)
    with pytest.raises(UsageError, match=f"{text}, expected a number from 0 to 65535"):
        console.resize(*size)
    assert console.size == (80, 24)
