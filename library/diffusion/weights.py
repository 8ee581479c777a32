"""How much the loss of a timestep counts: the published weightings by signal-to-noise ratio, as pure functions.

All of them take the SNR of the schedule that is really trained with: where the betas are rescaled to zero terminal SNR,
the rescaled one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from library.config.spec import declared, spec
from library.errors import UserError

LARGEST_SNR = 1000.0
"""Where `debiased_weight` and `noise_prediction_scale` stop telling almost clean samples apart, as kohya's trainer."""


@spec
class WeightSpec:
    """The options that weigh timesteps; field names are the options'."""

    min_snr_gamma: float | None = declared
    scale_v_pred_loss_like_noise_pred: bool = declared
    v_pred_like_loss: float | None = declared
    debiased_estimation_loss: bool = declared


def timestep_weights(spec: WeightSpec, snr: Tensor, prediction_type: str) -> Tensor | None:
    """The factor on the loss for each SNR, all that are asked for multiplied; None where there is none.

    Raises `UserError` for weightings that the prediction type, or pure noise (SNR 0), does not allow.
    """
    check(spec, snr, prediction_type)
    factors = []
    if spec.min_snr_gamma:
        factors.append(min_snr_weight(snr, spec.min_snr_gamma, prediction_type))
    if spec.scale_v_pred_loss_like_noise_pred:
        factors.append(noise_prediction_scale(snr))
    if spec.v_pred_like_loss:
        factors.append(velocity_like_weight(snr, spec.v_pred_like_loss))
    if spec.debiased_estimation_loss:
        factors.append(debiased_weight(snr, prediction_type))
    return torch.stack(factors).prod(dim=0) if factors else None


def check(spec: WeightSpec, snr: Tensor, prediction_type: str) -> None:
    """Refuse what cannot be weighed, now that the model's prediction type is known."""
    predicts_velocity = prediction_type == "v_prediction"
    if spec.scale_v_pred_loss_like_noise_pred and not predicts_velocity:
        raise UserError(
            "`scale_v_pred_loss_like_noise_pred` is for v-prediction, and this model predicts noise; leave it out"
        )
    if spec.v_pred_like_loss and predicts_velocity:
        raise UserError("`v_pred_like_loss` is for noise prediction, and this model predicts velocity; leave it out")
    without_bound = [name for name in ("v_pred_like_loss", "debiased_estimation_loss") if getattr(spec, name)]
    if without_bound and not predicts_velocity and bool((snr == 0).any()):
        raise UserError(
            f"`{without_bound[0]}` weighs pure noise infinitely, and this run's schedule ends in pure noise "
            "(zero terminal SNR); leave one of them out, or train a v-prediction model"
        )


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """min(SNR, gamma) / SNR for noise prediction, min(SNR, gamma) / (SNR + 1) for v-prediction.

    Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy". For noise prediction it is 1 at
    SNR 0, the limit.
    """
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1.0)
    return torch.where(snr > gamma, gamma / snr, torch.ones_like(snr))


def debiased_weight(snr: Tensor, prediction_type: str) -> Tensor:
    """1 / sqrt(SNR) for noise prediction, 1 / (SNR + 1) for v-prediction.

    Yu et al. 2023, "Debias the Training of Diffusion Models"; for v-prediction as kohya's trainer.
    """
    bounded = snr.clamp(max=LARGEST_SNR)
    return 1.0 / (bounded + 1.0) if prediction_type == "v_prediction" else 1.0 / bounded.sqrt()


def noise_prediction_scale(snr: Tensor) -> Tensor:
    """SNR / (SNR + 1): what makes a squared error of the velocity one of the noise.

    It is alpha-bar: at the same x_t an error of v is 1 / sqrt(alpha-bar) times that of eps (from v's definition in
    Salimans & Ho 2022). kohya's `scale_v_pred_loss_like_noise_pred`.
    """
    bounded = snr.clamp(max=LARGEST_SNR)
    return bounded / (bounded + 1.0)


def velocity_like_weight(snr: Tensor, share: float) -> Tensor:
    """1 + share * (SNR + 1) / SNR: the loss plus a share of it scaled as v-prediction's; kohya's `v_pred_like_loss`."""
    return 1.0 + share / noise_prediction_scale(snr)
