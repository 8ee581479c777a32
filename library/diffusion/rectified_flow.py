"""Rectified flow (Liu et al. 2022, Lipman et al. 2022): straight paths from a picture to noise, as pure functions.

x_0 is the picture's latent, eps the noise, and sigma in [0, 1] the place on the path between them: 0 is the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from library.config.spec import declared, spec
from library.diffusion.noise import Draws
from library.diffusion.schedule import per_sample

TIMESTEPS = 1000
"""The U-Net is told 1000 sigma, in the place of the timestep that it knows from its first training."""
BASE_PIXELS = 1024 * 1024
USUAL_SHIFT = 2.5
"""What rectified-flow models of SDXL are usually drawn with, where nothing says otherwise."""


@spec
class FlowSpec:
    """The options on rectified flow; field names are the options'."""

    flow_timestep_distribution: str | None = declared  # logit_normal, uniform; None: logit_normal
    flow_logit_mean: float | None = declared
    flow_logit_std: float | None = declared
    flow_uniform_static_ratio: float | None = declared
    flow_uniform_shift: bool = declared
    flow_uniform_base_pixels: int | None = declared
    flow_use_ot: bool = declared
    contrastive_flow_matching: bool = declared
    cfm_lambda: float | None = declared
    min_timestep: int | None = declared
    max_timestep: int | None = declared  # exclusive

    @property
    def is_uniform(self) -> bool:
        return self.flow_timestep_distribution == "uniform"

    @property
    def mean(self) -> float:
        return self.flow_logit_mean or 0.0

    @property
    def std(self) -> float:
        return 1.0 if self.flow_logit_std is None else self.flow_logit_std

    @property
    def base_pixels(self) -> int:
        return self.flow_uniform_base_pixels or BASE_PIXELS

    @property
    def contrast(self) -> float:
        """lambda of contrastive flow matching; 0 without it."""
        if not self.contrastive_flow_matching:
            return 0.0
        return 0.05 if self.cfm_lambda is None else self.cfm_lambda

    def ratio(self, pixels: int) -> float:
        """r of `shifted` for a picture of so many pixels."""
        if self.flow_uniform_static_ratio is not None:
            return self.flow_uniform_static_ratio
        return ratio_of_pixels(pixels, self.base_pixels) if self.flow_uniform_shift else 1.0

    def describe(self) -> str:
        """What is drawn, for people."""
        drawn = "uniform" if self.is_uniform else f"logit-normal (mean {self.mean:g}, std {self.std:g})"
        if self.flow_uniform_static_ratio is not None:
            drawn += f", shifted by {self.flow_uniform_static_ratio:g}"
        elif self.flow_uniform_shift:
            drawn += f", shifted by sqrt(pixels / {self.base_pixels:,})"
        paired = ", noise paired with latents over the batch" if self.flow_use_ot else ""
        return f"straight paths (rectified flow), sigma {drawn}{paired}"


def interpolated(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x_0 + sigma eps; `sigma` is (batch,)."""
    return per_sample(1.0 - sigma, latents) * latents + per_sample(sigma, noise) * noise


def flow_velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """eps - x_0: the derivative of x_sigma by sigma, the same on the whole path."""
    return noise - latents


def shifted(sigma: Tensor, ratio: float) -> Tensor:
    """r sigma / (1 + (r - 1) sigma): more noise for r > 1; a shift by 1 / r takes it back.

    Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 23: more pixels need more noise to be covered.
    """
    return ratio * sigma / (1.0 + (ratio - 1.0) * sigma)


def ratio_of_pixels(pixels: int, base_pixels: int) -> float:
    """r = sqrt(m / n) of Esser et al. 2024, eq. 23."""
    return sqrt(pixels / base_pixels)


def quantile(spec: FlowSpec, share: Tensor) -> Tensor:
    """The sigma below which `share` of unshifted draws lie: sigmoid(mean + std Phi^-1(share)), or `share` itself."""
    return share if spec.is_uniform else torch.sigmoid(spec.mean + spec.std * torch.special.ndtri(share))


def cumulative(spec: FlowSpec, sigma: Tensor) -> Tensor:
    """The share of the unshifted draws below sigma: the inverse of `quantile`."""
    return sigma if spec.is_uniform else torch.special.ndtr((torch.logit(sigma) - spec.mean) / spec.std)


def sigma_at(spec: FlowSpec, share: Tensor, pixels: int) -> Tensor:
    """The shifted sigma of a draw that is uniform in [0, 1), within [min_timestep, max_timestep) / 1000."""
    ratio = spec.ratio(pixels)
    low, high = (spec.min_timestep or 0) / TIMESTEPS, (spec.max_timestep or TIMESTEPS) / TIMESTEPS
    if (low, high) != (0.0, 1.0):
        ends = shifted(torch.tensor([low, high], dtype=share.dtype), 1.0 / ratio)
        first, last = cumulative(spec, ends)
        share = first + (last - first) * share
    return shifted(quantile(spec, share), ratio).clamp(low, high)


def draw_sigma(spec: FlowSpec, pixels: int, draws: Draws) -> Tensor:
    """The place on the path of one sample, a picture of so many pixels: a float32 scalar."""
    share = torch.rand((), dtype=torch.float64, generator=draws("timestep"))
    return sigma_at(spec, share, pixels).float()


def signal_of(sigma: Tensor) -> Tensor:
    """The alpha-bar of the same signal-to-noise ratio, ((1 - sigma) / sigma)^2."""
    signal = (1.0 - sigma) ** 2
    return signal / (signal + sigma**2)


def pair_by_cosine(latents: Tensor, noise: Tensor) -> list[int]:
    """For each of n latents the index of its noise, so that the sum of all cosines is largest; no noise serves twice.

    Minibatch optimal transport (Tong et al. 2023) by cosine instead of distance: paths cross less. Both are (n, ...).
    """
    from scipy.optimize import linear_sum_assignment  # only this option needs it

    def directions(tensors: Tensor) -> Tensor:
        return torch.nn.functional.normalize(tensors.flatten(1).double(), dim=1, eps=1e-8)

    cosines = directions(latents) @ directions(noise).T
    _, chosen = linear_sum_assignment(-cosines.numpy())
    return chosen.tolist()


def others(count: int) -> Sequence[int]:
    """For each of `count` samples another one, whose target contrastive flow matching moves away from."""
    return [(i + 1) % count for i in range(count)]
