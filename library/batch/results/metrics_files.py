"""What evaluate.py has measured of each job, and which figures may be compared side by side. Pure functions.

A figure is compared only with others by the same network and, where it looks at references, with the same ones on its
dataset; what is no finite number is compared with nothing. What is left out is reported.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from library.batch.jobs.ledger import DONE, Record

VALIDATION = "validation_loss"
BETTER = ("higher", "lower")


def with_metrics(record: Record, folder: Path) -> Record:
    """The record with what evaluate.py has written into the job's folder, by the metric's name: `value`, None where it
    is no finite number, `better`, `network` (or how it was measured otherwise), and `references`."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("eval*.json")):
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # somebody else's file
        found |= {name: _facts(facts) for name, facts in metrics if _is_measured(facts)}
    return replace(record, results=record.results | {"metrics": found}) if found else record


def _is_measured(facts: Any) -> bool:
    """Whether these are a metric's facts as evaluate.py writes them."""
    if not (isinstance(facts, dict) and "value" in facts and facts.get("better") in BETTER):
        return False
    networks, texts = facts.get("weights", {}), (facts.get("references", ""), facts.get("preprocessing", ""))
    if not (isinstance(networks, dict) and all(isinstance(text, str) for text in texts)):
        return False
    return all(isinstance(of, dict) and isinstance(of.get("sha256"), str) for of in networks.values())


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    networks = facts.get("weights", {})
    by = [f"{name} {of['sha256'][:8]}" for name, of in sorted(networks.items())]
    by += [facts.get("preprocessing", "")] if networks else []
    references = facts.get("references", "")
    entry = {"value": finite(facts["value"]), "better": facts["better"], "network": ", ".join(by)}
    return entry | ({"references": references} if references else {})


def finite(value: Any) -> float | None:
    """A number that can be compared; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if abs(value) <= sys.float_info.max else None  # NaN is not; nor are integers beyond all floats


def metrics_of(record: Record) -> dict[str, dict[str, Any]]:
    return record.results.get("metrics", {})


def value_of(record: Record, name: str) -> float | None:
    """A metric, or a figure of the training."""
    metrics = metrics_of(record)
    return metrics[name]["value"] if name in metrics else finite(record.results.get(name))


def comparable(records: Sequence[Record], name: str) -> list[Record]:
    """The jobs that are done and have been measured by this, all in the same way."""
    measured = [r for r in records if r.state == DONE and value_of(r, name) is not None]
    odd = {job for job, _ in _measured_otherwise(measured, name)}
    return [record for record in measured if record.name not in odd]


def not_compared(records: Sequence[Record]) -> list[str]:
    """A sentence for each metric and reason for which jobs are left out of all comparisons."""
    done = [record for record in records if record.state == DONE]
    lines = []
    for name in dict.fromkeys([VALIDATION, *(name for record in done for name in metrics_of(record))]):
        of = [record for record in done if name in {**record.results, **metrics_of(record)}]
        reasons: dict[str, list[str]] = {}
        for record in of:
            if value_of(record, name) is None:
                reasons.setdefault("is not a finite number", []).append(record.name)
        for job, why in _measured_otherwise([r for r in of if value_of(r, name) is not None], name):
            reasons.setdefault(f"{why}; measure them again in one way", []).append(job)
        lines += [f"{name} of {_some(jobs)} {why}; it is not compared." for why, jobs in reasons.items()]
    return lines


def _measured_otherwise(measured: Sequence[Record], name: str) -> Iterator[tuple[str, str]]:
    """(job, how its figure came about, unlike that of most): by the network, then by its dataset's references."""
    left = []
    usual = _most(measured, lambda record: _of(record, name, "network"))
    for record in measured:
        by = _of(record, name, "network")
        if by == usual:
            left.append(record)
        else:
            yield record.name, f"was measured by {by or 'no network'}, that of most by {usual or 'none'}"
    for dataset in dict.fromkeys(record.dataset for record in left):
        here = [record for record in left if record.dataset == dataset]
        theirs = _most(here, lambda record: _of(record, name, "references"))
        for record in here:
            if _of(record, name, "references") != theirs:
                yield record.name, f"was measured against other references than that of most on {dataset}"


def _most(records: Sequence[Record], of: Callable[[Record], str]) -> str:
    """The commonest; of equally common ones the first."""
    counted = Counter(map(of, records)).most_common(1)
    return counted[0][0] if counted else ""


def _of(record: Record, name: str, what: str) -> str:
    return metrics_of(record).get(name, {}).get(what, "")


def _some(jobs: Sequence[str]) -> str:
    return jobs[0] if len(jobs) == 1 else f"{jobs[0]} and {len(jobs) - 1} more"
