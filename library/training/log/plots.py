"""Pictures of what trainables found out: lines over the steps, and heat maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from library.atomic import atomic
from library.findings import Findings, HeatMap, Series
from library.formatting import every_nth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELLED_ROWS = 60
"""A heat map with more rows names only some of them."""


def draw_findings(findings: Findings, folder: Path, stem: str) -> list[Path]:
    """One PNG for each series and heat map, `{stem}_{title}.png` in `folder`."""
    drawn = []
    for title, series in findings.series.items():
        drawn.append(_save(_lines(title, series), folder, stem, title))
    for title, heat_map in findings.heat_maps.items():
        drawn.append(_save(_heat_map(title, heat_map), folder, stem, title))
    return drawn


def _lines(title: str, series: Series) -> Figure:
    figure, axes = _figure(8, 4)
    for name, values in series.lines.items():
        axes.plot(series.x, values, label=name, marker="." if len(series.x) < 40 else None)
    axes.set(title=title, xlabel=series.x_label, ylabel=series.y_label)
    axes.grid(alpha=0.3)
    if len(series.lines) > 1:
        axes.legend(fontsize=8)
    return figure


def _heat_map(title: str, heat_map: HeatMap) -> Figure:
    values = np.array([[np.nan if v is None else v for v in row] for row in heat_map.values], dtype=float)
    figure, axes = _figure(4 + 0.35 * len(heat_map.columns), 1.5 + 0.15 * min(len(heat_map.rows), LABELLED_ROWS))
    image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set_title(title)
    axes.set_xticks(range(len(heat_map.columns)), heat_map.columns, rotation=45, ha="right", fontsize=7)
    labelled = every_nth(len(heat_map.rows), LABELLED_ROWS)
    axes.set_yticks(labelled, [heat_map.rows[i] for i in labelled], fontsize=5)
    figure.colorbar(image, label=heat_map.label)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # not pyplot: no window system, nothing global

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Figure, folder: Path, stem: str, title: str) -> Path:
    path = folder / f"{stem}_{_slug(title)}.png"
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
