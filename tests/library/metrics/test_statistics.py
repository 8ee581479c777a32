"""What fifteen pictures can say: coverage by simulation, known tests, and floors."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from library.metrics.distances import frechet_distance, kernel_distance
from library.metrics.statistics import (
    by_prompt,
    frechet_at_equal_n,
    holm,
    paired_difference,
    permutation_p,
    t_interval,
)


def test_intervals_hold_the_truth_in_95_of_100_sets_of_15():
    rng = np.random.default_rng(0)
    # Differences of cosines per prompt: a normal law with a few prompts that matter more.
    sets = rng.normal(size=(2000, 15)) + 0.5 * rng.standard_t(5, size=(2000, 15)) + 0.3
    intervals = [t_interval(row) for row in sets]
    covered = np.mean([one.low <= 0.3 <= one.high for one in intervals if one.low is not None and one.high is not None])
    assert 0.93 <= covered <= 0.97


def test_the_interval_and_its_p_are_scipys():
    values = [0.1, 0.4, -0.2, 0.35, 0.3]
    mean = t_interval(values)
    test: Any = stats.ttest_1samp(values, 0.0)
    low, high = test.confidence_interval(0.95)
    assert (mean.low, mean.high, mean.p) == pytest.approx((low, high, test.pvalue))


def test_one_value_has_no_interval_and_equal_values_one_of_no_width():
    assert t_interval([0.5]).low is None
    same = t_interval([0.5, 0.5, 0.5])
    assert (same.low, same.high, same.p) == (0.5, 0.5, 0.0)
    assert t_interval([0.0, 0.0]).p == 1.0


def test_pictures_of_one_prompt_count_once():
    assert by_prompt([1.0, 3.0, 5.0], ["cat", "cat", "dog"]) == {"cat": 2.0, "dog": 5.0}


def test_differences_are_over_the_prompts_that_both_have():
    difference = paired_difference({"cat": 2.0, "dog": 5.0, "cow": 1.0}, {"dog": 4.0, "cat": 1.5, "owl": 9.0})
    assert difference is not None
    assert (difference.value, difference.n) == (0.75, 2)
    assert paired_difference({"cat": 1.0}, {"dog": 1.0}) is None


def test_holm_adjusts_as_in_his_paper():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_permutation_test_is_the_share_of_all_divisions():
    rng = np.random.default_rng(3)
    pooled = rng.normal(size=(7, 4))
    pooled[:3] += 0.8
    here = kernel_distance(pooled[:3], pooled[3:])
    divisions = [list(chosen) for chosen in combinations(range(7), 3)]
    as_large = [kernel_distance(pooled[c], np.delete(pooled, c, axis=0)) >= here - 1e-12 for c in divisions]
    assert permutation_p(pooled[:3], pooled[3:], 4000) == pytest.approx(np.mean(as_large), abs=0.03)


def test_the_permutation_test_finds_a_shift_and_is_uniform_without_one():
    rng = np.random.default_rng(0)
    shifted = permutation_p(rng.normal(size=(15, 8)) + 1.0, rng.normal(size=(15, 8)), 199)
    assert shifted == pytest.approx(1 / 200)
    by_chance = [permutation_p(rng.normal(size=(10, 8)), rng.normal(size=(12, 8)), 99) for _ in range(200)]
    assert np.mean([p <= 0.05 for p in by_chance]) <= 0.09
    assert np.mean(by_chance) == pytest.approx(0.5, abs=0.06)


def test_frechet_distances_are_compared_at_one_number_of_pictures():
    rng = np.random.default_rng(0)
    references, same, other = (rng.normal(size=(n, 16)) for n in (20, 30, 12))
    found = frechet_at_equal_n(same, references, other + 2)
    assert found is not None
    assert found.n == 10
    assert found.generated == pytest.approx(found.halves, rel=0.3)
    assert found.base is not None
    assert found.base > found.generated + 16 * 2
    assert frechet_at_equal_n(same, references[:3]) is None


def test_a_few_pictures_beside_large_sets_are_measured_with_as_few_of_those():
    rng = np.random.default_rng(0)
    few, references, many = (rng.normal(size=(n, 16)) for n in (8, 400, 300))
    found = frechet_at_equal_n(few, references, many, splits=100)
    assert found is not None
    assert found.base is not None
    assert found.n == 8
    of_eight = np.mean([frechet_distance(*rng.normal(size=(2, 8, 16))) for _ in range(400)])
    assert (found.halves, found.base) == pytest.approx((of_eight, of_eight), rel=0.05)
    assert found.generated == pytest.approx(of_eight, rel=0.2)  # one sample of 8, against many
