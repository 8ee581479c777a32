"""`evaluate` of a jobs file: each finished job's pictures measured by evaluate.py, once, in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from library.batch.jobs.job import Job
from library.batch.jobs.ledger import DONE, Ledger
from library.batch.results.contact_sheet import samples_of
from library.config.image_folders import concept_folders, count_images

logger = logging.getLogger(__name__)

COMMAND = Path(__file__).resolve().parents[3] / "evaluate.py"
RESULT = "eval.json"


def evaluate_jobs(ledger: Ledger, jobs: Iterable[Job], config: Path) -> list[str]:
    """Measure the finished jobs whose pictures are newer than their eval.json; the names of those that could not be."""
    failed = []
    for job in jobs:
        if ledger.read(job.name).state != DONE:
            continue
        words = words_for(job, ledger.output_dir / job.name, config)
        if words is None:
            continue
        ended = subprocess.run([sys.executable, str(COMMAND), *words], capture_output=True, text=True, encoding="utf-8")
        if ended.returncode:
            lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
            logger.info(f"{job.name} could not be evaluated: {lines[-1] if lines else f'exit code {ended.returncode}'}")
            failed.append(job.name)
    return failed


def words_for(job: Job, folder: Path, config: Path) -> Sequence[str] | None:
    """The words for evaluate.py; None where there are no pictures, or they have been measured."""
    drawn = samples_of(folder, job.name)
    result = folder / RESULT
    if not drawn or (result.exists() and result.stat().st_mtime >= drawn[-1].file.stat().st_mtime):
        return None
    moment = drawn[-1].file.name.removeprefix(f"{job.name}_").partition("_")[0]  # "e000010" or "000150"
    words = ["--config_file", str(config), "--generated", str(folder / "sample"), "--only", f"{job.name}_{moment}_*"]
    pictures = pictures_of(job.dataset.path)
    words += ["--reference", str(pictures)] if pictures else []
    return [*words, "--output", str(result)]


def pictures_of(dataset: Path) -> Path | None:
    """The one folder of pictures of a dataset; None where it has several, or is described by a file."""
    if not dataset.is_dir():
        return None
    folders = [Path(subset["image_dir"]) for subset in concept_folders(dataset, [])]
    if len(folders) == 1:
        return folders[0]
    return dataset if not folders and count_images(dataset) else None
