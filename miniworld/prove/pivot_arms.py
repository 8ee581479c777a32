"""What an arm of `prove dual_pivot` is: one way of restoring, and how long its pivots are tuned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PivotArm:
    """One way of restoring: which G, which E, and how eq. 8 is run."""

    row: str
    told: str
    unet: str = "in context"
    """"pretrained", "out of context" (eq. 5) or "in context" (eq. 6)."""
    encoder: str = "pretrained"
    """Or the G around which it was tuned (eq. 7), one of the above."""
    high_noise_text: str = "prompt"
    """What G read at high noise levels while E was tuned."""
    of_another: bool = False
    """E was tuned on the next person of the list."""
    share: float = 1.0
    """Of the steps of step 2."""
    gamma: float = 0.5
    w: float = 1.0
    names_the_person: bool = True
    """Or G is told the class alone: "a photo of a woman"."""


@dataclass(frozen=True)
class Lengths:
    """Steps and learning rates of the two pivots, and the damage that is trained and restored."""

    text_steps: int = 120
    model_steps: int = 64
    text_rate: float = 2e-4
    model_rate: float = 2e-4
    batch: int = 4
    damage: str = "hard"
