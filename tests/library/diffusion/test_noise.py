"""The variants of the noise against plain float64 arithmetic, and who is independent of whom."""

from functools import partial

import numpy as np
import pytest
import torch

from library.data.keys import key
from library.diffusion.noise import (
    NoiseSpec,
    adaptive_strength,
    coarser_sizes,
    draw_input_noise,
    draw_noise,
    draw_timestep,
    multires_noise,
    offset_noise,
    perturbed_noise,
)

LATENTS = torch.randn(4, 16, 24, generator=torch.Generator().manual_seed(0))


def draws(sample: str):
    return partial(key, 7, 1, sample)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_offset_noise_shifts_each_channel_by_one_number():
    noise, shift = normal(4, 3, 5), normal(4, 1, 1)
    ours = offset_noise(noise, torch.tensor(0.1, dtype=torch.float64), shift).numpy()
    for channel in range(4):
        np.testing.assert_allclose(ours[channel], noise[channel].numpy() + 0.1 * float(shift[channel]), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.05, -0.2])
def test_adaptive_strength_grows_with_the_channels_mean_and_is_never_negative(scale):
    latents = normal(4, 3, 5)
    ours = adaptive_strength(torch.tensor(0.02, dtype=torch.float64), scale, latents)
    theirs = [max(0.0, 0.02 + scale * abs(sum(c.flatten().tolist()) / 15)) for c in latents]
    np.testing.assert_allclose(ours.flatten().numpy(), theirs, rtol=1e-12)


def test_layers_of_multires_noise_get_two_to_four_times_coarser_until_a_side_is_one():
    assert coarser_sizes((64, 96), [0.3, 0.0, 0.5, 0.0]) == [(64, 96), (32, 48), (7, 10), (8, 12)]
    assert coarser_sizes((8, 8), [0.0] * 10) == [(8, 8), (4, 4), (2, 2), (1, 1)]


def test_multires_noise_is_the_discounted_sum_of_its_layers_at_unit_deviation():
    noise, fine, flat = normal(4, 6, 6), normal(4, 6, 6), normal(4, 1, 1)
    summed = noise.numpy() + fine.numpy() + 0.4 * flat.numpy()
    deviation = np.sqrt(((summed - summed.mean()) ** 2).sum() / (summed.size - 1))
    np.testing.assert_allclose(multires_noise(noise, [fine, flat], 0.4).numpy(), summed / deviation, rtol=1e-12)


def test_perturbed_noise_adds_a_share_of_another_draw():
    noise, other = normal(4, 3, 3), normal(4, 3, 2).repeat(1, 1, 2)[..., :3]
    ours = perturbed_noise(noise, torch.tensor(0.1, dtype=torch.float64), other)
    np.testing.assert_allclose(ours.numpy(), noise.numpy() + 0.1 * other.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        NoiseSpec(noise_offset=0.1),
        NoiseSpec(noise_offset=0.1, noise_offset_random_strength=True),
        NoiseSpec(noise_offset=0.1, adaptive_noise_scale=0.5),
        NoiseSpec(multires_noise_iterations=6),
    ],
    ids=str,
)
def test_a_variant_builds_on_the_white_noise_that_would_be_drawn_without_it(spec):
    white, drawn = draw_noise(NoiseSpec(), LATENTS, draws("a")), draw_noise(spec, LATENTS, draws("a"))
    assert not torch.equal(white, drawn)
    assert torch.corrcoef(torch.stack([white.flatten(), drawn.flatten()]))[0, 1] > 0.5
    assert torch.equal(drawn, draw_noise(spec, LATENTS, draws("a")))
    assert not torch.equal(drawn, draw_noise(spec, LATENTS, draws("b")))


def test_a_random_strength_is_another_one_for_each_sample_and_stays_within_the_full_one():
    full, random = NoiseSpec(noise_offset=0.5), NoiseSpec(noise_offset=0.5, noise_offset_random_strength=True)
    shares = []
    for name in "abcdefgh":
        white = draw_noise(NoiseSpec(), LATENTS, draws(name))
        most = (draw_noise(full, LATENTS, draws(name)) - white)[:, 0, 0]
        some = (draw_noise(random, LATENTS, draws(name)) - white)[:, 0, 0]
        torch.testing.assert_close(some / most, (some / most)[:1].expand(4), rtol=1e-3, atol=1e-3)
        shares.append(float((some / most)[0]))
    assert all(0 <= share <= 1 for share in shares)
    assert max(shares) - min(shares) > 0.3


def test_input_perturbation_leaves_the_target_alone():
    noise = draw_noise(NoiseSpec(), LATENTS, draws("a"))
    assert draw_input_noise(NoiseSpec(), noise, draws("a")) is noise
    perturbed = draw_input_noise(NoiseSpec(ip_noise_gamma=0.1), noise, draws("a")) - noise
    assert float(perturbed.std()) == pytest.approx(0.1, rel=0.1)
    weaker = draw_input_noise(NoiseSpec(ip_noise_gamma=0.1, ip_noise_gamma_random_strength=True), noise, draws("a"))
    assert 0 < float((weaker - noise).std()) < float(perturbed.std())


def test_timesteps_fill_their_range_and_stay_below_its_end():
    spec = NoiseSpec(min_timestep=3, max_timestep=6)
    drawn = {int(draw_timestep(spec, 1000, draws(str(i)))) for i in range(60)}
    assert drawn == {3, 4, 5}
