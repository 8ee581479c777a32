"""The forward process of DDPM (Ho et al. 2020) on Stable Diffusion's scaled linear betas, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def scaled_linear_betas(start: float, end: float, count: int) -> Tensor:
    """beta_t whose square roots are evenly spaced, as latent diffusion trains with: (count,) float32."""
    return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2


def alphas_cumprod(scheduler_config: Mapping[str, Any]) -> Tensor:
    """alpha-bar_t = prod_s (1 - beta_s) for a model's scheduler configuration: (timesteps,) float32.

    Raises `ValueError` for a beta schedule that no Stable Diffusion was trained with.
    """
    name = scheduler_config.get("beta_schedule", "scaled_linear")
    if name != "scaled_linear":
        raise ValueError(f"beta_schedule {name!r} is not supported: Stable Diffusion models use 'scaled_linear'")
    betas = scaled_linear_betas(
        scheduler_config.get("beta_start", 0.00085),
        scheduler_config.get("beta_end", 0.012),
        scheduler_config.get("num_train_timesteps", 1000),
    )
    alpha_bar = torch.cumprod(1.0 - betas, dim=0)
    return zero_terminal_snr(alpha_bar) if scheduler_config.get("rescale_betas_zero_snr") else alpha_bar


def zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    """Shift and scale sqrt(alpha-bar): the last step becomes pure noise, the first stays (Lin et al. 2023, Alg. 1)."""
    root = alpha_bar.sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))) ** 2


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, 1, 1), so that it scales every sample of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


def add_noise(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(alpha-bar) x_0 + sqrt(1 - alpha-bar) eps (Ho et al., eq. 4); `alpha_bar` is (batch,)."""
    return per_sample(alpha_bar.sqrt(), latents) * latents + per_sample((1.0 - alpha_bar).sqrt(), noise) * noise


def velocity(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = sqrt(alpha-bar) eps - sqrt(1 - alpha-bar) x_0 (Salimans & Ho 2022); `alpha_bar` is (batch,)."""
    return per_sample(alpha_bar.sqrt(), noise) * noise - per_sample((1.0 - alpha_bar).sqrt(), latents) * latents


def signal_to_noise(alpha_bar: Tensor) -> Tensor:
    """SNR_t = alpha-bar / (1 - alpha-bar)."""
    return alpha_bar / (1.0 - alpha_bar)
