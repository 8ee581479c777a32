"""The equations of rectified flow in float64 against plain arithmetic, and how sigma is drawn."""

import itertools
import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
import torch

from library.data.keys import key
from library.diffusion.loss import LossSpec, huber_threshold_at
from library.diffusion.rectified_flow import (
    FlowSpec,
    cumulative,
    draw_sigma,
    flow_velocity,
    interpolated,
    others,
    pair_by_cosine,
    quantile,
    ratio_of_pixels,
    shifted,
    sigma_at,
    signal_of,
)

SHARES = [0.001, 0.1, 0.37, 0.5, 0.9, 0.999]
NATIVE = 1024 * 1024


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_path_is_straight_and_the_target_is_its_derivative():
    x0, eps, sigma = normal(3, 4, 2, 2), normal(3, 4, 2, 2, seed=1), numbers(0.0, 0.3, 1.0)
    path = interpolated(x0, eps, sigma).numpy()
    for i, s in enumerate((0.0, 0.3, 1.0)):
        np.testing.assert_allclose(path[i], (1 - s) * x0[i].numpy() + s * eps[i].numpy(), rtol=1e-14)
    step = (interpolated(x0, eps, sigma + 1e-3) - interpolated(x0, eps, sigma)) / 1e-3
    np.testing.assert_allclose(flow_velocity(x0, eps).numpy(), step.numpy(), rtol=1e-9)
    np.testing.assert_array_equal(flow_velocity(x0, eps).numpy(), eps.numpy() - x0.numpy())


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.5, 3.5])
def test_sigma_is_shifted_by_the_ratio_and_back_by_its_inverse(ratio):
    for s in (0.0, 0.2, 0.7, 1.0):
        assert float(shifted(numbers(s), ratio)) == pytest.approx(ratio * s / (1 + (ratio - 1) * s), rel=1e-14)
    sigma = numbers(*SHARES)
    np.testing.assert_allclose(shifted(shifted(sigma, ratio), 1 / ratio).numpy(), sigma.numpy(), rtol=1e-12)


def test_the_ratio_of_pixels_is_the_square_root_of_their_share():
    assert ratio_of_pixels(2048 * 2048, NATIVE) == 2.0
    assert FlowSpec(flow_uniform_shift=True).ratio(512 * 512) == 0.5
    assert FlowSpec(flow_uniform_shift=True, flow_uniform_base_pixels=256 * 256).ratio(512 * 512) == 2.0
    assert FlowSpec(flow_uniform_shift=True, flow_uniform_static_ratio=2.5).ratio(512 * 512) == 2.5
    assert FlowSpec().ratio(512 * 512) == 1.0


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.2, 1.5)])
def test_quantiles_are_those_of_the_logit_normal_distribution(mean, std):
    spec = FlowSpec(flow_logit_mean=mean, flow_logit_std=std)
    for share in SHARES:
        expected = 1 / (1 + math.exp(-NormalDist(mean, std).inv_cdf(share)))
        assert float(quantile(spec, numbers(share))) == pytest.approx(expected, rel=1e-9)
        assert float(cumulative(spec, numbers(expected))) == pytest.approx(share, rel=1e-9)


def test_uniform_draws_are_their_own_quantiles():
    spec = FlowSpec(flow_timestep_distribution="uniform")
    assert quantile(spec, numbers(*SHARES)).tolist() == SHARES
    assert sigma_at(
        FlowSpec(flow_timestep_distribution="uniform", flow_uniform_static_ratio=3.0), numbers(0.5), NATIVE
    )[0] == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_a_range_of_timesteps_cuts_the_distribution_and_keeps_its_form(distribution):
    spec = FlowSpec(distribution, min_timestep=200, max_timestep=700, flow_uniform_static_ratio=2.0)
    whole = FlowSpec(distribution, flow_uniform_static_ratio=2.0)
    assert float(sigma_at(spec, numbers(0.0), NATIVE)) == pytest.approx(0.2)
    assert float(sigma_at(spec, numbers(1.0), NATIVE)) == pytest.approx(0.7)
    below = [float(cumulative(whole, shifted(numbers(s), 0.5))) for s in (0.2, 0.7)]
    middle = sigma_at(spec, numbers(0.5), NATIVE)
    assert float(cumulative(whole, shifted(middle, 0.5))) == pytest.approx(sum(below) / 2)


def test_draws_are_keyed_by_the_sample_and_follow_the_distribution():
    spec = FlowSpec(flow_logit_mean=-0.2, flow_logit_std=1.5)
    draws = torch.stack([draw_sigma(spec, NATIVE, partial(key, 7, 1, str(i))) for i in range(400)])
    assert torch.equal(draws[5], draw_sigma(spec, NATIVE, partial(key, 7, 1, "5")))
    assert torch.equal(draws[5], draw_sigma(spec, 1, partial(key, 7, 1, "5")))  # without a shift pixels do not matter
    logits = torch.logit(draws)
    assert float(logits.mean()) == pytest.approx(-0.2, abs=4 * 1.5 / 20)
    assert float(logits.std()) == pytest.approx(1.5, rel=0.15)


def test_the_signal_of_a_place_on_the_path_is_that_of_a_diffusion_of_equal_noise():
    for s in (0.1, 0.5, 0.9):
        alpha_bar = float(signal_of(numbers(s)))
        assert alpha_bar / (1 - alpha_bar) == pytest.approx(((1 - s) / s) ** 2)
        delta = huber_threshold_at(LossSpec("huber", "snr", 0.1, 2.0), numbers(s), signal_of(numbers(s)))
        assert delta is not None
        assert float(delta) == pytest.approx(2.0 * (0.9 * (1 - s) ** 2 + 0.1))  # 1 / (1 + s / (1 - s)) = 1 - s


def test_pairs_have_the_largest_sum_of_cosines_of_all_permutations():
    latents, noise = normal(5, 4, 3), normal(5, 4, 3, seed=1)
    x, e = latents.flatten(1).numpy(), noise.flatten(1).numpy()
    cosines = (x @ e.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(e, axis=1))
    best = max(itertools.permutations(range(5)), key=lambda p: sum(cosines[i, j] for i, j in enumerate(p)))
    assert pair_by_cosine(latents, noise) == list(best)
    assert pair_by_cosine(latents, noise) != list(range(5))


def test_another_sample_is_never_the_same_one():
    assert others(3) == [1, 2, 0]
