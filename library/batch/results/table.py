"""What a batch came to, as a table: on the console, and as CSV and JSON in the ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from library.atomic import atomic
from library.batch.jobs.ledger import CANCELLED, DONE, FAILED, GAVE_UP, PENDING, RUNNING, Ledger, Record, write_json
from library.batch.results.metrics_files import metrics_of
from library.formatting import aligned

ORDER = {DONE: 0, RUNNING: 1, PENDING: 2, CANCELLED: 3, GAVE_UP: 4, FAILED: 5}
"""Failures come last, where they are seen when the table has scrolled by."""
FIGURES = {
    "s/step": ("seconds_per_step", "{:.3g}"),
    "rank": ("median_rank", "{:g}"),
    "loss": ("loss", "{:.4f}"),
    "validation": ("validation_loss", "{:.4f}"),
}


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One row a job, failures last; plain values, None where there is none."""
    return [_row(record) for record in sorted(records, key=lambda record: ORDER[record.state])]


def _row(record: Record) -> dict[str, Any]:
    ended = [attempt for attempt in record.attempts if attempt.ended is not None]
    seconds = sum((attempt.ended or 0.0) - attempt.begun for attempt in ended)
    peaks = [attempt.peak_gb for attempt in record.attempts if attempt.peak_gb is not None]
    last = record.last
    failed = record.state in (FAILED, GAVE_UP, PENDING) and last is not None
    return {
        "name": record.name,
        "dataset": record.dataset,
        "method": record.method,
        "seed": record.seed,
        "state": record.state,
        "attempts": len(record.attempts),
        "seconds": round(seconds, 1) if ended else None,
        "peak_gb": max(peaks) if peaks else None,
        **{key: record.results.get(key) for key, _ in FIGURES.values()},
        **{f"metric:{name}": facts["value"] for name, facts in metrics_of(record).items()},
        "error": last.message if failed and last else "",
    }


def table_text(records: Sequence[Record]) -> str:
    """The table for a console; columns that nobody has a value in are left out."""
    table = rows(records)
    metrics = sorted({key for row in table for key in row if key.startswith("metric:")})
    columns: list[tuple[str, Any]] = [
        ("job", lambda row: row["name"]),
        ("state", lambda row: row["state"]),
        ("time", lambda row: time_text(row["seconds"])),
        *((title, _shown(key, form)) for title, (key, form) in FIGURES.items()),
        ("peak GB", _shown("peak_gb", "{:.2f}")),
        *((key.removeprefix("metric:"), _shown(key, "{:.4g}")) for key in metrics),
        ("error", lambda row: row["error"].splitlines()[0] if row["error"] else ""),
    ]
    cells = [[str(value(row)) for _, value in columns] for row in table]
    kept = [i for i in range(len(columns)) if i < 2 or any(row[i] for row in cells)]
    return aligned([[columns[i][0] for i in kept], *([row[i] for i in kept] for row in cells)])


def write_table(ledger: Ledger, records: Sequence[Record]) -> None:
    """table.csv and table.json in the ledger's folder."""
    table = rows(records)
    names = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    with atomic(ledger.folder / "table.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="\n")
    write_json(ledger.folder / "table.json", [asdict(record) for record in records])


def counts(records: Sequence[Record]) -> dict[str, int]:
    """How many jobs are in each state that there is."""
    found = [record.state for record in records]
    return {state: found.count(state) for state in ORDER if state in found}


def summary(records: Sequence[Record]) -> str:
    parts = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in counts(records).items())
    return f"{len(records)} jobs: {parts}"


def _shown(key: str, form: str):
    def value(row: Mapping[str, Any]) -> str:
        return "" if row.get(key) is None else form.format(row[key])

    return value


def time_text(seconds: float | None) -> str:
    """Minutes and seconds, with hours where there are any; nothing where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
