"""All that one call of evaluate.py has found, as JSON and as a table for the terminal."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from library.formatting import aligned
from library.metrics.against import MetricDifference
from library.metrics.copying import Copying
from library.metrics.figures import NOT_COMPARABLE, MetricFigure, finite
from library.metrics.pixels import PixelFindings
from library.metrics.request import Request

PACKAGES = ("torch", "transformers", "numpy", "scipy", "pillow", "opencv-python-headless")
FEW_PROMPTS = 8


@dataclass
class Evaluation:
    """Figures in the order that they were asked for, and what was found beside them."""

    request: Request
    figures: list[MetricFigure]
    copying: Copying | None = None
    pixels: PixelFindings | None = None
    differences: list[MetricDifference] = field(default_factory=list)
    against: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Version 1 of the format: metrics by name, a row of values for each picture, versions."""
        facts: dict[str, Any] = {
            "version": 1,
            "generated": _folder([asked.path for asked in self.request.generated]),
            "reference": _folder(self.request.references),
            "prompts": len({asked.prompt for asked in self.request.generated if asked.prompt}),
            "metrics": {figure.metric.name: figure.as_json() for figure in self.figures},
            "pictures": [self._row(index) for index in range(len(self.request.generated))],
            "versions": versions(),
        }
        if self.pixels is not None:
            facts["pixels"] = self.pixels.as_json()
        if self.copying is not None:
            facts["copying"] = {
                "network": self.copying.network,
                "among_references": self.copying.among_references,
                "pictures": [asdict(one) for one in self.copying.pictures],
            }
        if self.against is not None:
            facts["against"] = {
                "file": str(self.against),
                "metrics": {
                    one.metric: {
                        "difference": one.difference.value,
                        "interval": [one.difference.low, one.difference.high],
                        "n": one.difference.n,
                        "p": one.difference.p,
                        "holm_p": one.adjusted_p,
                        "verdict": one.verdict,
                    }
                    for one in self.differences
                },
            }
        return facts

    def _row(self, index: int) -> dict[str, Any]:
        from library.files import file_hash

        asked = self.request.generated[index]
        row: dict[str, Any] = {"file": asked.path.name, "sha256": file_hash(asked.path)}
        if asked.prompt:
            row["prompt"] = asked.prompt
        return row | {f.metric.name: finite(f.each[asked.path.name]) for f in self.figures if asked.path.name in f.each}

    def as_text(self) -> str:
        """Tables and lines for people."""
        parts = [figure_table(self.figures)] if any(figure.value is not None for figure in self.figures) else []
        if self.pixels is not None:
            parts.append(self.pixels.as_text())
        if self.copying is not None:
            parts.append(copying_lines(self.copying))
        if self.against is not None:
            parts.append(difference_table(self.differences, self.against))
        parts.append("\n".join(figure.line for figure in self.figures if figure.value is None))
        return "\n\n".join(part for part in parts if part)


def _folder(pictures: Sequence[Path]) -> dict[str, Any]:
    return {"folder": str(pictures[0].parent), "pictures": len(pictures)} if pictures else {"pictures": 0}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def figure_table(figures: Sequence[MetricFigure]) -> str:
    rows = [
        ["metric", "value", "95 % interval", "pictures", "prompts", "network and its hash", "seconds", "preprocessing"]
    ]
    notes = []
    for figure in figures:
        if figure.value is None:
            continue
        arrow = "(higher is better)" if figure.metric.better == "higher" else "(lower is better)"
        networks = ", ".join(f"{facts['name']} {facts['sha256'][:8]}" for facts in figure.weights.values()) or "-"
        rows.append(
            [
                f"{figure.metric.name} {arrow}",
                number(figure.value),
                _interval(figure),
                str(figure.n_pictures),
                str(figure.n_prompts or "-"),
                networks,
                f"{figure.seconds:.1f}",
                figure.preprocessing,
            ]
        )
        if figure.note:
            notes.append(f"{figure.metric.name}: {figure.note}")
    measured = [figure for figure in figures if figure.interval]
    if measured and max(figure.n_prompts for figure in measured) < FEW_PROMPTS:
        notes.append(f"fewer than {FEW_PROMPTS} prompts: intervals are wide, and hold only if the prompts are typical")
    return "\n".join([aligned(rows), *notes])


def _interval(figure: MetricFigure) -> str:
    if figure.note == NOT_COMPARABLE:
        return NOT_COMPARABLE
    if figure.interval:
        return f"{number(figure.interval[0])} to {number(figure.interval[1])}"
    return f"p {chance(figure.p)}" if figure.p is not None else "-"


def number(value: float) -> str:
    """Four digits; what is larger, to the whole number."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def chance(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.0005 else "< 0.001"


def copying_lines(copying: Copying, shown: int = 3) -> str:
    among = "" if copying.among_references is None else f" (two references: at most {copying.among_references:.3f})"
    lines = [f"nearest references, cosines of {copying.network}{among}"]
    lines += [f"  {one.file} ~ {one.reference}  {one.cosine:.3f}" for one in copying.pictures[:shown]]
    if count := len(copying.suspects):
        those = f"{count} of {len(copying.pictures)} pictures {'is' if count == 1 else 'are'}"
        copies = "a copy?" if count == 1 else "copies?"
        lines.append(f"  {those} more like a reference than any two references are like each other: {copies}")
    return "\n".join(lines)


def difference_table(differences: Sequence[MetricDifference], against: Path) -> str:
    if not differences:
        return f"nothing to compare with {against}: no metric of pictures was measured on the same prompts in both"
    rows = [["metric", f"less {against.name}", "95 % interval", "prompts", "Holm's p", "is"]]
    for one in differences:
        low, high, p = one.difference.low, one.difference.high, one.adjusted_p
        interval = "-" if low is None or high is None else f"{number(low)} to {number(high)}"
        shown = "-" if p is None else chance(p)
        rows.append([one.metric, number(one.difference.value), interval, str(one.difference.n), shown, one.verdict])
    return aligned(rows)
