"""The results as text for a terminal and as tables for bench/README.md."""

from collections.abc import Iterator
from typing import Any

from bench.results import Results, Row

UNITS = {"wall": "ms", "cpu": "ms", "memory": "kB", "rate": "1/s", "instructions": ""}
# what the first column of numbers shows: the first of these that a row has
LEADING = ("wall", "rate", "memory", "instructions")
PEERS = ("runc", "crun", "floor")
VIEWS = {"v1": "cgroup v1 hybrid", "v2": "cgroup v2 without controllers"}
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def leading(row: Row) -> str:
    """The measure that a row is about."""
    return next(name for name in LEADING if name in row.values)


def lines_of_group(rows: list[Row]) -> Iterator[list[str]]:
    """The cells of each row: runtime, median, p95, CPU, ratios to the peers."""
    by_runtime = {row.runtime: row for row in rows}
    for row in rows:
        measure = leading(row)
        cells = [row.runtime, f"{row[measure]:.1f}", f"{row.p95(measure):.1f}"]
        cells.append(f"{row['cpu']:.1f}" if "cpu" in row.values and measure != "cpu" else "")
        for peer in PEERS:
            other = by_runtime.get(peer)
            comparable = other is not None and other is not row and measure in other.values and other[measure]
            cells.append(f"{row[measure] / other[measure]:.2f}" if comparable and other else "")
        yield cells


def text(document: dict[str, Any], results: Results) -> str:
    """All of it for a terminal."""
    out = []
    view_before = ""
    for (view, benchmark, config), rows in results.groups().items():
        if view != view_before:
            out.append(f"\n{VIEWS[view]}\n")
            view_before = view
        unit = UNITS[leading(rows[0])]
        out.append(f"{benchmark}, {config} configuration{f', {unit}' if unit else ''}")
        out.append(f"  {'':18} {'median':>9} {'p95':>9} {'CPU':>7} {'/runc':>6} {'/crun':>6} {'/floor':>6}")
        out += [
            f"  {cells[0]:18} {cells[1]:>9} {cells[2]:>9} {cells[3]:>7} {cells[4]:>6} {cells[5]:>6} {cells[6]:>6}"
            for cells in lines_of_group(rows)
        ]
    out.append("\ngoals")
    out += [f"  {line}" for line in goal_lines([goal for goal in document["goals"] if goal["value"] is not None])]
    missing = [f"{goal['goal']} ({goal['view']})" for goal in document["goals"] if goal["value"] is None]
    if missing:
        out.append(f"  not measured: {'; '.join(missing)}")
    out.append("")
    out += [f"note: {note}" for note in document["notes"]]
    out.append(noise_line(document))
    return "\n".join(out)


def goal_lines(goals: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each goal."""
    for goal in goals:
        value = "" if goal["value"] is None else f"{goal['value']:.2f} {goal['unit']}".strip()
        limit = f"{goal['relation']} {goal['limit']:g} {goal['unit']}".strip()
        yield f"{goal['verdict']:12} {value:>12}  (goal {limit}) {goal['goal']}, {goal['view']}"


def noise_line(document: dict[str, Any]) -> str:
    """How far the numbers are to be trusted."""
    machine, noise = document["machine"], document["noise"]
    return (
        f"{machine['processors']} processors ({machine['processor']}), Linux {machine['kernel']},"
        f" Python {machine['python']}; load {noise['load'][0]} to {noise['load'][1]};"
        f" a fixed piece of work took {noise['probe_median_ms']} ms in the median,"
        f" {noise['probe_p95_over_median']} times that at the 95th percentile,"
        f" {noise['probe_maximum_over_median']} times at most; {noise['steal_percent']} % stolen"
    )


def markdown(document: dict[str, Any], results: Results) -> str:
    """The tables of bench/README.md."""
    out = [f"Taken {document['date']}, {document['rounds']} rounds. {noise_line(document)}.", ""]
    out += ["| goal | view | limit | measured | |", "| --- | --- | --- | --- | --- |"]
    for goal in document["goals"]:
        value = "" if goal["value"] is None else f"{goal['value']:.2f} {goal['unit']}".strip()
        limit = f"{goal['relation']} {goal['limit']:g} {goal['unit']}".strip()
        out.append(f"| {goal['goal']} | {goal['view']} | {limit} | {value} | {goal['verdict']} |")
    view_before = ""
    for (view, benchmark, config), rows in results.groups().items():
        if view != view_before:
            out += ["", f"### {VIEWS[view]}", ""]
            out += ["| what | configuration | runtime | median | p95 | CPU | / runc | / crun | / floor |"]
            out += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
            view_before = view
        unit = UNITS[leading(rows[0])]
        name = f"{benchmark} ({unit})" if unit else benchmark
        for cells in lines_of_group(rows):
            out.append(f"| {name} | {config} | {' | '.join(cells)} |")
    if document["notes"]:
        out += ["", *(f"- {note}" for note in document["notes"])]
    return "\n".join(out) + "\n"


def put_into(readme: str, table: str) -> str:
    """A README with its table replaced.

    Raises:
        ValueError: it has no place for one.
    """
    start, end = readme.index(BEGIN) + len(BEGIN), readme.index(END)
    return f"{readme[:start]}\n{table}\n{readme[end:]}"
