"""Figures of whatever trainables have found out: lines and heat maps, each with a table of its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from library.findings import HeatMap, Series
from library.formatting import from_end_to_end
from library.report.plots import DASHES, SERIES, SOFT, label, new_figure, svg

MOST_POINTS = 1200
"""Points of a line on a page; a longer one keeps the lowest and the highest of every stretch."""
TABLE_ROWS, TABLE_COLUMNS = 40, 12
"""A table under a figure has at most so many places of it, evenly taken."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its table: an id for links, a title, the picture, the table's head and rows, and a note."""

    id: str
    title: str
    svg: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


def series_figure(id: str, title: str, series: Series) -> ReportFigure:
    """Lines over a common x."""
    x = np.array(_floats(series.x))
    lines = {name: np.array(_floats(values)) for name, values in series.lines.items()}
    with new_figure(height=3.2) as (figure, axes):
        drawn = []
        for i, values in enumerate(lines.values()):
            known = np.isfinite(values)
            style = {"color": SERIES[i % 6], "ls": DASHES[i % 6], "marker": "o" if len(x) <= 40 else None}
            drawn += axes.plot(*thinned(x[known], values[known]), markersize=3.5, **style)
        axes.set(xlabel=label(series.x_label), ylabel=label(series.y_label))
        if len(lines) > 1:
            named = [label(name, 30) for name in lines]
            axes.legend(drawn, named, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(5, len(lines)))
    ends = [
        f"{name} ends at {_last(values):.4g}" for name, values in list(lines.items())[:8] if _last(values) is not None
    ]
    taken = from_end_to_end(len(x), TABLE_ROWS)
    rows = [[whole(x[i]), *(none_for_nan(values[i]) for values in lines.values())] for i in taken]
    description = f"{title}: {'; '.join(ends)}"
    return ReportFigure(id, _heading(title), svg(figure, description), [series.x_label or "x", *lines], rows)


def heat_map_figure(id: str, title: str, heat_map: HeatMap) -> ReportFigure:
    """A value for every row and column, as viridis; rows of a group are together under its name."""
    values = np.array([_floats(row) for row in heat_map.values], dtype=float)
    rows, columns = len(heat_map.rows), len(heat_map.columns)
    with new_figure(height=float(np.clip(0.9 + 0.14 * rows, 2.2, 7.5))) as (figure, axes):
        image = axes.imshow(values, aspect="auto", interpolation="none", cmap="viridis")
        axes.grid(False)
        shown = from_end_to_end(columns, 24)
        axes.set_xticks(shown, [label(str(heat_map.columns[i]), 12) for i in shown])
        axes.tick_params(length=0)
        if len(heat_map.groups) == rows:
            _name_groups(axes, heat_map.groups)
        else:
            named = from_end_to_end(rows, 48)
            axes.set_yticks(named, [label(heat_map.rows[i], 48) for i in named], fontsize=7)
        bar = figure.colorbar(image, label=label(heat_map.label), pad=0.01, aspect=30)
        if bar.solids is not None:
            bar.solids.set_rasterized(True)  # as vectors, 256 rectangles
        bar.outline.set_visible(False)
    taken = from_end_to_end(columns, TABLE_COLUMNS)
    grouped = len(heat_map.groups) == rows
    head = ["", *(["part"] if grouped else []), *(str(heat_map.columns[i]) for i in taken)]
    body = [
        [name, *([heat_map.groups[r]] if grouped else []), *(whole(values[r, i]) for i in taken)]
        for r, name in enumerate(heat_map.rows)
    ]
    known = values[np.isfinite(values)]
    span = f", from {known.min():.4g} to {known.max():.4g}" if known.size else ""
    description = f"{title}: {heat_map.label} of {rows} rows and {columns} columns{span}"
    note = heat_map.label + (f"; the table has {len(taken)} of {columns} columns" if len(taken) < columns else "")
    return ReportFigure(id, _heading(title), svg(figure, description), head, body, note)


def _name_groups(axes: Any, groups: Sequence[str]) -> None:
    """Each group's name at its middle, and a line where it ends."""
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    ends = [*starts[1:], len(groups)]
    axes.set_yticks(
        [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)], [label(groups[i], 36) for i in starts]
    )
    for start in starts[1:]:
        axes.axhline(start - 0.5, color=SOFT, linewidth=0.8)


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a line that looks the same: of every stretch its lowest and its highest."""
    if len(x) <= most:
        return x, y
    kept = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(len(x)), (most - 2) // 2):
        kept |= {int(stretch[np.argmin(y[stretch])]), int(stretch[np.argmax(y[stretch])])}
    places = np.array(sorted(kept))
    return x[places], y[places]


def _floats(values: Iterable[float | None]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _last(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def whole(value: float) -> int | float | None:
    """A whole number as one, None for NaN."""
    return none_for_nan(int(value) if np.isfinite(value) and value == int(value) else float(value))


def none_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _heading(title: str) -> str:
    """A plugin's title ("rank_over_depth") as a heading."""
    words = title.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
