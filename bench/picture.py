"""The results as one SVG picture: a bar for each runtime's median, a thin line to its 95th percentile."""

from html import escape
from typing import Any

from bench.report import UNITS, VIEWS, leading, noise_line
from bench.results import Results, Row

COLOURS = {
    "ctrun": "#2f6fb0",
    "ctrun-supervised": "#163f6e",
    "runc": "#b0702f",
    "crun": "#c8a24a",
    "bwrap": "#8a8a8a",
    "floor": "#5a9a6a",
    "criu": "#b0702f",
}
SHOWN = (
    "run",
    "create+start+delete",
    "create",
    "start",
    "delete",
    "exec",
    "state",
    "list of 1000",
    "run among 1000",
    "starts, two at a time",
    "cold run",
    "checkpoint",
    "restore",
)
WIDTH = 960
COLUMN = WIDTH // 2
NAMES = 120
BAR = 15
GAP = 26
SCALE = COLUMN - NAMES - 90


def draw(document: dict[str, Any], results: Results) -> str:
    """The picture.

    Args:
        document: of the run.
        results: its rows.
    """
    parts: list[str] = []
    bottom = 40
    for column, view in enumerate(VIEWS):
        at = 40
        parts.append(_text(column * COLUMN + 8, at, VIEWS[view], 15, bold=True))
        at += GAP
        for (group_view, benchmark, config), rows in results.groups().items():
            if group_view != view or benchmark not in SHOWN:
                continue
            at = _group(parts, column * COLUMN, at, f"{benchmark}, {config}", rows)
        bottom = max(bottom, at)
    for line in noise_line(document).split("; "):
        bottom += 14
        parts.append(_text(8, bottom, line, 10))
    body = "\n".join(parts)
    height = bottom + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n'
        f"{_text(8, 20, 'ctrun beside its peers: medians, thin lines to the 95th percentile', 16, bold=True)}\n"
        f"{body}\n</svg>\n"
    )


def _group(parts: list[str], left: int, at: int, title: str, rows: list[Row]) -> int:
    measure = leading(rows[0])
    unit = UNITS[measure]
    more = ", more is better" if measure == "rate" else ""
    parts.append(_text(left + 8, at, f"{title}{f', {unit}' if unit else ''}{more}", 12, bold=True))
    at += 6
    widest = max(row.p95(measure) for row in rows) or 1
    for row in rows:
        width = row[measure] / widest * SCALE
        end = row.p95(measure) / widest * SCALE
        colour = COLOURS.get(row.runtime, "#777777")
        middle = at + BAR / 2
        parts.append(_text(left + NAMES - 6, at + 11, row.runtime, 11, anchor="end"))
        parts.append(
            f'<rect x="{left + NAMES}" y="{at + 1}" width="{width:.1f}" height="{BAR - 3}" fill="{colour}"/>'
            f'<line x1="{left + NAMES + width:.1f}" y1="{middle:.1f}" x2="{left + NAMES + end:.1f}" y2="{middle:.1f}"'
            f' stroke="{colour}"/>'
        )
        parts.append(_text(int(left + NAMES + max(width, end) + 5), at + 11, f"{row[measure]:.1f}", 11))
        at += BAR
    return at + GAP - 4


def _text(x: int, y: int, text: str, size: int, bold: bool = False, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}"{weight} text-anchor="{anchor}">{escape(text)}</text>'
