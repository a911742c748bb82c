from __future__ import annotations

import os
import sys
import time

import pytest

from bench.measure import Command, CommandFailed, CpuMeter, percentile, take_turns
from bench.perf_events import PERF_COUNT_SW_TASK_CLOCK, PERF_TYPE_SOFTWARE, Descendants


class NoCpu(CpuMeter):
    """A machine on which nothing takes processor time."""

    def __init__(self) -> None:
        pass

    def read(self) -> float:
        return 0.0


def test_every_thing_has_its_turn_in_each_round_and_the_order_changes():
    order: list[str] = []

    def thing(name: str) -> float:
        order.append(name)
        return 1.0

    taken = take_turns({"a": lambda: thing("a"), "b": lambda: thing("b")}, NoCpu(), rounds=2, warm_up=0)
    assert order == ["a", "b", "b", "a"]
    assert taken["a"].wall == [1.0, 1.0]


def test_rounds_for_warming_up_do_not_count():
    assert take_turns({"a": lambda: 1.0}, NoCpu(), rounds=3, warm_up=2)["a"].wall == [1.0] * 3


def test_a_command_is_timed_until_its_end():
    begin = time.perf_counter()
    taken = Command([sys.executable, "-I", "-S", "-c", "pass"])()
    assert 0 < taken <= time.perf_counter() - begin


def test_a_command_that_fails_tells_its_last_words():
    with pytest.raises(CommandFailed, match=r"status 3: because"):
        Command(["/bin/sh", "-c", "echo because >&2; exit 3"])()


def test_cpu_time_of_this_process_is_left_out(tmp_path):
    file = tmp_path / "cpu.stat"
    file.write_text("usage_usec 9000000000\nuser_usec 1\n")
    fd = os.open(file, os.O_RDONLY)
    try:
        before = time.process_time()
        read = CpuMeter(fd).read()
        assert 9000 - time.process_time() <= read <= 9000 - before
    finally:
        os.close(fd)


def test_the_95th_percentile_is_not_exceeded_by_95_of_100():
    assert percentile([float(number) for number in range(100)], 95) == 95.0


def test_events_of_descendants_are_counted_without_our_own():
    try:
        counter = Descendants(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK)
    except OSError as error:
        pytest.skip(f"needs perf events: {error}")
    try:
        before = counter.read()
        sum(range(1_000_000))
        ours = counter.read() - before
        Command([sys.executable, "-I", "-S", "-c", "sum(range(1_000_000))"])()
        assert counter.read() - before - ours > 10 * max(ours, 0)
    finally:
        counter.close()
