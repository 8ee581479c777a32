"""Distances and weights against plain float64 arithmetic, written out once more from the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from library.diffusion.loss import (
    LossSpec,
    elementwise,
    huber_threshold,
    prediction_target,
    sample_distance,
)
from library.diffusion.schedule import add_noise, alphas_cumprod, signal_to_noise
from library.diffusion.weights import WeightSpec, min_snr_weight, noise_prediction_scale, timestep_weights
from library.errors import UserError

SNR = torch.tensor([2000.0, 999.0, 30.0, 5.0, 1.0, 0.02], dtype=torch.float64)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss_type", "formula"),
    [
        ("l2", lambda d, c: d * d),
        ("l1", lambda d, c: abs(d)),
        ("huber", lambda d, c: 2 * c * (math.sqrt(d * d + c * c) - c)),
        ("smooth_l1", lambda d, c: 2 * (math.sqrt(d * d + c * c) - c)),
    ],
)
def test_a_distance_is_its_formula_averaged_over_the_sample(loss_type, formula):
    prediction, target, c = normal(0), normal(1), torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    theirs = [
        sum(formula(float(p) - float(t), float(c[i])) for p, t in zip(a.flatten(), b.flatten(), strict=True)) / 40
        for i, (a, b) in enumerate(zip(prediction, target, strict=True))
    ]
    np.testing.assert_allclose(sample_distance(loss_type, prediction, target, c).numpy(), theirs, rtol=1e-12)


def test_huber_is_exact_where_the_difference_is_tiny():
    c = torch.tensor([1.0])
    tiny = torch.full((1, 4, 2, 2), 1e-4)
    torch.testing.assert_close(
        elementwise("huber", tiny, torch.zeros_like(tiny), c), torch.full_like(tiny, 1e-8), rtol=1e-4, atol=0
    )


def test_a_mask_weighs_places_and_does_not_change_the_divisor():
    prediction, target = normal(0), normal(1)
    mask = torch.rand(3, 1, 5, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theirs = ((prediction - target).numpy() ** 2 * mask.numpy()).reshape(3, -1).sum(axis=1) / 40
    np.testing.assert_allclose(sample_distance("l2", prediction, target, None, mask).numpy(), theirs, rtol=1e-12)


def test_half_precision_is_measured_in_float32():
    prediction, target = normal(0).half(), normal(1).half()
    measured = sample_distance("l2", prediction, target)
    assert measured.dtype == torch.float32
    assert torch.equal(measured, sample_distance("l2", prediction.float(), target.float()))


@pytest.mark.parametrize("name", ["constant", "exponential", "snr"])
def test_thresholds_fall_from_one_to_c_but_for_the_constant_one(name):
    spec = LossSpec("huber", huber_schedule=name, huber_c=0.2, huber_scale=3.0)
    alpha_bar = alphas_cumprod({}).double()
    ours = huber_threshold(spec, alpha_bar)
    assert ours is not None
    for t in (0, 500, 999):
        sigma = math.sqrt((1 - float(alpha_bar[t])) / float(alpha_bar[t]))
        delta = {"constant": 0.2, "exponential": 0.2 ** (t / 1000), "snr": 0.8 / (1 + sigma) ** 2 + 0.2}[name]
        assert float(ours[t]) == pytest.approx(3 * delta, rel=1e-9)
    assert huber_threshold(LossSpec("l1"), alpha_bar) is None


def test_the_snr_threshold_stays_finite_at_zero_terminal_snr():
    ours = huber_threshold(LossSpec("huber"), alphas_cumprod({"rescale_betas_zero_snr": True}))
    assert ours is not None
    assert float(ours[-1]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("spec", "kind", "formula"),
    [
        (WeightSpec(min_snr_gamma=5), "epsilon", lambda s: min(s, 5) / s),
        (WeightSpec(min_snr_gamma=5), "v_prediction", lambda s: min(s, 5) / (s + 1)),
        (WeightSpec(debiased_estimation_loss=True), "epsilon", lambda s: 1 / math.sqrt(min(s, 1000))),
        (WeightSpec(debiased_estimation_loss=True), "v_prediction", lambda s: 1 / (min(s, 1000) + 1)),
        (WeightSpec(scale_v_pred_loss_like_noise_pred=True), "v_prediction", lambda s: min(s, 1e3) / (min(s, 1e3) + 1)),
        (WeightSpec(v_pred_like_loss=0.3), "epsilon", lambda s: 1 + 0.3 * (min(s, 1e3) + 1) / min(s, 1e3)),
        (
            WeightSpec(min_snr_gamma=5, debiased_estimation_loss=True),
            "epsilon",
            lambda s: min(s, 5) / s / math.sqrt(min(s, 1000)),
        ),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
def test_a_weight_is_its_formula(spec, kind, formula):
    ours = timestep_weights(spec, SNR, kind)
    assert ours is not None
    np.testing.assert_allclose(ours.numpy(), [formula(float(s)) for s in SNR], rtol=1e-12)


def test_without_an_option_nothing_is_weighed_and_a_gamma_of_zero_is_off():
    assert timestep_weights(WeightSpec(), SNR, "epsilon") is None
    assert timestep_weights(WeightSpec(min_snr_gamma=0.0), SNR, "epsilon") is None


def test_an_error_of_the_velocity_scaled_is_that_of_the_noise():
    """One prediction of x_0 at the same x_t, its error measured both ways."""
    image, noise, alpha_bar = normal(0), normal(1), torch.tensor([0.9, 0.5, 0.04], dtype=torch.float64)
    wrong_noise = noise + 0.1 * normal(2)
    a, s = alpha_bar.sqrt().view(-1, 1, 1, 1), (1 - alpha_bar).sqrt().view(-1, 1, 1, 1)
    wrong_image = (add_noise(image, noise, alpha_bar) - s * wrong_noise) / a
    v = prediction_target("v_prediction", image, noise, alpha_bar)
    of_velocity = sample_distance("l2", a * wrong_noise - s * wrong_image, v)
    of_noise = sample_distance("l2", wrong_noise, noise)
    torch.testing.assert_close(of_velocity * noise_prediction_scale(signal_to_noise(alpha_bar)), of_noise)


def test_weights_at_pure_noise_are_finite_or_refused_by_name():
    zero = torch.tensor([10.0, 0.0])
    assert min_snr_weight(zero, 5.0, "epsilon").tolist() == [0.5, 1.0]
    assert min_snr_weight(zero, 5.0, "v_prediction").tolist() == pytest.approx([5 / 11, 0.0])
    debiased, like_velocity = WeightSpec(debiased_estimation_loss=True), WeightSpec(v_pred_like_loss=0.5)
    for name, spec in (("debiased_estimation_loss", debiased), ("v_pred_like_loss", like_velocity)):
        with pytest.raises(UserError, match=f"{name}.*zero terminal SNR"):
            timestep_weights(spec, zero, "epsilon")


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (WeightSpec(scale_v_pred_loss_like_noise_pred=True), "epsilon"),
        (WeightSpec(v_pred_like_loss=0.5), "v_prediction"),
    ],
)
def test_a_weighting_for_the_other_prediction_type_is_refused(spec, kind):
    with pytest.raises(UserError, match="leave it out"):
        timestep_weights(spec, SNR, kind)
