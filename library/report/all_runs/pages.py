"""All runs and batches below a folder on one page, and two runs side by side: what `python -m library.report --watch`
serves. Nothing is written; a run's page is read as it lies there, or made in memory where it lags behind its log."""

from __future__ import annotations

import json
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from library.formatting import duration, file_size
from library.path_safety import path_inside
from library.report.live import HEIGHT, RELOADS, WIDTH
from library.report.log_tail import RunTail, is_alive, read_tail
from library.report.overview import state_of
from library.report.page import TEMPLATES, render
from library.report.pictures import data_uri
from library.report.run_files import LOG, RunFiles, read_run
from library.report.run_page import page_of, run_page
from library.report.settings import describe_settings
from library.report.strips import sample_strips

MOST_RUNS = 300
PICTURE = 160
LEDGER = "_batch"


@dataclass(frozen=True)
class WatchedRun:
    """A run as a row of the overview; `path` is its log below the folder."""

    path: str
    link: str
    compare: str
    kind: str
    state: str
    percent: float
    progress: str
    left: str
    loss: str
    verdict: str
    rank: str
    size: str
    sample: str | None
    changed: float


@dataclass(frozen=True)
class WatchedBatch:
    name: str
    link: str | None
    counts: str


def find_runs(root: Path) -> list[Path]:
    """The logs below a folder, the newest first; older logs that a new run has set aside are none."""
    found = [log for log in root.rglob(f"*{LOG}") if LEDGER not in log.relative_to(root).parts and log.is_file()]
    return sorted(found, key=_changed, reverse=True)[:MOST_RUNS]


def overview_page(root: Path) -> str:
    """The page of all runs and batches below `root`."""
    runs = [row for log in find_runs(root) if (row := watched_run(root, log)) is not None]
    return render(
        TEMPLATES / "watch.html",
        title=str(root),
        runs=runs,
        batches=list(watched_batches(root)),
        reloads=RELOADS,
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def watched_run(root: Path, log: Path) -> WatchedRun | None:
    """None for a log without a line."""
    tail = read_tail(log)
    if tail is None:
        return None
    name = log.relative_to(root).as_posix()
    kind, state = state_now(log, tail)
    weights = log.with_name(log.name.removesuffix(LOG) + ".safetensors")
    left = tail.seconds_left if state == "Running" else None
    total = tail.total_steps or 0
    return WatchedRun(
        path=name.removesuffix(LOG),
        link=f"/page/{quote(page_of(log).relative_to(root).as_posix())}",
        compare=f"/compare?a={quote(name, safe='')}",
        kind=kind,
        state=state,
        percent=round(100 * tail.step / total, 1) if total else 0.0,
        progress=f"{tail.step:,}" + (f" of {total:,}" if total else ""),
        left="" if left is None else duration(left),
        loss="" if tail.loss is None else f"{tail.loss:.4f}",
        verdict=tail.reason or verdict_of(log),
        rank=rank_of(weights),
        size=file_size(weights.stat().st_size) if weights.is_file() else "",
        sample=newest_sample(log),
        changed=_changed(log),
    )


def state_now(log: Path, tail: RunTail) -> tuple[str, str]:
    """A kind for the colour, and a word: how far the run is, also where it could not write that down itself."""
    if tail.ending == "end":
        return "good", "Finished"
    if tail.ending == "stopped":
        return "warn", "Stopped"
    return ("", "Running") if is_alive(log) else ("bad", "Ended without a word")


def verdict_of(log: Path) -> str:
    """The last sentence of the run about overfitting, from the end of its log."""
    sentence = ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 16)))
        for line in file.read().splitlines():
            if b'"event": "verdict"' in line:
                try:
                    sentence = str(json.loads(line).get("sentence", ""))
                except ValueError:
                    continue
    return sentence


def newest_sample(log: Path) -> str | None:
    folder, name = log.parent / "sample", log.name.removesuffix(LOG)
    try:
        mine = [entry for entry in os.scandir(folder) if entry.name.startswith(f"{name}_") and entry.is_file()]
    except OSError:
        return None
    newest = max(mine, key=lambda entry: (entry.stat().st_mtime, entry.name), default=None)
    return None if newest is None else data_uri(Path(newest.path), PICTURE)


def rank_of(weights: Path) -> str:
    """The ranks in a file of a LoRA, from its header: "8", or the median with the range where they differ."""
    try:
        stamp = weights.stat()
        ranks = _ranks(weights, stamp.st_mtime_ns, stamp.st_size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        return ""
    if not ranks:
        return ""
    least, most = min(ranks), max(ranks)
    return f"{most}" if least == most else f"{median(ranks):g} ({least} to {most})"


@lru_cache(maxsize=MOST_RUNS)
def _ranks(weights: Path, mtime: int, size: int) -> tuple[int, ...]:
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, 64 << 20):
            return ()
        header = json.loads(file.read(length))
    return tuple(int(about["shape"][0]) for name, about in header.items() if name.endswith("lora_down.weight"))


