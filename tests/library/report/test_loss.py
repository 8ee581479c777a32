"""The course of a noisy loss, lines with fewer points that look the same, and which moments are shown."""

from __future__ import annotations

import numpy as np
import pytest

from library.report.figures import thinned
from library.report.loss import course_of, distinct
from library.report.strips import chosen


def test_the_course_of_a_straight_line_is_that_line_inside_and_of_a_constant_everywhere():
    x = np.arange(1.0, 301.0)
    places, course = course_of(x, 2 * x)
    inside = slice(20, -20)
    assert course[inside] == pytest.approx(2 * places[inside], rel=1e-9)
    assert course_of(x, np.full(300, 0.25))[1] == pytest.approx(0.25, rel=1e-12)


def test_the_course_takes_the_noise_away():
    x = np.arange(5000.0)
    noise = np.random.default_rng(0).normal(0, 1, 5000)
    places, course = course_of(x, 3 + noise)
    assert len(places) == 2000
    assert np.abs(course - 3).max() < 0.25
    assert course.std() < 0.1


def test_a_thinned_line_keeps_its_ends_and_every_peak_and_dip():
    x = np.arange(100_000.0)
    y = np.sin(x / 5000)
    y[[31_234, 77_777]] = 9, -9
    places, values = thinned(x, y, 1200)
    assert len(places) <= 1200
    assert (places[0], places[-1]) == (0, 99_999)
    assert {31_234.0, 77_777.0} <= set(places)
    assert (np.diff(places) > 0).all()
    assert values.tolist() == y[places.astype(int)].tolist()


def test_rates_that_are_the_same_are_one_line_under_both_names():
    same = np.array([1.0, 2.0])
    assert list(distinct({"unet": same, "text": same + 1, "embedding": same.copy()})) == ["unet, embedding", "text"]


def test_of_many_moments_first_last_and_best_are_shown_and_more_of_the_early_ones():
    steps = list(range(0, 1001, 10))
    shown = chosen(steps, 10, best=733)
    assert len(shown) == 10
    assert {0, 730, 1000} <= set(shown)
    assert len([step for step in shown if step < 300]) > len([step for step in shown if step > 700])
    assert chosen(steps[:5], 10, None) == steps[:5]
