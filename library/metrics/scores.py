"""Scores that another program gave the pictures, such as HPSv3, from its CSV: a column `file`, one for each score."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from library.errors import ConfigError
from library.metrics.catalogue import METRICS, Metric
from library.metrics.figures import MetricFigure, of_pictures
from library.metrics.prompts import PromptedPicture


def read_scores(path: Path, asked: Sequence[PromptedPicture]) -> list[MetricFigure]:
    """A figure for each column beside `file`; higher is taken for better. Raises ConfigError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"`--scores`: {path} cannot be read as CSV ({error})") from None
    columns = [name for name in rows[0] if name and name != "file"] if rows else []
    if not columns or "file" not in rows[0]:
        raise ConfigError(f"`--scores`: {path.name} needs a first line with `file` and the names of the scores")
    if taken := METRICS.keys() & set(columns):
        raise ConfigError(f"`--scores`: {path.name} calls a score {min(taken)}, which is a metric's name; rename it")
    by_file = {Path(row["file"] or "").name: (number, row) for number, row in enumerate(rows, start=2)}
    known = [one for one in asked if one.path.name in by_file]
    if not known:
        raise ConfigError(f"`--scores`: {path.name} names none of the generated pictures in its column `file`")
    return [_figure(path, column, known, by_file) for column in columns]


def _figure(
    path: Path, column: str, asked: Sequence[PromptedPicture], by_file: dict[str, tuple[int, dict[str, str]]]
) -> MetricFigure:
    values = {}
    for one in asked:
        number, row = by_file[one.path.name]
        try:
            values[one.path] = float(row[column])
        except (TypeError, ValueError):
            values[one.path] = math.nan
        if not math.isfinite(values[one.path]):
            raise ConfigError(f"`--scores`: {path.name} line {number}: {column} is {row[column]!r}, not a number")
    figure = of_pictures(Metric(column, (), "prompts", "higher"), asked, values)
    figure.preprocessing = f"from {path.name}"
    return figure
