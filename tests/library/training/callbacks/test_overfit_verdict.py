"""What is said of a held-out loss, and how often it is said for nothing."""

import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from library.training.callbacks.overfit_verdict import Course, Verdict, judge, paired_interval


def course_of(*measurements: tuple[int, list[float]]) -> Course:
    course = Course(pictures=[str(i) for i in range(len(measurements[0][1]))])
    for step, losses in measurements:
        course.add(step, {str(i): loss for i, loss in enumerate(losses)})
    return course


def verdict_on(*measurements: tuple[int, list[float]], kept: str | None = None) -> Verdict:
    verdict = judge(course_of(*measurements), kept)
    assert verdict is not None
    return verdict


def test_the_interval_is_students_of_the_paired_differences():
    differences = [0.31, -0.12, 0.55, 0.08]
    reference = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert paired_interval(differences) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert paired_interval([0.1]) is None
    assert paired_interval([0.1, math.nan]) is None


def test_a_rise_that_every_picture_shares_is_overfitting_and_the_sentence_says_since_when():
    verdict = verdict_on(
        (10, [0.5, 0.7, 0.6]), (20, [0.3, 0.5, 0.4]), (30, [0.4, 0.61, 0.5]), kept="t-best.safetensors"
    )
    assert verdict.overfitted
    assert (verdict.best_step, verdict.last_step) == (20, 30)
    assert verdict.difference == pytest.approx(0.31 / 3)
    assert verdict.sentence == (
        "overfitted since step 20: held-out loss 0.4000 at step 20, 0.5033 at step 30 "
        "(+0.1033, 95 % interval +0.0890 to +0.1177); t-best.safetensors is step 20"
    )


def test_a_rise_of_one_picture_alone_says_that_nothing_can_be_concluded():
    verdict = verdict_on((1, [0.5, 0.5, 0.5]), (2, [0.9, 0.5, 0.5]))
    assert not verdict.overfitted
    assert verdict.sentence.startswith("no overfitting can be told on 3 pictures: held-out loss 0.5000 at step 1")
    assert "(+0.1333, 95 % interval -0.4404 to +0.7070)" in verdict.sentence


def test_a_loss_that_is_lowest_at_the_end_is_no_overfitting_and_one_measurement_is_no_verdict():
    assert verdict_on((1, [0.5, 0.5]), (2, [0.4, 0.4])).sentence == (
        "not overfitted: the held-out loss is lowest at the end, 0.4000 at step 2"
    )
    assert judge(course_of((1, [0.5, 0.5]))) is None
    assert judge(Course()) is None


def test_one_picture_or_a_loss_that_is_not_finite_tells_nothing():
    assert verdict_on((1, [0.5]), (2, [0.6])).sentence.startswith(
        "whether it overfitted cannot be told from one held-out picture"
    )
    for first, last in ((0.5, math.nan), (math.nan, 0.5), (math.nan, math.nan)):
        verdict = verdict_on((1, [first, 0.4]), (2, [last, 0.6]))
        assert not verdict.overfitted
        assert verdict.interval is None


def test_each_half_is_judged_at_the_step_that_the_other_half_chose():
    verdict = verdict_on((1, [0.1, 0.8]), (2, [0.7, 0.1]), (3, [0.5, 0.5]))
    assert verdict.best_step == 2
    assert verdict.difference == pytest.approx(((0.5 - 0.7) + (0.5 - 0.8)) / 2)
    assert "each half of the pictures judged where the other half was lowest" in verdict.sentence


def test_a_course_survives_its_state_bit_for_bit_and_takes_up_an_old_one():
    course = course_of((1, [0.1, 0.3]), (2, [0.2, 0.1 + 1e-17]))
    assert Course.of(json.loads(json.dumps(course.state_dict()))) == course
    old = Course.of({"step": 2, "loss": 0.4, "last_step": 3, "last_loss": 0.5})
    assert (old.step, old.loss, old.pictures) == (2, 0.4, [])


@pytest.mark.parametrize("pictures", [2, 4, 16])
def test_a_loss_that_only_goes_up_and_down_is_rarely_called_overfitted(pictures):
    """The best of 40 steps compared with the last on the same pictures would be called so in 8, 16 and 26 of 100."""
    rng = np.random.default_rng(0)
    calls = [
        verdict_on(*((step, list(losses)) for step, losses in enumerate(rng.normal(1, 0.1, (40, pictures)), 1)))
        for _ in range(400)
    ]
    assert sum(call.overfitted for call in calls) / 400 < 0.05
