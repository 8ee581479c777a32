"""The colour fixes' defining properties."""

from __future__ import annotations

import torch

from restoration.restoring.colour import COLOUR_FIXES, LUMA, adain, has_one_tone, tone, wavelet


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


def luminance(picture: torch.Tensor) -> torch.Tensor:
    return torch.tensordot(torch.tensor(LUMA), picture, 1)


def test_black_and_white_and_sepia_keep_their_tone_and_the_restored_luminance():
    generator = torch.Generator().manual_seed(0)
    restored = 0.1 + 0.8 * torch.rand(2, 3, 40, 40, generator=generator)  # in all colours
    grey = torch.linspace(0, 1, 1600).reshape(40, 40).expand(3, -1, -1)
    sepia = grey * torch.tensor([0.97, 0.85, 0.67])[:, None, None]
    fixed = tone(restored, torch.stack([grey, sepia]))
    torch.testing.assert_close(fixed[0], luminance(restored[0]).expand(3, -1, -1))
    torch.testing.assert_close(luminance(fixed[1]), luminance(restored[1]))
    dark = luminance(restored[1]) < 0.85  # what the sepia picture has of luminances
    share = (fixed[1] / luminance(fixed[1]))[:, dark]
    expected = torch.tensor([0.97, 0.85, 0.67]) / (torch.tensor(LUMA) @ torch.tensor([0.97, 0.85, 0.67]))
    torch.testing.assert_close(share, expected[:, None].expand_as(share), rtol=0, atol=2e-3)


def test_one_tone_is_distinguished_from_colours_and_from_a_scans_noise(faces):
    picture = torch.from_numpy(faces[0]).permute(2, 0, 1)
    grey = luminance(picture).expand(3, -1, -1)
    noise = 3 / 255 * torch.randn(grey.shape, generator=torch.Generator().manual_seed(1))
    assert has_one_tone(grey)
    assert has_one_tone((grey * torch.tensor([0.97, 0.85, 0.67])[:, None, None] + noise).clamp(0, 1))
    assert not has_one_tone(picture)
    assert not has_one_tone(grey + 0.25 * (picture - grey))  # faded, and still in colour
