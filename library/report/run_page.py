"""The page of a run, put together from its files; `python -m library.report` makes the same page again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from library.findings import Findings, Sheet, from_plain
from library.path_safety import path_inside
from library.report.bars import bars_of
from library.report.dataset import describe_data
from library.report.figures import ReportFigure, heat_map_figure, series_figure
from library.report.live import RELOADS, LiveFigures
from library.report.loss import loss_figure
from library.report.metrics import measured_in
from library.report.overview import best_of, facts, newest_findings, notices, state_of, time_split
from library.report.page import TEMPLATES, render, write_page
from library.report.pictures import data_uri
from library.report.public import without_paths
from library.report.run_files import RunFiles, read_run
from library.report.settings import describe_settings
from library.report.strips import sample_strips
from library.report.weights import saved_files


def page_of(log: Path) -> Path:
    """Where the page of the run that wrote `log` lies."""
    return log.with_name(log.name.removesuffix("-log.jsonl") + "-report.html")


def write_run_page(log: Path, *, running: bool = False, public: bool = False) -> Path:
    """Write the page of a run beside its log; returns its path. `public` leaves out paths, captions and the training
    pictures; `running` says that the run that writes the log is under way."""
    path = page_of(log)
    write_page(path, run_page(read_run(log), running=running, public=public))
    return path


def live_page(log: Path, figures: LiveFigures) -> str:
    """The page of a run that is under way, which reloads itself."""
    return run_page(read_run(log), running=True, live=figures)


def run_page(run: RunFiles, *, running: bool = False, public: bool = False, live: LiveFigures | None = None) -> str:
    """The page as HTML. The same files give the same page, but for the time at its foot.

    `live` are the figures of the run that is under way; with them the page reloads itself.
    """
    if public:
        run = without_paths(run)
    best = best_of(run)
    return render(
        TEMPLATES / "run.html",
        title=run.name,
        state=state_of(run, running=running),
        facts=facts(run, best),
        notices=notices(run),
        loss=loss_figure(run, best),
        last_step=run.last_step,
        metrics=measured_in(run.folder, public=public),
        samples=sample_strips(run, best, with_training_pictures=not public),
        findings=[_shown(number, event, run.folder) for number, event in enumerate(newest_findings(run))],
        data=describe_data(run, with_pictures=not public),
        files=saved_files(run),
        time_split=bars_of(time_split(run).items()),
        settings=describe_settings(run),
        public=public,
        live=live,
        reloads=RELOADS,
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _shown(number: int, event: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a trainable has found, as figures and tables."""
    found: Findings = from_plain(event)
    figures: list[ReportFigure] = []
    for i, (title, heat_map) in enumerate(found.heat_maps.items()):
        figures.append(heat_map_figure(f"t{number}-map{i}", title, heat_map))
    for i, (title, series) in enumerate(found.series.items()):
        figures.append(series_figure(f"t{number}-lines{i}", title, series))
    return {
        "name": event.get("trainable", ""),
        "step": event["step"],
        "found": found,
        "figures": figures,
        "sheets": [describe_sheet(title, sheet, folder) for title, sheet in found.pictures.items()],
    }


def describe_sheet(title: str, sheet: Sheet, folder: Path) -> tuple[str, list[str], list[tuple[str, list[str | None]]]]:
    """A sheet's title, its columns, and its rows with the pictures as URIs."""
    rows = [
        (str(name), [data_uri(path) if (path := path_inside(folder, file)) else None for file in files])
        for name, files in zip(sheet.rows, sheet.files, strict=False)
    ]
    return title, [str(column) for column in sheet.columns], rows
