"""The noise that is added to a sample's latents, and its published variants, as pure functions.

Everything here is for one sample and on the CPU, where the draws are made: the batch that a sample happens to be in
changes none of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from library.config.spec import declared, spec


@spec
class NoiseSpec:
    """The options that shape timestep and noise; field names are the options'."""

    min_timestep: int | None = declared
    max_timestep: int | None = declared  # exclusive
    noise_offset: float | None = declared
    noise_offset_random_strength: bool = declared
    adaptive_noise_scale: float | None = declared
    multires_noise_iterations: int | None = declared
    multires_noise_discount: float = declared
    immiscible_noise: int | None = declared
    ip_noise_gamma: float | None = declared
    ip_noise_gamma_random_strength: bool = declared


Draws = Callable[[str], Generator]
"""A fresh generator for each purpose: the draws of one sample in one epoch."""


def draw_timestep(spec: NoiseSpec, count: int, draws: Draws) -> Tensor:
    """t, uniform in [min_timestep, max_timestep) of `count` timesteps: a scalar int64."""
    low, high = spec.min_timestep or 0, spec.max_timestep or count
    return torch.randint(low, high, (), generator=draws("timestep"))


def draw_noise(spec: NoiseSpec, latents: Tensor, draws: Draws) -> Tensor:
    """The noise that is predicted, (4, height/8, width/8): white, then the variants that are asked for."""
    generator = draws("noise")
    noise = torch.randn(latents.shape, generator=generator)
    if spec.immiscible_noise and spec.immiscible_noise > 1:
        further = [torch.randn(latents.shape, generator=generator) for _ in range(spec.immiscible_noise - 1)]
        noise = nearest_noise(latents, [noise, *further])
    if spec.noise_offset:
        strength = torch.tensor(float(spec.noise_offset))
        if spec.noise_offset_random_strength:
            strength = strength * torch.rand((), generator=draws("noise offset strength"))
        if spec.adaptive_noise_scale:
            strength = adaptive_strength(strength, spec.adaptive_noise_scale, latents)
        shift = torch.randn((latents.shape[0], 1, 1), generator=draws("noise offset"))
        noise = offset_noise(noise, strength, shift)
    if spec.multires_noise_iterations:
        generator = draws("multires noise")
        sizes = coarser_sizes(
            latents.shape[-2:], torch.rand(spec.multires_noise_iterations, generator=generator).tolist()
        )
        layers = [torch.randn((latents.shape[0], *size), generator=generator) for size in sizes]
        noise = multires_noise(noise, layers, spec.multires_noise_discount)
    return noise


def draw_input_noise(spec: NoiseSpec, noise: Tensor, draws: Draws) -> Tensor:
    """The noise that goes into the U-Net's input: `noise` itself, or perturbed by `ip_noise_gamma`."""
    if not spec.ip_noise_gamma:
        return noise
    gamma = torch.tensor(float(spec.ip_noise_gamma))
    if spec.ip_noise_gamma_random_strength:
        gamma = gamma * torch.rand((), generator=draws("input perturbation strength"))
    return perturbed_noise(noise, gamma, torch.randn(noise.shape, generator=draws("input perturbation")))


def nearest_noise(latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
    """Of several draws the one with the smallest squared distance to the latents; the first of equal ones.

    Li et al. 2024, "Immiscible Diffusion": pictures and noise are mixed less, so the direction to denoise is clearer.
    They deal the noise of a batch out; of draws for one sample alone, the batch has no part in it.
    """
    distances = torch.stack([(latents - one).double().square().sum() for one in noise])
    return noise[int(distances.argmin())]


def offset_noise(noise: Tensor, strength: Tensor, shift: Tensor) -> Tensor:
    """eps + strength * shift, with one normal draw per channel, `shift` (4, 1, 1).

    Nicholas Guttenberg, "Diffusion with Offset Noise" (2023): so that a model learns to change the mean brightness,
    which white noise hardly destroys.
    """
    return noise + strength * shift


def adaptive_strength(strength: Tensor, scale: float, latents: Tensor) -> Tensor:
    """strength + scale * |mean of the channel|, at least 0: (4, 1, 1) for latents (4, height/8, width/8).

    kohya's `adaptive_noise_scale`: brighter and darker pictures than the average get more of the offset.
    """
    mean = latents.mean(dim=(-2, -1), keepdim=True)
    return torch.clamp(strength + scale * mean.abs(), min=0.0)


def coarser_sizes(size: Sequence[int], draws: Sequence[float]) -> list[tuple[int, int]]:
    """The size (height, width) of each layer of `multires_noise`: layer i is r^i times coarser, r uniform in [2, 4).

    `draws` are uniform in [0, 1), one for each layer. Layers after the first with a side of one element are left out.
    """
    sizes = []
    for i, draw in enumerate(draws):
        ratio = (2.0 + 2.0 * draw) ** i
        sizes.append((max(1, int(size[0] / ratio)), max(1, int(size[1] / ratio))))
        if 1 in sizes[-1]:
            break
    return sizes


def multires_noise(noise: Tensor, layers: Sequence[Tensor], discount: float) -> Tensor:
    """eps + sum_i discount^i * upsampled(layer_i), brought back to a standard deviation of 1.

    Jonathan Whitaker, "Multi-Resolution Noise for Diffusion Model Training" (2023). `layers` are normal noise of
    falling resolution, the first of which is as fine as eps, as in kohya's trainer: discounts keep their meaning.
    """
    for i, layer in enumerate(layers):
        fine = interpolate(layer[None], size=noise.shape[-2:], mode="bilinear", align_corners=False)[0]
        noise = noise + discount**i * fine
    return noise / noise.std()


def perturbed_noise(noise: Tensor, gamma: Tensor, perturbation: Tensor) -> Tensor:
    """eps + gamma xi: what noises the input, while eps stays the target.

    Ning et al. 2023, "Input Perturbation Reduces Exposure Bias in Diffusion Models".
    """
    return noise + gamma * perturbation
