"""One golden figure beside ours: equal within a tolerance, or different on purpose, with the reason."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass
class Comparison:
    """Figures of one kind. `relative` and `absolute` bound the difference of numbers; everything else is exact."""

    figures: str  # what is compared, for people
    relative: float = 0.0
    absolute: float = 0.0
    equal: int = 0
    different: Counter[str] = field(default_factory=Counter)
    """Deliberate differences: reason -> how many figures."""
    unexplained: list[str] = field(default_factory=list)
    """Figures that differ without a reason, and those that agree in spite of one: each is a failure."""

    def add(self, name: str, ours: Any, theirs: Any, because: str | None = None) -> None:
        """Compare one figure. `because`: why ours is another one, on purpose; then it must be another one."""
        same = agree(ours, theirs, self.relative, self.absolute)
        if same and because is None:
            self.equal += 1
        elif not same and because is not None:
            self.different[because] += 1
        else:
            what = "agree, but a reason is given why they do not" if same else "differ"
            self.unexplained.append(f"{name}: ours {ours!r} and theirs {theirs!r} {what}")

    @property
    def tolerance(self) -> str:
        bounds = [f"{self.relative:g} relative"] if self.relative else []
        bounds += [f"{self.absolute:g} absolute"] if self.absolute else []
        return ", ".join(bounds) or "exact"

    @property
    def count(self) -> int:
        return self.equal + self.different.total() + len(self.unexplained)


def read_golden(file: str, folder: Path = GOLDEN) -> Any:
    """The content of a golden file, packed or not; None where the folder has no such file."""
    stem = file.split(".")[0]
    for path in (folder / f"{stem}.json.gz", folder / f"{stem}.json"):
        if path.is_file():
            return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    return None


def agree(ours: Any, theirs: Any, relative: float = 0.0, absolute: float = 0.0) -> bool:
    """Whether two figures are equal: numbers within the bounds, lists and tables part by part."""
    if isinstance(theirs, str) and theirs in ("inf", "-inf", "nan") and isinstance(ours, float):
        theirs = float(theirs)
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(
            agree(a, b, relative, absolute) for a, b in zip(ours, theirs, strict=True)
        )
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(agree(ours[k], theirs[k], relative, absolute) for k in theirs)
    if isinstance(ours, float) or isinstance(theirs, float):
        if not isinstance(ours, (int, float)) or not isinstance(theirs, (int, float)):
            return False
        if math.isnan(theirs):
            return math.isnan(ours)
        return math.isclose(ours, theirs, rel_tol=relative, abs_tol=absolute)
    return ours == theirs
