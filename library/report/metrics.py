"""What evaluate.py has measured of a run's pictures: the eval*.json files beside the log."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from library.report.public import scrubbed

HEAD = ["metric", "value", "95 % interval", "pictures", "prompts", "better", "note"]


@dataclass(frozen=True)
class Metrics:
    """One file: a table of what was measured, and a line for each metric that was not."""

    title: str
    rows: list[list[Any]]
    lines: list[str] = field(default_factory=list)
    head: list[str] = field(default_factory=lambda: list(HEAD))


def measured_in(folder: Path, *, public: bool = False) -> list[Metrics]:
    """The files of a folder, by name; what is no evaluation is passed over. `public`: without paths in their texts."""
    found = [_read(path) for path in sorted(folder.glob("eval*.json"))]
    known = [metrics for metrics in found if metrics is not None]
    return [replace(m, rows=scrubbed(m.rows), lines=scrubbed(m.lines)) for m in known] if public else known


def _read(path: Path) -> Metrics | None:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        done = {name: facts for name, facts in metrics.items() if "value" in facts}
        left = [f"{name}: {facts['not_measured']}" for name, facts in metrics.items() if "not_measured" in facts]
        return Metrics(path.name, [_row(name, facts) for name, facts in done.items()], left)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _row(name: str, facts: dict[str, Any]) -> list[Any]:
    low, high = facts.get("interval") or (None, None)
    between = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
    if not between and facts.get("p") is not None:
        between = f"p = {facts['p']:.3f}"
    counts = [facts.get("n_pictures"), facts.get("n_prompts")]
    return [name, facts["value"], between, *counts, facts.get("better", ""), facts.get("note", "")]