def watched_batches(root: Path) -> Iterator[WatchedBatch]:
    """The batches below a folder, by the records of their jobs; one that says running while nobody is at it was cut
    off, which only its own `--status` can tell."""
    for ledger in sorted(path for path in root.rglob(LEDGER) if path.is_dir()):
        states: Counter[str] = Counter()
        for record in (ledger / "jobs").glob("*.json"):
            try:
                states[str(json.loads(record.read_text(encoding="utf-8"))["state"])] += 1
            except (OSError, ValueError, KeyError, TypeError):
                continue
        folder = ledger.parent
        page = folder / "batch.html"
        link = f"/page/{quote(page.relative_to(root).as_posix())}" if page.is_file() else None
        counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        yield WatchedBatch(folder.relative_to(root).as_posix(), link, f"{sum(states.values())} jobs: {counts}")


def stored_page(root: Path, name: str) -> str | None:
    """A page below `root` by its path: as it lies there, or made of the log where that knows more. None: no page."""
    path = path_inside(root, name)
    if path is None or path.suffix != ".html":
        return None
    log = path.with_name(path.name.removesuffix("-report.html") + LOG)
    tail = read_tail(log) if path.name.endswith("-report.html") else None
    if tail is None:
        return path.read_text(encoding="utf-8") if path.is_file() and path.name == "batch.html" else None
    alive = tail.ending == "" and is_alive(log)
    is_current = path.is_file() and path.stat().st_mtime >= log.stat().st_mtime
    if path.is_file() and (alive or (tail.ending and is_current)):
        return path.read_text(encoding="utf-8")
    return _made(log, log.stat().st_mtime_ns, alive)


@lru_cache(maxsize=4)
def _made(log: Path, mtime: int, alive: bool) -> str:
    return run_page(read_run(log), running=alive)


def comparison_page(root: Path, first: str, second: str) -> str | None:
    """Two runs side by side, by the paths of their logs; with one alone, those that it may be set beside."""
    logs = {log.relative_to(root).as_posix(): log for log in find_runs(root)}
    if first not in logs or (second and second not in logs):
        return None
    if not second:
        others = [
            (name.removesuffix(LOG), f"/compare?a={quote(first, safe='')}&b={quote(name, safe='')}") for name in logs
        ]
        return render(
            TEMPLATES / "compare.html",
            title=first.removesuffix(LOG),
            others=[one for one in others if one[0] != first.removesuffix(LOG)],
            runs=[],
            different=[],
            curves=[],
            prompts=[],
        )
    runs = [read_run(logs[name]) for name in (first, second)]
    names = [name.removesuffix(LOG) for name in (first, second)]
    states = [state_of(run, running=is_alive(run.log)) for run in runs]
    return render(
        TEMPLATES / "compare.html",
        title=" beside ".join(names),
        others=[],
        runs=list(zip(names, states, strict=True)),
        different=different_settings(runs),
        curves=curves_of(runs),
        prompts=samples_by_prompt(runs),
    )


def different_settings(runs: Sequence[RunFiles]) -> list[list[str]]:
    """Rows of name and both values, of the options that differ."""
    listed = [describe_settings(run) for run in runs]
    values = [{one.name: one.value for one in (*t.own, *t.rest)} if t is not None else {} for t in listed]
    names = dict.fromkeys([*values[0], *values[1]])
    rows = [[name, *(mine.get(name, "-") for mine in values)] for name in names]
    return [row for row in rows if row[1] != row[2]]


def curves_of(runs: Sequence[RunFiles]) -> list[str]:
    """The average losses of both as the points of two lines on the same axes; empty where there is no loss."""
    lines = []
    for run in runs:
        pairs = [(s, a) for s, a in zip(run.steps.step, run.steps.average, strict=True) if a == a]
        lines.append(pairs[:: max(1, len(pairs) // 400)])
    every = [pair for line in lines for pair in line]
    if not every:
        return []
    longest = max(step for step, _ in every) or 1
    low, high = min(loss for _, loss in every), max(loss for _, loss in every)
    span = (high - low) or 1.0
    return [
        " ".join(f"{WIDTH * s / longest:.1f},{2 * HEIGHT * (1 - (loss - low) / span):.1f}" for s, loss in line)
        for line in lines
    ]


def samples_by_prompt(runs: Sequence[RunFiles]) -> list[tuple[str, list[dict[str, Any] | None]]]:
    """(prompt, the last sample of each run or None)."""
    found: dict[str, list[dict[str, Any] | None]] = {}
    for place, run in enumerate(runs):
        for strip in sample_strips(run, None, with_training_pictures=False).strips:
            frame = strip.frames[-1]
            found.setdefault(strip.prompt, [None, None])[place] = {"uri": frame.uri, "label": frame.label}
    return list(found.items())


def _changed(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0
