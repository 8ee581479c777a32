"""Has the run learnt, or only remembered? The course of the held-out loss, and what can be concluded at the end.

The step with the lowest loss is chosen among many, and chance helps to choose it: its own pictures would call a run
overfitted that only goes up and down. So the pictures are parted in two halves, each half is judged at the step that
the other half chose, and a difference counts only where its interval leaves 0 out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HALVES = (0, 1)


@dataclass
class Choice:
    """The step at which one half of the pictures had its lowest mean loss, and the other half's losses there."""

    step: int = 0
    mean: float = math.inf
    others: list[float] = field(default_factory=list)


@dataclass
class Course:
    """The held-out loss so far; steps are optimizer steps done.

    `pictures` are the ids of those that are measured, and `last_losses` their newest losses, in the same order.
    `since_lowest` counts the measurements since the lowest mean.
    """

    step: int = 0
    loss: float = math.inf
    last_step: int = 0
    last_loss: float = math.inf
    measurements: int = 0
    since_lowest: int = 0
    pictures: list[str] = field(default_factory=list)
    last_losses: list[float] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=lambda: [Choice() for _ in HALVES])

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """A measurement after `step`: the loss of each of `pictures`."""
        self.last_step, self.last_losses = step, [losses[name] for name in self.pictures]
        self.last_loss = mean(self.last_losses)
        self.measurements += 1
        self.since_lowest += 1
        if self.last_loss < self.loss:
            self.step, self.loss, self.since_lowest = step, self.last_loss, 0
        for half, choice in enumerate(self.choices):
            mine, others = self.last_losses[half::2], self.last_losses[1 - half :: 2]
            if mine and mean(mine) < choice.mean:
                self.choices[half] = Choice(step, mean(mine), others)

    @property
    def is_lowest_now(self) -> bool:
        return self.measurements > 0 and self.since_lowest == 0

    @property
    def choices_agree(self) -> bool:
        """Whether both halves chose the step that all pictures together did."""
        return all(choice.step == self.step for choice in self.choices)

    def differences(self) -> list[float]:
        """By how much each picture's loss has grown since the step that the other half of the pictures chose."""
        if len(self.pictures) < 2:
            return [self.last_loss - self.loss]
        grown = [math.nan] * len(self.pictures)
        for half, choice in enumerate(self.choices):
            newest = self.last_losses[1 - half :: 2]
            if choice.others:  # none where no loss of its half was finite
                grown[1 - half :: 2] = [now - then for now, then in zip(newest, choice.others, strict=True)]
        return grown

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Course:
        """The course that `state_dict` gave; of an older state, what it knew."""
        known = dict(state)
        known["choices"] = [Choice(**choice) for choice in known.get("choices", ())] or [Choice() for _ in HALVES]
        return cls(**known)


@dataclass(frozen=True)
class Verdict:
    """The sentence on a course. `difference` is by how much the loss has grown since its best step, on average."""

    sentence: str
    best_step: int
    best_loss: float
    last_step: int
    last_loss: float
    difference: float
    interval: tuple[float, float] | None
    overfitted: bool


def judge(course: Course, kept: str | None = None) -> Verdict | None:
    """The verdict on a course of at least two measurements; `kept` is the file of its best step, if there is one."""
    if course.measurements < 2:
        return None
    differences = course.differences()
    difference, interval = mean(differences), paired_interval(differences)
    rises = not course.is_lowest_now
    overfitted = rises and interval is not None and interval[0] > 0
    return Verdict(
        sentence=_sentence(course, difference, interval, overfitted)
        + (f"; {kept} is step {course.step}" if kept else ""),
        best_step=course.step,
        best_loss=course.loss,
        last_step=course.last_step,
        last_loss=course.last_loss,
        difference=difference,
        interval=interval,
        overfitted=overfitted,
    )


def _sentence(course: Course, difference: float, interval: tuple[float, float] | None, overfitted: bool) -> str:
    last = f"{course.last_loss:.4f} at step {course.last_step}"
    if course.is_lowest_now:
        return f"not overfitted: the held-out loss is lowest at the end, {last}"
    course_of_it = f"held-out loss {course.loss:.4f} at step {course.step}, {last}"
    if interval is None:
        why = "from one held-out picture" if len(course.pictures) < 2 else "where losses are not finite"
        return f"whether it overfitted cannot be told {why}: {course_of_it}"
    number = f"{difference:+.4f}, 95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}"
    if not course.choices_agree:
        number += ", each half of the pictures judged where the other half was lowest"
    if overfitted:
        return f"overfitted since step {course.step}: {course_of_it} ({number})"
    return f"no overfitting can be told on {len(course.pictures)} pictures: {course_of_it} ({number})"


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def paired_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of paired differences; None where there are not two, or one is not finite."""
    from library.metrics.statistics import t_interval  # what it needs is needed once, at the end of a run

    found = t_interval(differences)
    return None if found.low is None or found.high is None else (found.low, found.high)
