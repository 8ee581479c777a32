"""Colours brought back to the degraded picture's, as pure functions on pictures (batch, 3, height, width)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (Rec. 601)
KNOTS = 10  # of the curve that gives each channel of a one-toned picture from its luminance
SEEN_SIDE = 64  # pixels: at this size a tone is read, so that the grain of a scan is gone
MOST_OTHER_COLOUR = 3.0 / 255
"""Root mean square of what a picture's colours differ from those of one tone, up to which it has only that tone. Black
and white with a scanner's noise has up to 2.3, photographs in colour 14 and more, faded to a quarter 3.5 and more."""

LEVELS = 5  # everything coarser than 2^5 = 32 pixels comes from the degraded picture


def wavelet(restored: Tensor, degraded: Tensor) -> Tensor:
    """The restored picture's details on the degraded picture's coarse colours."""
    return restored - coarse(restored) + coarse(degraded)


def adain(restored: Tensor, degraded: Tensor) -> Tensor:
    """Each channel with the degraded picture's mean and standard deviation (Huang & Belongie 2017, eq. 8)."""
    mean, std = _statistics(restored)
    wanted_mean, wanted_std = _statistics(degraded)
    return (restored - mean) / std.clamp_min(1e-6) * wanted_std + wanted_mean


def tone(restored: Tensor, degraded: Tensor) -> Tensor:
    """The restored picture's luminance in the degraded picture's one tone: black and white stays so, sepia brown."""
    pairs = zip(restored, degraded, strict=True)
    return torch.stack([_in_tone(mine, _tone_of(theirs)[0].to(mine)) for mine, theirs in pairs])


def has_one_tone(picture: Tensor) -> bool:
    """Whether a picture (3, height, width) in [0, 1] is black and white, or of one other tone, such as sepia."""
    return float(_tone_of(picture)[1]) <= MOST_OTHER_COLOUR


def unchanged(restored: Tensor, degraded: Tensor) -> Tensor:
    return restored


COLOUR_FIXES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wavelet": wavelet,
    "adain": adain,
    "tone": tone,
    "none": unchanged,
}


def coarse(pictures: Tensor, levels: int = LEVELS) -> Tensor:
    """What is left after `levels` of the à trous transform: each blurs with taps 1, 2, 4, 8, 16 pixels apart."""
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=pictures.dtype, device=pictures.device)
    kernel = (taps[:, None] * taps)[None, None].expand(pictures.shape[1], 1, 3, 3)
    for level in range(levels):
        apart = 2**level
        mirrored = F.pad(pictures, (apart,) * 4, mode="replicate")
        pictures = F.conv2d(mirrored, kernel, groups=pictures.shape[1], dilation=apart)
    return pictures


def _statistics(pictures: Tensor) -> tuple[Tensor, Tensor]:
    flat = pictures.flatten(2)
    return flat.mean(-1)[..., None, None], flat.std(-1)[..., None, None]


def _tone_of(picture: Tensor) -> tuple[Tensor, Tensor]:
    """The curve (KNOTS, 3) from luminance to what each channel is above it, and the root mean square of the rest."""
    share = min(1.0, SEEN_SIDE / max(picture.shape[-2:]))
    size = [max(1, round(side * share)) for side in picture.shape[-2:]]
    small = F.interpolate(picture[None].double().cpu(), size, mode="area")[0].flatten(1).T  # (pixels, 3)
    luminance = small @ torch.tensor(LUMA, dtype=small.dtype)
    colour, shares = small - luminance[:, None], _between_knots(luminance)
    bends = torch.diff(torch.eye(KNOTS, dtype=small.dtype), n=2, dim=0)  # a smooth curve, where few pixels are too
    squares = shares.T @ shares + 0.5 * bends.T @ bends + 1e-6 * torch.eye(KNOTS, dtype=small.dtype)
    curve = torch.linalg.solve(squares, shares.T @ colour)
    return curve, (colour - shares @ curve).square().sum(1).mean().sqrt()


def _in_tone(picture: Tensor, curve: Tensor) -> Tensor:
    luminance = torch.tensordot(picture.new_tensor(LUMA), picture, 1)  # (height, width)
    colour = _between_knots(luminance.clamp(0, 1).flatten()) @ curve
    return luminance + colour.T.reshape(picture.shape)


def _between_knots(luminance: Tensor) -> Tensor:
    """Shares of the two nearest knots: (pixels, KNOTS), each row sums to 1."""
    knots = torch.arange(KNOTS, dtype=luminance.dtype, device=luminance.device)
    return (1 - (luminance[:, None] * (KNOTS - 1) - knots).abs()).clamp_min(0)
