"""The goals, as data, and how far they are met."""

from typing import Any, NamedTuple

from bench.results import Results


class Value(NamedTuple):
    """One measured number.

    Attributes:
        benchmark: name of the row.
        runtime: whose.
        measure: which of its values.
        config: configuration of the container.
    """

    benchmark: str
    runtime: str
    measure: str = "wall"
    config: str = "default"


class Goal(NamedTuple):
    """A ratio, or a sum, that shall not go beyond a limit.

    Attributes:
        text: as in the report.
        views: views of cgroups that it is checked in, each for itself.
        of: what is judged; several values are added up.
        against: what it is divided by; None to judge the sum itself.
        limit: not to be exceeded, or with `at_least` to be reached.
        at_least: more is better.
        unit: of the number.
    """

    text: str
    views: tuple[str, ...]
    of: tuple[Value, ...]
    against: Value | None
    limit: float
    at_least: bool = False
    unit: str = ""


BOTH = ("v1", "v2")
SUPERVISED = "ctrun-supervised"
WHOLE = "create+start+delete"
STARTS = "starts, two at a time"
MANY = "memory with 1000 running of its"

GOALS = (
    Goal("direct run / runc", BOTH, (Value("run", "ctrun"),), Value("run", "runc"), 0.8),
    Goal("supervised run / crun, wall", ("v2",), (Value("run", SUPERVISED),), Value("run", "crun"), 0.8),
    Goal("supervised run / crun, CPU", ("v2",), (Value("run", SUPERVISED, "cpu"),), Value("run", "crun", "cpu"), 0.8),
    Goal("supervised create+start+delete / crun", ("v2",), (Value(WHOLE, SUPERVISED),), Value(WHOLE, "crun"), 0.8),
    Goal("the same, CPU", ("v2",), (Value(WHOLE, SUPERVISED, "cpu"),), Value(WHOLE, "crun", "cpu"), 0.8),
    Goal("supervised exec / crun", ("v2",), (Value("exec", SUPERVISED),), Value("exec", "crun"), 0.8),
    Goal("supervised run / floor", BOTH, (Value("run", SUPERVISED),), Value("run", "floor"), 1.5),
    Goal(
        "200 starts, two at a time: rate supervised / crun",
        ("v2",),
        (Value(STARTS, SUPERVISED, "rate"),),
        Value(STARTS, "crun", "rate"),
        1.2,
        at_least=True,
    ),
    Goal(
        "list of 1000, supervised / runc",
        BOTH,
        (Value("list of 1000", SUPERVISED),),
        Value("list of 1000", "runc"),
        0.1,
    ),
    Goal(
        "supervised start among 1000 / among 10",
        ("v2",),
        (Value("run among 1000", SUPERVISED),),
        Value("run among 10", SUPERVISED),
        1.2,
    ),
    Goal(
        "direct start among 1000 / among 10",
        ("v2",),
        (Value("run among 1000", "ctrun"),),
        Value("run among 10", "ctrun"),
        1.2,
    ),
    Goal(
        "supervisor and pool with 1000 containers",
        ("v2",),
        (Value(f"{MANY} supervisor", SUPERVISED, "memory"), Value(f"{MANY} pool", SUPERVISED, "memory")),
        None,
        80 * 1024,
        unit="kB",
    ),
    Goal(
        "process of a created container",
        BOTH,
        (Value("memory of a created container's process", "ctrun", "memory"),),
        None,
        1024,
        unit="kB",
    ),
    Goal("checkpoint / bare criu", ("v1",), (Value("checkpoint", "ctrun"),), Value("checkpoint", "criu"), 1.15),
    Goal("restore / bare criu", ("v1",), (Value("restore", "ctrun"),), Value("restore", "criu"), 1.15),
    Goal(
        "supervised checkpoint / criu", ("v1",), (Value("checkpoint", SUPERVISED),), Value("checkpoint", "criu"), 1.15
    ),
)


def check(results: Results) -> list[dict[str, Any]]:
    """Every goal in every view: its number, and `met`, `missed` or `not measured`."""
    found = []
    for goal in GOALS:
        for view in goal.views:
            number = _number(results, goal, view)
            if number is None:
                verdict = "not measured"
            else:
                met = number >= goal.limit if goal.at_least else number <= goal.limit
                verdict = "met" if met else "missed"
            found.append(
                {
                    "goal": goal.text,
                    "view": view,
                    "value": None if number is None else round(number, 3),
                    "limit": goal.limit,
                    "relation": "≥" if goal.at_least else "≤",
                    "unit": goal.unit,
                    "verdict": verdict,
                }
            )
    return found


def _number(results: Results, goal: Goal, view: str) -> float | None:
    values = [_value(results, value, view) for value in goal.of]
    known = [value for value in values if value is not None]
    if len(known) != len(values):
        return None
    if goal.against is None:
        return sum(known)
    divisor = _value(results, goal.against, view)
    return sum(known) / divisor if divisor else None


def _value(results: Results, value: Value, view: str) -> float | None:
    row = results.find(value.benchmark, value.config, view, value.runtime)
    return row[value.measure] if row is not None and value.measure in row.values else None
