"""One model against another on the same prompts: differences per prompt, which is what few pictures can tell."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.errors import ConfigError, UserError
from library.metrics.evidence import Evidence
from library.metrics.figures import MetricFigure, unit_of
from library.metrics.prompts import PromptedPicture
from library.metrics.statistics import Mean, by_prompt, holm, paired_difference, verdict
from library.metrics.weight_files import weight_facts


@dataclass(frozen=True)
class MetricDifference:
    """Of one metric: ours less theirs, over `difference.n` prompts; `adjusted_p` by Holm over all metrics compared."""

    metric: str
    better: str
    difference: Mean
    adjusted_p: float | None

    @property
    def verdict(self) -> str:
        return verdict(self.difference, self.adjusted_p, higher_is_better=self.better == "higher")


def read_evaluation(path: Path) -> dict[str, Any]:
    """What an earlier call of evaluate.py wrote. Raises ConfigError where it is something else."""
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(other["metrics"], dict) and isinstance(other["pictures"], list)):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        text = f"`--against`: {path} was not written by evaluate.py; give the JSON of another model"
        raise ConfigError(text) from None
    return other


def refuse_unlike(evidence: Evidence, other: dict[str, Any], path: Path) -> None:
    """Raise ConfigError where a metric that both have was measured there with another network, or against other
    references: their difference would be one of the yardsticks. Known before anything is measured."""
    unlike = []
    for metric in evidence.request.metrics:
        facts = other["metrics"].get(metric.name, {})
        if metric.of_sets or "value" not in facts or evidence.request.reason(metric) is not None:
            continue
        try:
            ours = _hashes({name: weight_facts(evidence.path(name)) for name in metric.needs})
        except UserError:
            continue  # weights that cannot be read: reported where they would be used
        theirs = _hashes(facts.get("weights", {}))
        if ours != theirs:
            unlike.append(
                f"{metric.name} was measured there with {_named(theirs)}, and here it would be {_named(ours)}"
            )
        elif evidence.references_of(metric) and "references" not in facts:
            unlike.append(f"{metric.name} was measured there by a version that did not note its references")
        elif facts.get("references", "") != evidence.references_of(metric):
            unlike.append(f"{metric.name} was measured there against other references than those of `--reference`")
    if unlike:
        raise ConfigError(
            f"`--against`: {path} cannot be compared with: {'; '.join(unlike)}; measure both with the same weights and "
            "references, or leave these out of `--metrics`"
        )


def compare(
    figures: Sequence[MetricFigure], asked: Sequence[PromptedPicture], other: dict[str, Any]
) -> list[MetricDifference]:
    """Every metric of single pictures that both have, over the prompts that both have."""
    units = {one.path.name: unit_of(one) for one in asked}
    found: list[tuple[MetricFigure, Mean]] = []
    for figure in figures:
        if not figure.each:
            continue
        each = {name: value for name, value in figure.each.items() if math.isfinite(value)}
        ours = by_prompt(list(each.values()), [units[name] for name in each])
        rows = [row for row in other["pictures"] if _is_finite(row.get(figure.metric.name))]
        theirs = by_prompt(
            [float(row[figure.metric.name]) for row in rows],
            [unit_of(PromptedPicture(Path(row["file"]), row.get("prompt"))) for row in rows],
        )
        difference = paired_difference(ours, theirs)
        if difference is not None:
            found.append((figure, difference))
    adjusted = iter(holm([mean.p for _, mean in found if mean.p is not None]))
    return [
        MetricDifference(figure.metric.name, figure.metric.better, mean, None if mean.p is None else next(adjusted))
        for figure, mean in found
    ]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _hashes(weights: dict[str, Any]) -> dict[str, str]:
    return {name: facts["sha256"] for name, facts in weights.items()}


def _named(hashes: dict[str, str]) -> str:
    return ", ".join(f"{name} {sha256[:8]}" for name, sha256 in sorted(hashes.items())) or "no network"
