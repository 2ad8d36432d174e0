"""Shows results: as a table, as Markdown, as JSON, and as a chart."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.figures import FIGURES, PEER_COLUMNS, TRICKLE_COLUMNS, Figure, Series, peer_figures, trickle_figures

#: Beyond this spread around the median a figure is called noisy.
NOISY = 0.15


def number(value: float) -> str:
    """Write a value in three or four digits."""
    if value == 0 or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _spread(values: Sequence[float], unit: str) -> str:
    text = number(statistics.median(values))
    if len(values) > 1:
        text += f" ({number(min(values))}-{number(max(values))})"
    return f"{text} {unit}".rstrip()


def rows(figures: Sequence[Figure], series: Series) -> list[list[str]]:
    """One row per measured figure: what, value, base, ratio, limit, verdict."""
    table = []
    for figure in figures:
        if figure.ours not in series or (figure.base and figure.base not in series):
            continue
        base = _spread(series[figure.base], figure.unit) if figure.base else ""
        ratio = number(statistics.median(figure.ratios(series))) if figure.base else ""
        limit = "" if figure.limit is None else f"{'≥' if figure.at_least else '≤'} {number(figure.limit)}"
        verdict = {True: "reached", False: "MISSED", None: ""}[figure.reached(series)]
        if figure.noise(series) > NOISY:
            verdict += f" (noisy ±{figure.noise(series):.0%})"
        table.append([figure.what, _spread(series[figure.ours], figure.unit), base, ratio, limit, verdict.strip()])
    return table


def peer_rows(series: Series, family: str, columns: Sequence[tuple[str, str, int]]) -> list[list[str]]:
    """One row per peer, then taskq and the loop written by hand."""
    found = {name.split(".")[1] for name in series if name.startswith(f"{family}.")}
    names = sorted(found, key=lambda name: (name in ("hand", "classic"), name == "taskq", name))
    table = []
    for name in names:
        row = [name]
        for column, _, digits in columns:
            values = series.get(f"{family}.{name}.{column}")
            row.append(f"{statistics.median(values):,.{digits}f}" if values else "")
        table.append(row)
    return table


def text(series: Series, remarks: Sequence[str], markdown: bool = False) -> str:
    """Everything there is to show."""
    parts = []
    write = _markdown if markdown else _columns
    if table := rows(FIGURES, series):
        parts.append(write(["what", "taskq: median (min-max)", "compared with", "ratio", "limit", ""], table))
    families = (("trickle", TRICKLE_COLUMNS, trickle_figures), ("peer", PEER_COLUMNS, peer_figures))
    for family, columns, figures in families:
        if table := peer_rows(series, family, columns):
            parts.append(write(["", *(title for _, title, _ in columns)], table))
            parts.append(write(["what", "taskq", "peer", "ratio", "limit", ""], rows(figures(series), series)))
    parts += [f"- {remark}" for remark in remarks]
    return "\n\n".join(parts)


def _markdown(head: list[str], table: list[list[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *table])


def _columns(head: list[str], table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *table])
    return "\n".join(line.rstrip() for line in lines)


def write_json(path: Path, series: Series, about: dict[str, str], remarks: Sequence[str]) -> None:
    """Write every sample, and where it was taken."""
    path.write_text(json.dumps({"about": about, "series": series, "remarks": remarks}, indent=1, ensure_ascii=False))


# -- chart --------------------------------------------------------------------------------------------------

_ROW, _LEFT, _WIDTH = 26, 110, 560


def chart(series: Series) -> str:
    """Draw the worker's CPU a task of each peer as bars on a logarithmic scale (SVG)."""
    names = {name.split(".")[1] for name in series if name.startswith("peer.") and name.endswith(".worker")}
    bars = sorted((statistics.median(series[f"peer.{name}.worker"]), name) for name in names)
    low, high = math.floor(math.log10(bars[0][0])), math.ceil(math.log10(bars[-1][0]))
    scale = _WIDTH / (high - low)
    height = 44 + _ROW * len(bars) + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 80}" height="{height}" '
        'font-family="sans-serif" font-size="13" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        '<text x="10" y="22" font-size="15">Worker CPU for a task that does nothing, µs (logarithmic)</text>',
    ]
    for power in range(low, high + 1):
        x = _LEFT + (power - low) * scale
        out.append(f'<line x1="{x:.0f}" y1="36" x2="{x:.0f}" y2="{height - 22}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.0f}" y="{height - 6}" text-anchor="middle" fill="#666">{10.0**power:,g}</text>')
    for row, (value, name) in enumerate(bars):
        y, width = 44 + row * _ROW, (math.log10(value) - low) * scale
        colour = {"taskq": "#c2410c", "hand": "#9ca3af"}.get(name, "#3b6ea8")
        label = "hand loop" if name == "hand" else name
        out.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        out.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 8}" fill="{colour}"/>')
        out.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 14}">{number(value)}</text>')
    return "\n".join([*out, "</svg>", ""])
