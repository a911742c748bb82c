from __future__ import annotations

from typing import Any

import pytest

from bench import goals, report
from bench.results import Results, Row


def row(benchmark: str, runtime: str, view: str = "v2", **values: list[float]) -> Row:
    return Row(benchmark, "default", view, runtime, values)


def verdicts(*rows: Row) -> dict[tuple[str, str], dict[str, Any]]:
    return {(goal["goal"], goal["view"]): goal for goal in goals.check(Results(list(rows)))}


def test_a_ratio_of_medians_is_held_against_the_goal():
    found = verdicts(row("run", "ctrun", wall=[7.0, 8.0, 90.0]), row("run", "runc", wall=[10.0, 10.0, 10.0]))
    goal = found["direct run / runc", "v2"]
    assert (goal["value"], goal["verdict"]) == (0.8, "met")
    assert found["direct run / runc", "v1"]["verdict"] == "not measured"


def test_a_goal_that_is_not_reached_is_missed():
    found = verdicts(row("run", "ctrun", wall=[9.0]), row("run", "runc", wall=[10.0]))
    assert found["direct run / runc", "v2"]["verdict"] == "missed"


@pytest.mark.parametrize(("rate", "verdict"), [(120.0, "met"), (119.0, "missed")])
def test_of_a_rate_more_is_better(rate: float, verdict: str):
    name = "starts, two at a time"
    found = verdicts(row(name, "ctrun-supervised", rate=[rate]), row(name, "crun", rate=[100.0]))
    assert found["200 starts, two at a time: rate supervised / crun", "v2"]["verdict"] == verdict


def test_memory_of_several_processes_is_added_up():
    parts = [
        row(f"memory with 1000 running of its {what}", "ctrun-supervised", memory=[30000.0])
        for what in ("supervisor", "pool")
    ]
    goal = verdicts(*parts)["supervisor and pool with 1000 containers", "v2"]
    assert (goal["value"], goal["unit"]) == (60000.0, "kB")
    # a part that was not measured must not look like nothing
    assert verdicts(parts[0])["supervisor and pool with 1000 containers", "v2"]["verdict"] == "not measured"


def test_results_are_the_same_after_they_were_written_down():
    before = row("run", "ctrun", wall=[1.0, 2.0], cpu=[0.5, 0.5])
    assert Row.from_dict(before.as_dict()).as_dict() == before.as_dict()


def test_each_runtime_is_shown_beside_its_peers():
    cells = list(report.lines_of_group([row("run", "ctrun", wall=[5.0], cpu=[4.0]), row("run", "runc", wall=[10.0])]))
    assert cells[0] == ["ctrun", "5.0", "5.0", "4.0", "0.50", "", ""]
    assert cells[1][4] == ""


def test_a_new_table_replaces_the_old_one_in_the_readme():
    readme = f"before\n{report.BEGIN}old\n{report.END}after\n"
    assert report.put_into(readme, "new\n") == f"before\n{report.BEGIN}\nnew\n\n{report.END}after\n"
