"""What n pictures can say: `python -m tests.benchmarks.few_pictures` prints the figures of docs/metrics.md.

Features are drawn from a normal law of 2048 dimensions with variances 1/i and trace 1, as those of Inception roughly
are: so the truth is known. How far are two samples of the same law? What does a bootstrap of FID say? How often does
the permutation test of KID find a shift? How often does an interval over 15 prompts hold the truth?
"""

from __future__ import annotations

import argparse

import numpy as np

from library.metrics.distances import frechet_distance, kernel_distance
from library.metrics.statistics import permutation_p, t_interval

DIMENSIONS = 2048
SIZES = {15: 20, 32: 20, 100: 10, 2000: 1}
"""Numbers of pictures, and how often each is tried."""
SHIFT = 0.05
"""How far the mean of the shifted law lies, in a random direction: in units of the law's overall deviation."""
DEVIATIONS = np.sqrt(1 / np.arange(1, DIMENSIONS + 1) / (1 / np.arange(1, DIMENSIONS + 1)).sum())


def sample(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((n, DIMENSIONS)) * DEVIATIONS


def shift(rng: np.random.Generator) -> np.ndarray:
    """A mean whose squared length is `SHIFT` of the trace."""
    direction = rng.standard_normal(DIMENSIONS)
    return direction * (SHIFT**0.5 / np.linalg.norm(direction))


def bootstrap(features: np.ndarray, others: np.ndarray, rng: np.random.Generator, times: int = 200) -> np.ndarray:
    """FID of resampled pictures: its 2.5 % and 97.5 % quantiles, which is what must not be done."""

    def resampled(rows: np.ndarray) -> np.ndarray:
        return rows[rng.integers(0, len(rows), len(rows))]

    found = [frechet_distance(resampled(features), resampled(others)) for _ in range(times)]
    return np.quantile(found, (0.025, 0.975))


def coverage(rng: np.random.Generator, sets: int = 2000, prompts: int = 15) -> tuple[float, float]:
    """How often a t interval and a percentile bootstrap of 200 hold the truth: differences of 15 prompts."""
    held = np.zeros(2)
    for _ in range(sets):
        values = rng.standard_normal(prompts) + 0.5 * rng.standard_t(5, prompts)
        mean = t_interval(values.tolist())
        low, high = np.quantile(values[rng.integers(0, prompts, (200, prompts))].mean(1), (0.025, 0.975))
        held += [mean.low is not None and mean.high is not None and mean.low <= 0 <= mean.high, low <= 0 <= high]
    return float(held[0] / sets), float(held[1] / sets)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = np.random.default_rng(0)
    print("| n | FID of the same law | 1000 KID of the same law | KID finds the shift (p <= 0.05) |\n|---|---|---|---|")
    for n, times in SIZES.items():
        same = [(sample(n, rng), sample(n, rng)) for _ in range(times)]
        frechet = np.mean([frechet_distance(*pair) for pair in same])
        kid = 1000 * np.mean([kernel_distance(*pair) for pair in same])
        found = ""
        if n <= 100:
            hits = [permutation_p(sample(n, rng), sample(n, rng) + shift(rng), 199) <= 0.05 for _ in range(20)]
            found = f"{sum(hits)} of 20"
        print(f"| {n} | {frechet:.2f} | {kid:.3f} | {found} |", flush=True)
    outside = 0
    for _ in range(20):
        pair = sample(15, rng), sample(15, rng)
        low, high = bootstrap(*pair, rng)
        outside += not low <= frechet_distance(*pair) <= high
    print(f"bootstrap of FID at n = 15: its 95 % interval does not hold the figure itself in {outside} of 20 sets")
    student, percentile = coverage(rng)
    print(f"15 prompts, 2,000 sets: t intervals hold the truth in {student:.1%}, bootstraps in {percentile:.1%}")


if __name__ == "__main__":
    main()
