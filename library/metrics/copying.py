"""Whether pictures are copies: the reference that is most like each, beside how alike the references are themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from library.metrics.distances import nearest, nearest_among_themselves
from library.metrics.evidence import Evidence
from library.metrics.figures import MetricFigure

LOOKED_AT_WITH = ("dinov2", "dino", "clip_i")


@dataclass(frozen=True)
class MostAlike:
    """A picture, the reference most like it, and their cosine."""

    file: str
    reference: str
    cosine: float


@dataclass(frozen=True)
class Copying:
    """The pictures, most alike first. `among_references`: the highest cosine of two different references."""

    network: str
    pictures: list[MostAlike]
    among_references: float | None

    @property
    def suspects(self) -> list[MostAlike]:
        """Pictures that are more like a reference than any two references are like each other."""
        limit = 1.0 if self.among_references is None else self.among_references
        return [one for one in self.pictures if one.cosine > limit]


def look_for_copies(evidence: Evidence, figures: list[MetricFigure]) -> Copying | None:
    """With the best of the networks that have measured likeness to the references; None where none has."""
    measured = [figure.metric for figure in figures if figure.value is not None and not figure.metric.of_sets]
    by_name = {metric.name: metric.needs[0] for metric in measured if metric.name in LOOKED_AT_WITH}
    own = [metric.name for metric in measured if metric.name in evidence.request.weights.own]
    chosen = [by_name[name] for name in LOOKED_AT_WITH if name in by_name] + own
    if not chosen:
        return None
    network = evidence.images(chosen[0])
    seen, references = evidence.see(network, evidence.generated), evidence.see(network, evidence.references)
    which, cosines = nearest(seen, references)
    pictures = [
        MostAlike(path.name, evidence.references[index].name, float(cosine))
        for path, index, cosine in zip(evidence.generated, which, cosines, strict=True)
    ]
    among = float(np.max(nearest_among_themselves(references))) if len(references) > 1 else None
    return Copying(chosen[0], sorted(pictures, key=lambda one: -one.cosine), among)
