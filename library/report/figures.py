"""Figures of a run: its losses with what happened on the way, and whatever its trainables have found out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from library.report.overview import validation_losses
from library.report.plots import DASHES, INK, SERIES, SOFT, label, new_figure, stacked_figure, svg
from library.report.run_files import RunFiles
from library.training.findings import HeatMap, Series

MOST_POINTS = 1200
"""Points of a line on a page; a longer one keeps the lowest and the highest of every stretch."""
TABLE_ROWS, TABLE_COLUMNS = 40, 12
"""A table under a figure has at most so many places of it, evenly taken."""


@dataclass(frozen=True)
class Figure:
    """A figure with its table: an id for links, a title, the picture, the table's head and rows, and a note."""

    id: str
    title: str
    svg: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


def loss_figure(run: RunFiles, best_step: int | None) -> Figure | None:
    """Loss of every step, its course, the validation loss, the best step, events of trainables; below it the rates."""
    steps = run.steps
    x, loss = np.array(steps.step), np.array(steps.loss)
    finite = np.isfinite(loss)
    if finite.sum() < 2:
        return None
    held_out = [
        (e["step"], e["validation_loss"]) for e in run.all("validation") if e.get("validation_loss") is not None
    ]
    happened = sorted({event["step"] for event in run.events if "before" in event})
    places, course = course_of(x[finite], loss[finite])
    rates = _distinct({name: np.array(rate) for name, rate in steps.rates.items()})
    with stacked_figure((3.4, 1) if rates else (1,), height=4.4 if rates else 3.4) as (figure, (top, *below)):
        drawn = [top.plot(*thinned(x[finite], loss[finite]), color=SERIES[0], alpha=0.28, linewidth=0.8)[0]]
        names = ["loss of a step"]
        drawn += top.plot(*thinned(places, course), color=SERIES[0], linewidth=2.4)
        names.append("its course")
        if held_out:
            marker = "o" if len(held_out) <= 60 else None
            drawn += top.plot(*zip(*held_out, strict=True), color=SERIES[3], ls=DASHES[1], marker=marker, markersize=4)
            names.append("validation loss")
        if happened:
            every = [top.axvline(step, ymin=0.97, color=SERIES[2], linewidth=1) for step in happened]
            drawn.append(every[0])
            kinds = sorted({str(event["event"]) for event in run.events if "before" in event})
            names.append(f"{' or '.join(kinds)} ({len(happened)})")
        if best_step is not None:
            drawn.append(top.axvline(best_step, color=INK, linewidth=1, ls=DASHES[2]))
            names.append(f"lowest validation loss (step {best_step})")
        low, high = np.quantile(loss[finite], [0.005, 0.99])
        both = [*course, low, high, *(value for _, value in held_out)]
        top.set_ylim(min(both) * 0.94, max(both) * 1.06)
        top.set(ylabel="loss")
        top.margins(x=0.01)
        top.legend(drawn, [label(name) for name in names], loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
        for axes in below:
            lines = [
                axes.plot(*thinned(x, rate), color=SERIES[i % 6], ls=DASHES[i % 6])[0]
                for i, rate in enumerate(rates.values())
            ]
            axes.set(ylabel="rate")
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
            if len(rates) > 1:
                axes.legend(lines, [label(name) for name in rates], ncols=6, loc="lower right", bbox_to_anchor=(1, 1))
        (below[-1] if below else top).set(xlabel="step")
    told = f"Loss over {len(steps):,} steps, its course from {course[0]:.4g} to {course[-1]:.4g}"
    told += f"; validation loss from {held_out[0][1]:.4g} to {held_out[-1][1]:.4g}" if held_out else ""
    head, rows = _loss_table(run)
    note = "The highest 1 % of the steps lie above the figure." if len(x) >= 100 else ""
    return Figure("loss", "Loss and learning rate", svg(figure, told), head, rows, note)


def _loss_table(run: RunFiles) -> tuple[list[str], list[list[Any]]]:
    """The log's own numbers at some steps: those that were validated, and evenly taken ones."""
    steps = run.steps
    held_out = validation_losses(run)
    place = {int(step): i for i, step in enumerate(steps.step)}
    validated = [place[step] for step in list(held_out)[:: -(-len(held_out) // TABLE_ROWS) or 1] if step in place]
    evenly = np.linspace(0, len(steps) - 1, min(len(steps), max(2, TABLE_ROWS - len(validated)))).round().astype(int)
    head = ["step", "epoch", "loss", "average over an epoch", *(["validation loss"] if held_out else [])]
    head += [f"rate of {name}" for name in steps.rates]
    rows = []
    for i in sorted({*validated, *evenly.tolist()}):
        step = int(steps.step[i])
        row: list[Any] = [step, whole(steps.epoch[i]), steps.loss[i], steps.average[i]]
        row += [held_out.get(step)] if held_out else []
        rows.append([none_for_nan(cell) for cell in [*row, *(rate[i] for rate in steps.rates.values())]])
    return head, rows


def series_figure(id: str, title: str, series: Series) -> Figure:
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
    some = _some(len(x), TABLE_ROWS)
    rows = [[whole(x[i]), *(none_for_nan(values[i]) for values in lines.values())] for i in some]
    told = f"{title}: {'; '.join(ends)}"
    return Figure(id, _heading(title), svg(figure, told), [series.x_label or "x", *lines], rows)


def heat_map_figure(id: str, title: str, heat_map: HeatMap) -> Figure:
    """A value for every row and column, as viridis; rows of a group stand together under its name."""
    values = np.array([_floats(row) for row in heat_map.values], dtype=float)
    rows, columns = len(heat_map.rows), len(heat_map.columns)
    with new_figure(height=float(np.clip(0.9 + 0.14 * rows, 2.2, 7.5))) as (figure, axes):
        image = axes.imshow(values, aspect="auto", interpolation="none", cmap="viridis")
        axes.grid(False)
        shown = _some(columns, 24)
        axes.set_xticks(shown, [label(str(heat_map.columns[i]), 12) for i in shown])
        axes.tick_params(length=0)
        if len(heat_map.groups) == rows:
            _name_groups(axes, heat_map.groups)
        else:
            named = _some(rows, 48)
            axes.set_yticks(named, [label(heat_map.rows[i], 48) for i in named], fontsize=7)
        bar = figure.colorbar(image, label=label(heat_map.label), pad=0.01, aspect=30)
        if bar.solids is not None:
            bar.solids.set_rasterized(True)  # as vectors, 256 rectangles
        bar.outline.set_visible(False)
    taken = _some(columns, TABLE_COLUMNS)
    grouped = len(heat_map.groups) == rows
    head = ["", *(["part"] if grouped else []), *(str(heat_map.columns[i]) for i in taken)]
    body = [
        [name, *([heat_map.groups[r]] if grouped else []), *(whole(values[r, i]) for i in taken)]
        for r, name in enumerate(heat_map.rows)
    ]
    known = values[np.isfinite(values)]
    span = f", from {known.min():.4g} to {known.max():.4g}" if known.size else ""
    told = f"{title}: {heat_map.label} of {rows} rows and {columns} columns{span}"
    note = heat_map.label + (f"; the table has {len(taken)} of {columns} columns" if len(taken) < columns else "")
    return Figure(id, _heading(title), svg(figure, told), head, body, note)


def _name_groups(axes: Any, groups: Sequence[str]) -> None:
    """Each group's name at its middle, and a line where it ends."""
    starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    ends = [*starts[1:], len(groups)]
    axes.set_yticks(
        [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)], [label(groups[i], 36) for i in starts]
    )
    for start in starts[1:]:
        axes.axhline(start - 0.5, color=SOFT, linewidth=0.8)


def course_of(x: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The course of noisy values, at most 2000 places of it: weighted means over neighbours, a bell whose width grows
    with the run."""
    stretches = np.array_split(np.arange(len(x)), min(len(x), 2000))
    counts = np.array([len(stretch) for stretch in stretches], float)
    sums = np.array([values[stretch].sum() for stretch in stretches])
    width = max(1.0, len(stretches) / 50)
    reach = int(3 * width)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weighted, weights = (np.convolve(np.pad(column, reach), bell, "valid") for column in (sums, counts))
    return np.array([x[stretch].mean() for stretch in stretches]), weighted / weights


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a line that looks the same: of every stretch its lowest and its highest."""
    if len(x) <= most:
        return x, y
    kept = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(len(x)), (most - 2) // 2):
        kept |= {int(stretch[np.argmin(y[stretch])]), int(stretch[np.argmax(y[stretch])])}
    places = np.array(sorted(kept))
    return x[places], y[places]


def _distinct(lines: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lines that say the same are one, under all their names."""
    merged: dict[bytes, tuple[list[str], np.ndarray]] = {}
    for name, values in lines.items():
        merged.setdefault(values.tobytes(), ([], values))[0].append(name)
    return {", ".join(names): values for names, values in merged.values()}


def _some(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly taken, first and last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())) if count else []


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
