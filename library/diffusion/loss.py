"""What is predicted and how far off it is, sample by sample, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from library.diffusion.schedule import velocity


def prediction_target(prediction_type: str, latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the U-Net is asked for: the noise ("epsilon") or the velocity ("v_prediction").

    Raises `ValueError` for any other prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return velocity(latents, noise, alpha_bar)
    raise ValueError(f"prediction type {prediction_type!r} is neither 'epsilon' nor 'v_prediction'")


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over a sample's elements of (prediction - target)^2, in float32: (batch,)."""
    return torch.mean((prediction.float() - target.float()) ** 2, dim=tuple(range(1, target.ndim)))


def relative_error(mean_squared_error: Tensor, target: Tensor) -> Tensor:
    """The squared error as a share of the target's own power, mean(target^2): (batch,).

    1 is what predicting zero would give, whatever the parametrisation; it stays comparable when the loss that is
    minimised is rescaled or weighted.
    """
    return mean_squared_error / torch.mean(target.float() ** 2, dim=tuple(range(1, target.ndim)))
