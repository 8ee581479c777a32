"""Questions to the mini model: prompts that say all that they ask, and drawings of the same content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from miniworld.captions import describe
from miniworld.facts import Facts
from miniworld.scenes import Scene, imagine, paint

COUNTS: dict[str, int] = {"shape": 60, "object": 50, "face": 50, "named": 40}
SEED = 20_000
ASKED: dict[str, tuple[str, ...]] = {
    "shape": ("colour", "shape", "background"),
    "object": ("colour", "object", "place", "background"),
    "face": (
        *("gender", "skin", "hair_style", "hair_colour", "eye_colour", "glasses", "beard", "expression", "hat"),
        "background",
    ),
    "named": ("name", "expression", "hat", "background"),
}
"""What a prompt of each kind says. A neutral face and one without glasses, beard or hat are asked by saying nothing."""


@dataclass(frozen=True)
class Question:
    prompt: str
    asked: dict[str, str]
    """Head of the judge -> right answer."""
    drawing: np.ndarray
    """(128, 128, 3) uint8: a picture of what is asked."""


class _Talkative:
    """Stands in for a random generator: nothing is left unsaid, and glasses are told with their form."""

    def random(self) -> float:
        return 1.0


def questions(counts: dict[str, int] | None = None, seed: int = SEED) -> list[Question]:
    """The same questions every time, from a seed of their own that no pretraining picture comes from."""
    asked = []
    for kind, count in (counts or COUNTS).items():
        rng = np.random.default_rng([seed, *kind.encode()])
        asked += [_question(rng, imagine(rng, kind)) for _ in range(count)]
    return asked


def _question(rng: np.random.Generator, scene: Scene) -> Question:
    return Question(prompt(scene.facts), asked(scene.facts), paint(rng, scene).image)


def prompt(facts: Facts) -> str:
    """A photo of all that is told."""
    talkative: Any = _Talkative()
    return f"a photo of {describe(talkative, facts)}"


def asked(facts: Facts) -> dict[str, str]:
    """The right answers to what the prompt of these facts says."""
    return {head: answer for head in ASKED[facts.kind] if (answer := getattr(facts, head)) is not None}
