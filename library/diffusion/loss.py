"""What is predicted and how far off it is, sample by sample, as pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from library.config.spec import declared, spec
from library.diffusion.schedule import per_sample, velocity


@spec
class LossSpec:
    """The options that choose the distance between prediction and target; field names are the options'."""

    loss_type: str = declared  # l2, l1, huber, smooth_l1
    huber_schedule: str = declared  # constant, exponential, snr
    huber_c: float = declared
    huber_scale: float = declared

    @property
    def has_threshold(self) -> bool:
        return self.loss_type in ("huber", "smooth_l1")


def prediction_target(prediction_type: str, latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What the U-Net is asked for: the noise ("epsilon") or the velocity ("v_prediction").

    Raises `ValueError` for any other prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return velocity(latents, noise, alpha_bar)
    raise ValueError(f"prediction type {prediction_type!r} is neither 'epsilon' nor 'v_prediction'")


def sample_distance(
    loss_type: str, prediction: Tensor, target: Tensor, threshold: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Mean over a sample's elements of their distance, in float32 at least: (batch,).

    `threshold` (batch,) is for huber and smooth_l1. `mask` (batch, 1, height/8, width/8) in [0, 1] weighs places; the
    mean is not divided by its area, as in kohya's trainer: every place that counts, counts the same in all pictures.
    """
    distance = elementwise(loss_type, _at_least_float32(prediction), _at_least_float32(target), threshold)
    return mean_over_elements(distance if mask is None else distance * mask.to(distance.dtype))


def elementwise(loss_type: str, prediction: Tensor, target: Tensor, threshold: Tensor | None = None) -> Tensor:
    """The distance of each element. Raises `ValueError` for an unknown type."""
    difference = prediction - target
    if loss_type == "l2":
        return difference**2
    if loss_type == "l1":
        return difference.abs()
    if threshold is None or loss_type not in ("huber", "smooth_l1"):
        raise ValueError(f"loss type {loss_type!r} is not one of l2, l1, huber, smooth_l1, or has no threshold")
    c = per_sample(threshold, difference)
    return pseudo_huber(difference, c) if loss_type == "huber" else smooth_l1(difference, c)


def pseudo_huber(difference: Tensor, c: Tensor) -> Tensor:
    """2 c (sqrt(d^2 + c^2) - c): d^2 for small d, 2 c |d| for large.

    Khrapov et al. 2024, "Improving Diffusion Models's Data-Corruption Resistance using Scheduled Pseudo-Huber Loss".
    """
    return c * smooth_l1(difference, c)


def smooth_l1(difference: Tensor, c: Tensor) -> Tensor:
    """2 (sqrt(d^2 + c^2) - c): d^2 / c for small d, 2 |d| for large; the same, 1/c times as steep."""
    square = difference**2
    return 2.0 * square / ((square + c**2).sqrt() + c)  # the same number without the difference of two close ones


def huber_threshold(spec: LossSpec, alpha_bar: Tensor) -> Tensor | None:
    """delta_t of every timestep for huber and smooth_l1, (timesteps,); None for losses that have none.

    `constant`: c. `exponential`: c^(t/T), from 1 down to c. `snr`: (1 - c) / (1 + sigma_t)^2 + c with sigma_t =
    1/sqrt(SNR), from 1 down to c (Khrapov et al. 2024). All are times `huber_scale`.
    """
    share = torch.arange(len(alpha_bar), dtype=alpha_bar.dtype) / len(alpha_bar)
    return huber_threshold_at(spec, share, alpha_bar)


def huber_threshold_at(spec: LossSpec, share: Tensor, alpha_bar: Tensor) -> Tensor | None:
    """The same at places `share` = t/T of the way to noise, with the alpha-bar of each; (batch,) all of them."""
    if not spec.has_threshold:
        return None
    if spec.huber_schedule == "constant":
        delta = torch.full_like(alpha_bar, spec.huber_c)
    elif spec.huber_schedule == "exponential":
        delta = torch.exp(math.log(spec.huber_c) * share)
    else:
        sigma = ((1.0 - alpha_bar) / alpha_bar).sqrt()
        delta = (1.0 - spec.huber_c) / (1.0 + sigma) ** 2 + spec.huber_c
    return delta * spec.huber_scale


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over a sample's elements of (prediction - target)^2, in float32: (batch,)."""
    return sample_distance("l2", prediction, target)


def relative_error(mean_squared_error: Tensor, target: Tensor) -> Tensor:
    """The squared error as a share of the target's own power, mean(target^2): (batch,).

    1 is what predicting zero would give, whatever the parametrisation; it stays comparable when the loss that is
    minimised is rescaled or weighted.
    """
    return mean_squared_error / mean_over_elements(_at_least_float32(target) ** 2)


def mean_over_elements(values: Tensor) -> Tensor:
    """(batch, ...) -> (batch,)."""
    return values.mean(dim=tuple(range(1, values.ndim)))


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
