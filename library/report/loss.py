"""The figure that a run is judged by first: its losses over the steps with what happened on the way, and the learning
rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from library.formatting import every_nth, from_end_to_end
from library.report.figures import TABLE_ROWS, ReportFigure, none_for_nan, thinned, whole
from library.report.overview import validation_losses
from library.report.plots import DASHES, INK, SERIES, label, stacked_figure, svg
from library.report.run_files import RunFiles, StepColumns

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MOST_MARKS = 120
"""Events that are marked along the steps; of more, evenly taken ones."""
CUT = 0.99
"""Share of the steps whose loss the figure has room for: a few very noisy ones would press the others flat."""


def loss_figure(run: RunFiles, best_step: int | None) -> ReportFigure | None:
    """Loss of every step, its course, the validation loss, the best step, events of trainables; below it the rates."""
    steps, held_out = run.steps, validation_losses(run)
    x, loss = np.array(steps.step), np.array(steps.loss)
    finite = np.isfinite(loss)
    if finite.sum() < 2:
        return None
    rates = distinct({name: np.array(rate) for name, rate in steps.rates.items()})
    places, course = course_of(x[finite], loss[finite])
    with stacked_figure((3.4, 1) if rates else (1,), height=4.4 if rates else 3.4) as (figure, (top, *below)):
        named: dict[str, Artist] = {}
        named["loss of a step"] = _line(top, x[finite], loss[finite], color=SERIES[0], alpha=0.28, linewidth=0.8)
        named["smoothed"] = _line(top, places, course, color=SERIES[0], linewidth=2.4)
        if held_out:
            at, held = np.array(sorted(held_out.items()), float).T
            marker = "o" if len(at) <= 60 else None
            named["validation loss"] = _line(top, at, held, color=SERIES[3], ls=DASHES[1], marker=marker, markersize=4)
        named |= _marks(top, [(event["step"], str(event["event"])) for event in run.events if "before" in event])
        if best_step is not None:
            best = top.axvline(best_step, color=INK, linewidth=1, ls=DASHES[2])
            named[f"lowest validation loss (step {best_step})"] = best
        shown = [*course, *np.quantile(loss[finite], [1 - CUT, CUT]), *held_out.values()]
        top.set(ylabel="loss", ylim=(min(shown) - 0.05 * np.ptp(shown), max(shown) + 0.05 * np.ptp(shown)))
        top.margins(x=0.01)
        _legend(top, named, loc="lower left", bbox_to_anchor=(0, 1))
        for axes in below:
            _rates(axes, x, rates)
        (below[-1] if below else top).set(xlabel="step")
    description = f"Loss over {len(steps):,} steps, smoothed from {course[0]:.4g} to {course[-1]:.4g}"
    if held_out:
        description += f"; validation loss from {held_out[min(held_out)]:.4g} to {held_out[max(held_out)]:.4g}"
    above = int((loss[finite] > top.get_ylim()[1]).sum())
    note = f"{above:,} step{'s' * (above != 1)} with a higher loss: above the top edge of the plot." if above else ""
    return ReportFigure("loss", "Loss and learning rate", svg(figure, description), *_table(steps, held_out), note)


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, **style: Any) -> Artist:
    return axes.plot(*thinned(x, y), **style)[0]


def _marks(axes: Axes, events: Sequence[tuple[int, str]]) -> dict[str, Artist]:
    """A short mark at the upper edge for every step at which trainables did something of their own."""
    steps = sorted({step for step, _ in events})
    if not steps:
        return {}
    kinds = " or ".join(sorted({kind for _, kind in events}))
    at = [steps[i] for i in from_end_to_end(len(steps), MOST_MARKS)]
    upper_edge = axes.get_xaxis_transform()  # x as data, y from 0 to 1
    return {f"{kinds} ({len(steps)})": axes.vlines(at, 0.965, 1, SERIES[2], linewidth=1.2, transform=upper_edge)}


def _rates(axes: Axes, x: np.ndarray, rates: dict[str, np.ndarray]) -> None:
    drawn: dict[str, Artist] = {
        name: _line(axes, x, rate, color=SERIES[i % 6], ls=DASHES[i % 6])
        for i, (name, rate) in enumerate(rates.items())
    }
    axes.set(ylabel="rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if len(rates) > 1:
        _legend(axes, drawn, loc="lower right", bbox_to_anchor=(1, 1))


def _legend(axes: Axes, named: dict[str, Artist], **place: Any) -> None:
    axes.legend(list(named.values()), [label(name) for name in named], ncols=6, **place)


def _table(steps: StepColumns, held_out: dict[int, float]) -> tuple[list[str], list[list[Any]]]:
    """The log's own numbers at some steps: those that were validated, and evenly taken ones."""
    place = {int(step): i for i, step in enumerate(steps.step)}
    measured = [list(held_out)[i] for i in every_nth(len(held_out), TABLE_ROWS)]
    validated = [place[step] for step in measured if step in place]
    taken = {*validated, *from_end_to_end(len(steps), max(2, TABLE_ROWS - len(validated)))}
    head = ["step", "epoch", "loss", "average over an epoch", *(["validation loss"] if held_out else [])]
    head += [f"rate of {name}" for name in steps.rates]
    return head, [_row(steps, held_out, i) for i in sorted(taken)]


def _row(steps: StepColumns, held_out: dict[int, float], i: int) -> list[Any]:
    step = int(steps.step[i])
    row: Iterable[Any] = (step, whole(steps.epoch[i]), steps.loss[i], steps.average[i])
    measured = [held_out.get(step)] if held_out else []
    return [none_for_nan(cell) for cell in [*row, *measured, *(rate[i] for rate in steps.rates.values())]]


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


def distinct(lines: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lines that say the same are one, under all their names."""
    merged: dict[bytes, tuple[list[str], np.ndarray]] = {}
    for name, values in lines.items():
        merged.setdefault(values.tobytes(), ([], values))[0].append(name)
    return {", ".join(names): values for names, values in merged.values()}
