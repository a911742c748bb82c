from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctr_common import trace, trace_recorder


@pytest.fixture(autouse=True)
def nobody_records() -> Iterator[None]:
    yield
    if trace.recorder is not None:
        trace.recorder.finish()


def recorded(path: Path) -> list[dict[str, Any]]:
    assert trace.recorder is not None
    trace.recorder.finish()
    return [event for event in json.loads(path.read_text()) if event["ph"] == "X"]


def test_a_span_that_nobody_records_is_always_the_same_object():
    assert trace.span("one") is trace.span("two")


def test_a_span_is_an_event_with_its_duration(directory: Path):
    trace_recorder.start(f"{directory}/trace")
    with trace.span("outer", "detail"), trace.span("inner"):
        pass
    events = {event["name"]: event for event in recorded(directory / "trace")}
    assert events["outer"]["args"] == {"detail": "detail"}
    assert events["inner"]["ts"] >= events["outer"]["ts"]
    assert events["inner"]["dur"] <= events["outer"]["dur"]


def test_lines_of_ctr_init_become_steps_from_one_to_the_next(directory: Path):
    trace_recorder.start(f"{directory}/trace")
    assert trace.recorder is not None
    assert trace.recorder.line("100.000000000 ctr-init:1 =begin")
    assert trace.recorder.line("100.002000000 ctr-init:1 =work")
    event = recorded(directory / "trace")[-1]
    assert (event["name"], event["ts"], event["dur"]) == ("work", 100_000_000.0, 2000.0)


@pytest.mark.parametrize("line", ["100.0 ctr-init:1 made process 7", "100.0 somebody =step", "", "=x"])
def test_other_lines_are_none_of_its_business(directory: Path, line: str):
    trace_recorder.start(f"{directory}/trace")
    assert trace.recorder is not None
    assert not trace.recorder.line(line)


def test_a_fork_adds_its_own_events_and_the_file_stays_one_array(directory: Path):
    trace_recorder.start(f"{directory}/trace")
    assert trace.recorder is not None
    pid = os.fork()
    if pid == 0:
        recorder = trace.recorder
        recorder.forked(trace_recorder.WORKER)
        with trace.span("in the fork"):
            pass
        recorder.finish()
        os._exit(0)
    os.waitpid(pid, 0)
    with trace.span("in the engine"):
        pass
    events = {event["name"]: event["pid"] for event in recorded(directory / "trace")}
    assert events["in the fork"] == trace_recorder.NUMBERS[trace_recorder.WORKER]
    assert events["in the engine"] == trace_recorder.NUMBERS[trace_recorder.ENGINE]
