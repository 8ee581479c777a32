"""Restoring pictures by eq. 8: noise to image in steps, unconditionally first, as the person afterwards.

    eps = B_p(x, null)                        0 <= t < gamma      (t = 0 is noise, t = 1 the image)
    eps = w B_p(x, p) + (1 - w) B_p(x, null)  gamma <= t < 1

E does not read the prompt, so one evaluation of it serves both branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from library.config.spec import declared, spec_of
from library.data.keys import key
from restoration.options import RUN, SAMPLING
from restoration.restoring.colour import COLOUR_FIXES, has_one_tone, tone, wavelet
from restoration.system.cleaner import Cleaner, no_cleaner, padded_to
from restoration.system.system import System

MULTIPLE = 64  # pixels: sides are padded to this, which every level of the U-Net can halve


@spec_of(SAMPLING, RUN)
class Sampling:
    """How pictures are restored; field names are the options'. The defaults are the paper's and DiffBIR's."""

    gamma: float = declared
    guidance_scale: float = declared
    """w of eq. 8: 1 is the conditional branch alone."""
    steps: int = declared
    passes: int = declared
    color_fix: str = declared
    seed: int = declared


def eq_8(null: Tensor | None, prompted: Tensor | None, w: float) -> Tensor:
    """w B_p(x, p) + (1 - w) B_p(x, null). The branch whose weight is 0 may be None: nobody computes it."""
    if prompted is None or null is None:
        only = null if prompted is None else prompted
        if only is None:
            raise ValueError("neither branch was evaluated")
        return only
    return w * prompted + (1.0 - w) * null


def branches(step: int, steps: int, gamma: float, w: float) -> tuple[bool, bool]:
    """Whether the null branch and the prompted branch are evaluated at `step` (0-based) of `steps`.

    t = step / steps. At w = 1 no null branch is needed after gamma, at w = 0 no prompted one.
    """
    if step / steps < gamma or w == 0.0:
        return True, False
    return w != 1.0, True


def lowest_noise_timesteps(gamma: float, count: int = 1000) -> int:
    """The number of timesteps, from 0, at which eq. 8 uses the prompt: what step 1 is trained on."""
    return round(count * (1.0 - gamma))


def scheduler_for(scheduler_config: Any) -> DDPMScheduler:
    """DiffBIR's sampler: DDPM on evenly spaced timesteps, with the smaller of its two variances."""
    names = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type")
    known = {name: scheduler_config[name] for name in (*names, "rescale_betas_zero_snr") if name in scheduler_config}
    return DDPMScheduler(
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"} | known,
        timestep_spacing="linspace",
        variance_type="fixed_small",
        clip_sample=False,
    )


@torch.no_grad()
def sample(
    system: System, condition: Tensor, prompted: Tensor, null: Tensor, names: Sequence[str], sampling: Sampling
) -> Tensor:
    """From noise to latents: (batch, 4, height/8, width/8).

    `condition` is c(I); `prompted` and `null` (1, tokens, width) are what G reads in the two branches; `names` key each
    picture's noise, which therefore does not depend on what else is in the batch.
    """
    device = condition.device
    scheduler = scheduler_for(system.model.scheduler_config)
    scheduler.set_timesteps(sampling.steps)
    keys = [key(sampling.seed, 0, name, "restoration") for name in names]
    x = torch.stack([torch.randn(condition.shape[1:], generator=generator) for generator in keys]).to(device)
    prompted, null = (text.to(device).expand(len(x), -1, -1) for text in (prompted, null))
    for step, timestep in enumerate(scheduler.timesteps):
        with_null, with_prompt = branches(step, sampling.steps, sampling.gamma, sampling.guidance_scale)
        timesteps = timestep.to(device).expand(len(x))
        controls = system.controls(x, timesteps, condition)
        eps = eq_8(
            system.predict(x, timesteps, null, controls).float() if with_null else None,
            system.predict(x, timesteps, prompted, controls).float() if with_prompt else None,
            sampling.guidance_scale,
        )
        x = scheduler.step(eps, timestep, x, generator=keys, return_dict=False)[0]  # pyright: ignore[reportArgumentType, reportCallIssue]
    return x


@torch.no_grad()
def restore(
    system: System,
    pictures: Tensor,
    prompted: Tensor,
    names: Sequence[str],
    sampling: Sampling,
    cleaner: Cleaner = no_cleaner,
    null: Tensor | None = None,
) -> Tensor:
    """Degraded pictures (batch, 3, height, width) in [0, 1] to restored ones of the same size.

    With more than one pass, what came out goes in again. `prompted` (1, tokens, width) is the text of the person.
    """
    height, width = pictures.shape[-2:]
    result = pictures
    one_tone = [has_one_tone(picture) for picture in pictures] if sampling.color_fix == "auto" else []
    for _ in range(sampling.passes):
        cleaned = cleaner(padded_to(result, MULTIPLE))
        condition = system.condition(cleaned).to(system.unet.device)
        latents = sample(system, condition, prompted, system.null if null is None else null, names, sampling)
        restored = decoded(system, latents).to(cleaned.device)
        restored = fix_colours(restored, cleaned, sampling.color_fix, one_tone)
        result = restored.clamp(0.0, 1.0)[..., :height, :width]
    return result


def fix_colours(restored: Tensor, degraded: Tensor, fix: str, one_tone: Sequence[bool]) -> Tensor:
    """What `color_fix` names; auto is a picture's tone for those that have only one, and wavelet for the others."""
    if fix != "auto":
        return COLOUR_FIXES[fix](restored, degraded)
    fixed = wavelet(restored, degraded)
    if not any(one_tone):
        return fixed
    return torch.where(torch.tensor(one_tone, device=fixed.device)[:, None, None, None], tone(fixed, degraded), fixed)


@torch.no_grad()
def decoded(system: System, latents: Tensor) -> Tensor:
    """Latents to pictures (batch, 3, height, width), around [0, 1]."""
    vae: Any = system.model.vae
    pictures = vae.decode((latents / system.model.scaling_factor).to(vae.device, vae.dtype), return_dict=False)[0]
    return pictures.float() / 2.0 + 0.5
