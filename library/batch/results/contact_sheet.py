"""The pictures of a batch side by side: one prompt under one seed in a row, one method in a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from library.batch.jobs.ledger import Record
from library.batch.results.logs import log_lines
from library.image_files import open_image
from library.path_safety import path_inside
from library.report.pictures import data_uri

MOST_PICTURES = 1200
"""On a page: above about 12 kB each they would be more than 20 MB together."""


@dataclass(frozen=True)
class DrawnSample:
    """A picture that a job drew, with what it was drawn from."""

    file: Path
    prompt: str
    seed: str


@dataclass(frozen=True)
class Row:
    """One prompt of a dataset; `pictures` has a URI for each method, None where there is no such picture."""

    dataset: str
    prompt: str
    seed: str
    pictures: Sequence[str | None]


def contact_sheet(records: Sequence[Record], methods: Sequence[str], output_dir: Path, prompts: int = 2) -> list[Row]:
    """The first `prompts` of each dataset, each drawn by every method's first seed; fewer prompts where it is too much.

    Only pictures of the same prompt and seed share a row.
    """
    datasets = list(dict.fromkeys(record.dataset for record in records))
    prompts = max(1, min(prompts, MOST_PICTURES // max(1, len(datasets) * len(methods))))
    rows = []
    for dataset in datasets[: MOST_PICTURES // max(1, len(methods))]:
        drawn = {method: _first_drawn(records, dataset, method, output_dir) for method in methods}
        asked = list(dict.fromkeys((s.prompt, s.seed) for samples in drawn.values() for s in samples))[:prompts]
        for prompt, seed in asked:
            files = [_find(drawn[method], prompt, seed) for method in methods]
            rows.append(Row(dataset, prompt, seed, [data_uri(file) if file else None for file in files]))
    return rows


def samples_of(folder: Path, name: str) -> list[DrawnSample]:
    """What a job drew last, in the order of its prompts."""
    drawn = [line["files"] for line in log_lines(folder / f"{name}-log.jsonl") if line.get("event") == "samples"]
    files = [path_inside(folder / "sample", file) for file in drawn[-1]] if drawn else []
    return [sample for file in files if file is not None and (sample := _read(file)) is not None]


def _first_drawn(records: Sequence[Record], dataset: str, method: str, output_dir: Path) -> list[DrawnSample]:
    of_method = sorted((r for r in records if (r.dataset, r.method) == (dataset, method)), key=lambda r: r.seed)
    found = (samples_of(output_dir / record.name, record.name) for record in of_method)
    return next((samples for samples in found if samples), [])


def _find(samples: Sequence[DrawnSample], prompt: str, seed: str) -> Path | None:
    return next((sample.file for sample in samples if (sample.prompt, sample.seed) == (prompt, seed)), None)


def _read(file: Path) -> DrawnSample | None:
    try:
        with open_image(file) as picture:
            return DrawnSample(file, str(picture.info.get("prompt", "")), str(picture.info.get("seed", "")))
    except OSError:
        return None  # tidied away
