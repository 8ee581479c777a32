"""The page of a batch: what failed, the table, pictures of all methods side by side, and which difference holds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from library.batch.jobs.job_state import FAILURES
from library.batch.jobs.ledger import Ledger, Record
from library.batch.results.comparison import (
    Measure,
    MethodDifference,
    adjusted,
    differences,
    measures,
    ranks,
    reference,
    values,
)
from library.batch.results.contact_sheet import contact_sheet
from library.batch.results.metrics_files import metrics_of, not_compared
from library.batch.results.table import FIGURES, rows, summary
from library.report.page import render, write_page
from library.report.plots import SERIES, label, new_figure, svg

MARKERS = "osD^vP"
NAME = "batch.html"
TEMPLATE = Path(__file__).parent / "templates" / "batch.html"


def write_batch_page(ledger: Ledger, records: Sequence[Record], title: str) -> Path:
    """Write batch.html beside the folders of the jobs. Raises `UserError` where it cannot be written."""
    methods = list(dict.fromkeys(record.method for record in records))
    against, measured = reference(records), measures(records)
    tables = adjusted([differences(records, measure.name, against) for measure in measured])
    compared = [_comparison(records, measure, against, table) for measure, table in zip(measured, tables, strict=True)]
    html = render(
        TEMPLATE,
        title=title,
        now=time.strftime("%Y-%m-%d %H:%M"),
        summary=summary(records),
        failures=[(r.name, r.last.message if r.last else "", len(r.attempts)) for r in records if r.state in FAILURES],
        jobs=_jobs(ledger.output_dir, records),
        methods=methods,
        sheet=contact_sheet(records, methods, ledger.output_dir),
        compared=compared,
        not_compared=not_compared(records),
    )
    path = ledger.output_dir / NAME
    write_page(path, html)
    return path


def _link(output_dir: Path, name: str) -> str | tuple[str, str]:
    """A job's name, with the address of its own page from the batch's if it has one."""
    pages = sorted((output_dir / name).glob("*.html"))
    return (name, "/".join(map(quote, pages[0].relative_to(output_dir).parts))) if pages else name


def _metric_names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in metrics_of(record)))


def _jobs(output_dir: Path, records: Sequence[Record]) -> tuple[list[str], list[list[Any]]]:
    """The head and the rows of the table of all jobs, without the columns that nobody has a value in."""
    metrics = _metric_names(records)
    head = ["job", "state", "attempts", "seconds", "peak GB", *FIGURES, *metrics]
    keys = ["attempts", "seconds", "peak_gb", *(key for key, _ in FIGURES.values()), *(f"metric:{m}" for m in metrics)]
    lines = [
        [_link(output_dir, row["name"]), row["state"].replace("_", " "), *(row.get(key) for key in keys)]
        for row in rows(records)
    ]
    kept = [i for i in range(len(head)) if any(line[i] is not None for line in lines)]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def _comparison(
    records: Sequence[Record], measure: Measure, against: str, found: Sequence[MethodDifference]
) -> dict[str, Any]:
    """What the template shows of one measure: differences with intervals, ranks, and the values as a figure."""
    ranked = ranks(records, measure)
    return {
        "title": measure.title,
        "against": against,
        "differences": [
            (d.method, d.mean.value, d.mean.low, d.mean.high, d.p, d.counted, d.verdict(measure)) for d in found
        ],
        "ranks": sorted(((method, round(rank, 2)) for method, rank in ranked.items()), key=lambda pair: pair[1]),
        "plot": _plot(records, measure, found),
    }


def _plot(records: Sequence[Record], measure: Measure, found: Sequence[MethodDifference]) -> Markup:
    """Each method's value on each dataset: a mark a method, a place a dataset."""
    measured = values(records, measure.name)
    datasets = list(dict.fromkeys(dataset for at in measured.values() for dataset, _ in at))
    with new_figure(height=2.2 + 0.1 * len(measured)) as (figure, axes):
        apart = 0.5 / len(measured)  # methods are beside each other, so that equal values are seen
        for i, (method, at) in enumerate(measured.items()):
            of = {name: [value for (dataset, _), value in at.items() if dataset == name] for name in datasets}
            points = [(x + (i - (len(measured) - 1) / 2) * apart, mean(of[n])) for x, n in enumerate(datasets) if of[n]]
            places, heights = zip(*points, strict=True)
            colour, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
            axes.plot(places, heights, color=colour, marker=marker, linestyle="none", label=label(method))
        axes.set_xticks(range(len(datasets)), [label(name, 24) for name in datasets])
        axes.set_ylabel(label(measure.name.replace("_", " ")))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        held = "; ".join(f"{d.method}: {d.verdict(measure)}" for d in found)
        return svg(figure, f"{measure.title} of {len(measured)} methods on {len(datasets)} datasets. {held}")
