"""What was measured, as data."""

from statistics import median
from typing import Any

from bench.measure import Series, percentile


class Row:
    """One thing, measured on one runtime.

    Args:
        benchmark: what was done.
        config: configuration of the container; "" where it does not matter.
        view: which view of cgroups.
        runtime: who did it.
        measure: `wall`, `cpu` (milliseconds), `memory` (kB), `rate` (containers per second), `instructions`.
        values: samples.
    """

    def __init__(self, benchmark: str, config: str, view: str, runtime: str, values: dict[str, list[float]]) -> None:
        self.benchmark = benchmark
        self.config = config
        self.view = view
        self.runtime = runtime
        self.values = values

    @classmethod
    def timed(cls, benchmark: str, config: str, view: str, runtime: str, series: Series) -> "Row":
        """A row of times, kept in milliseconds."""
        values = {"wall": series.wall, "cpu": series.cpu}
        return cls(
            benchmark,
            config,
            view,
            runtime,
            {name: [round(value * 1000, 3) for value in samples] for name, samples in values.items() if samples},
        )

    def __getitem__(self, measure: str) -> float:
        """The median of a measure."""
        return median(self.values[measure])

    def p95(self, measure: str) -> float:
        """Its 95th percentile."""
        return percentile(self.values[measure], 95)

    def mean(self, measure: str) -> float:
        """Its mean."""
        return sum(self.values[measure]) / len(self.values[measure])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": self.benchmark,
            "config": self.config,
            "view": self.view,
            "runtime": self.runtime,
            "median": {name: round(self[name], 3) for name in self.values},
            "p95": {name: round(self.p95(name), 3) for name in self.values},
            "samples": self.values,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Row":
        """The reverse of `as_dict`."""
        return cls(data["benchmark"], data["config"], data["view"], data["runtime"], data["samples"])


class Results:
    """All rows of a run.

    Args:
        rows: in the order in which they were measured.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def find(self, benchmark: str, config: str, view: str, runtime: str) -> Row | None:
        """One row, if it was measured."""
        for row in self.rows:
            if (row.benchmark, row.config, row.view, row.runtime) == (benchmark, config, view, runtime):
                return row
        return None

    def groups(self) -> dict[tuple[str, str, str], list[Row]]:
        """The rows of each benchmark, configuration and view, which are compared with one another."""
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.view, row.benchmark, row.config), []).append(row)
        return found
