"""The colour fixes' defining properties."""

from __future__ import annotations

import torch

from restoration.restoring.colour import COLOUR_FIXES, adain, wavelet


def picture(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_the_wavelet_fix_leaves_a_picture_with_the_right_colours_alone_and_undoes_a_shift():
    x = picture(0)
    assert (wavelet(x, x) - x).abs().max() <= 1e-6
    assert (wavelet(x + 0.1, x) - x).abs().max() <= 1e-6


def test_the_wavelet_fix_keeps_details_and_takes_coarse_colours():
    fixed = wavelet(picture(0), torch.full((2, 3, 64, 64), 0.25))
    assert abs(fixed.mean().item() - 0.25) < 0.02
    assert fixed.std() > 0.9 * picture(0).std()


def test_adain_gives_each_channel_the_mean_and_deviation_of_the_degraded_picture():
    restored, degraded = picture(0) * 0.3 + 0.4, picture(1) ** 2
    fixed = adain(restored, degraded)
    assert (fixed.mean((2, 3)) - degraded.mean((2, 3))).abs().max() <= 1e-5
    assert (fixed.std((2, 3)) - degraded.std((2, 3))).abs().max() <= 1e-5


def test_none_changes_nothing():
    assert torch.equal(COLOUR_FIXES["none"](picture(0), picture(1)), picture(0))
