"""The forward process against float64 arithmetic and the figures that Stable Diffusion was trained with."""

import pytest
import torch

from library.diffusion.loss import prediction_target, relative_error, squared_error
from library.diffusion.schedule import add_noise, alphas_cumprod, signal_to_noise, velocity

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def test_alpha_bar_runs_from_almost_one_to_the_known_terminal_value():
    alpha_bar = alphas_cumprod(STABLE_DIFFUSION)
    assert alpha_bar.shape == (1000,)
    assert float(alpha_bar[0]) == pytest.approx(1 - 0.00085, rel=1e-6)
    assert float(alpha_bar[999]) == pytest.approx(0.0046600, rel=1e-4)
    assert float(signal_to_noise(alpha_bar)[999]) == pytest.approx(0.0046818, rel=1e-4)


def test_alpha_bar_equals_a_float64_product():
    step = (0.012**0.5 - 0.00085**0.5) / 999
    product, reference = 1.0, []
    for t in range(1000):
        product *= 1 - (0.00085**0.5 + t * step) ** 2
        reference.append(product)
    torch.testing.assert_close(
        alphas_cumprod({}).double(), torch.tensor(reference, dtype=torch.float64), rtol=2e-6, atol=1e-7
    )


def test_with_zero_terminal_snr_the_last_step_is_pure_noise_and_the_first_is_unchanged():
    plain, zero = alphas_cumprod({}), alphas_cumprod({"rescale_betas_zero_snr": True})
    assert float(zero[-1]) == 0
    assert float(zero[0]) == pytest.approx(float(plain[0]), rel=1e-6)


def test_a_beta_schedule_of_another_family_is_refused_by_name():
    with pytest.raises(ValueError, match="squaredcos_cap_v2"):
        alphas_cumprod({"beta_schedule": "squaredcos_cap_v2"})


def test_noise_and_velocity_are_a_rotation_of_image_and_noise():
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    alpha_bar = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    noisy, v = add_noise(image, noise, alpha_bar), velocity(image, noise, alpha_bar)
    a, s = alpha_bar.sqrt().view(-1, 1, 1, 1), (1 - alpha_bar).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(a * noisy - s * v, image)
    torch.testing.assert_close(s * noisy + a * v, noise)


def test_each_prediction_type_has_its_target_and_others_are_refused():
    image, noise, alpha_bar = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.tensor([0.75])
    assert torch.equal(prediction_target("epsilon", image, noise, alpha_bar), noise)
    torch.testing.assert_close(prediction_target("v_prediction", image, noise, alpha_bar), -0.5 * image)
    with pytest.raises(ValueError, match="sample"):
        prediction_target("sample", image, noise, alpha_bar)


def test_predicting_zero_has_a_relative_error_of_one_for_any_scale():
    target = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.1, 1.0, 7.0]).view(
        3, 1, 1, 1
    )
    error = squared_error(torch.zeros_like(target), target)
    torch.testing.assert_close(relative_error(error, target), torch.ones(3))
