"""What a few pictures can say: intervals, tests and floors, as pure functions in float64.

Never a bootstrap of FID: at 15 pictures its "95 %" interval does not even contain the figure itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from library.metrics.distances import Features, frechet_distance, polynomial_kernel

PERMUTATIONS = 999
SPLITS = 20
ALPHA = 0.05


@dataclass(frozen=True)
class Mean:
    """A mean with its t interval; `low` and `high` are None for a single value. `p`: two-sided, that it is 0."""

    value: float
    low: float | None
    high: float | None
    n: int
    p: float | None


def t_interval(values: Sequence[float], level: float = 0.95) -> Mean:
    """Student's interval of a mean over independent values, such as one for each prompt."""
    sample = np.asarray(values, np.float64)
    n, mean = len(sample), float(sample.mean())
    if n < 2 or not np.isfinite(mean):  # the PSNR of identical pictures is infinite
        return Mean(mean, None, None, n, None)
    error = float(sample.std(ddof=1) / np.sqrt(n))
    half = float(student.ppf((1 + level) / 2, n - 1)) * error
    p = float(2 * student.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return Mean(mean, mean - half, mean + half, n, p)


def verdict(difference: Mean, adjusted_p: float | None, *, higher_is_better: bool) -> str:
    """A difference in words; `adjusted_p` is that of all differences which are shown together, None for only one."""
    if difference.low is None or difference.high is None:
        return "one pair: no interval"
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    if adjusted_p is not None and adjusted_p >= ALPHA:
        return "may be chance among so many"
    return "better" if (difference.low > 0) == higher_is_better else "worse"


def by_prompt(values: Sequence[float], prompts: Sequence[str]) -> dict[str, float]:
    """The mean of each prompt's pictures: pictures of one prompt are not independent of each other."""
    found: dict[str, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        found.setdefault(prompt, []).append(value)
    return {prompt: float(np.mean(group)) for prompt, group in found.items()}


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Mean | None:
    """Ours less theirs over the prompts that both have, with its interval; None where they share none."""
    shared = [prompt for prompt in ours if prompt in theirs]
    return t_interval([ours[prompt] - theirs[prompt] for prompt in shared]) if shared else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p of several tests: below 0.05, fewer than 1 in 20 tables has a false finding."""
    order = np.argsort(p_values)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def permutation_p(features: Features, others: Features, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """How often KID is as large as here when it is left to chance which picture is in which set.

    The share of that among random divisions of all pictures, this one included; (1 + permutations)^-1 at the least.
    """
    m = len(features)
    pooled = np.concatenate([np.asarray(features, np.float64), np.asarray(others, np.float64)])
    kernel, total = polynomial_kernel(pooled, pooled), len(pooled)
    diagonal = np.diag(kernel)
    rng = np.random.default_rng(seed)
    inside = np.zeros((permutations + 1, total))
    inside[0, :m] = 1
    for row in inside[1:]:
        row[rng.permutation(total)[:m]] = 1
    outside = 1 - inside
    within = ((inside @ kernel) * inside).sum(1) - inside @ diagonal
    beyond = ((outside @ kernel) * outside).sum(1) - outside @ diagonal
    between = ((inside @ kernel) * outside).sum(1)
    n = total - m
    distances = within / (m * (m - 1)) + beyond / (n * (n - 1)) - 2 * between / (m * n)
    # What rounding alone makes smaller than the figure itself still counts as being as large.
    return float((distances >= distances[0] - 1e-12 * np.abs(distances).max()).mean())


@dataclass(frozen=True)
class EqualFrechet:
    """Fréchet distances at one number of pictures on both sides, each the mean over random splits of the references.

    `halves`: one half of the references from the other, what FID is when nothing differs. `base`: of the base model.
    """

    n: int
    generated: float
    halves: float
    base: float | None


def frechet_at_equal_n(
    generated: Features, references: Features, base: Features | None = None, splits: int = SPLITS, seed: int = 0
) -> EqualFrechet | None:
    """FID depends on how many pictures there are, so all of them are measured with as many as half of the references.

    None where that would be fewer than 2 pictures.
    """
    sets = [np.asarray(rows, np.float64) for rows in (generated, base) if rows is not None]
    everything = np.asarray(references, np.float64)
    n = min(len(everything) // 2, *(len(rows) for rows in sets))
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    found: list[list[float]] = []
    for _ in range(splits):
        order = rng.permutation(len(everything))
        half, other = everything[order[:n]], everything[order[n : 2 * n]]
        drawn = [rows[rng.permutation(len(rows))[:n]] for rows in sets]
        found.append([frechet_distance(rows, half) for rows in (other, *drawn)])
    means = np.mean(found, axis=0)
    return EqualFrechet(n, float(means[1]), float(means[0]), float(means[2]) if base is not None else None)
