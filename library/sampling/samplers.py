"""sd-scripts' sampler names as diffusers' schedulers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import KDPM2AncestralDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from library.config.options.sampling import FLOW_SAMPLERS, SAMPLERS
from library.diffusion.rectified_flow import ratio_of_pixels
from library.errors import ConfigError

_SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpm_2": (KDPM2DiscreteScheduler, {}),
    "dpm_2_a": (KDPM2AncestralDiscreteScheduler, {}),
    # The original DPM-Solver cannot step to noise level zero, so it ends at the smallest one.
    "dpmsolver": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "dpmsingle": (DPMSolverSinglestepScheduler, {"lower_order_final": True}),
}
# What Stable Diffusion means where its scheduler's config leaves it out and a scheduler's default is made for pixels.
_STABLE_DIFFUSION = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}


class _ForStableDiffusion:
    """What pipelines of Stable Diffusion ask of a scheduler, and one for straight paths lacks; it changes nothing."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample


class FlowEuler(_ForStableDiffusion, FlowMatchEulerDiscreteScheduler):
    """Euler's steps on straight paths."""


class FlowHeun(_ForStableDiffusion, FlowMatchHeunDiscreteScheduler):
    """Heun's steps on straight paths: two looks at the U-Net in each but the last."""


def make_flow_scheduler(name: str, scheduler_config: Mapping[str, Any], pixels: int) -> Any:
    """A fresh scheduler for one of `FLOW_SAMPLERS` and a picture of so many pixels."""
    name = name.removeprefix("k_")
    if name not in FLOW_SAMPLERS:
        known = ", ".join(FLOW_SAMPLERS)
        raise ConfigError(f"the sampler '{name}' does not draw with a rectified-flow model; those that do are {known}.")
    base_pixels = scheduler_config.get("base_pixels")
    shift = ratio_of_pixels(pixels, base_pixels) if base_pixels else scheduler_config.get("shift") or 1.0
    count = scheduler_config.get("num_train_timesteps", 1000)
    if name == "dpmsolver++":
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        return DPMSolverMultistepScheduler(num_train_timesteps=count, algorithm_type="dpmsolver++", **flow)
    return (FlowHeun if name == "heun" else FlowEuler)(num_train_timesteps=count, shift=shift)


def make_scheduler(name: str, scheduler_config: Mapping[str, Any], pixels: int = 0) -> Any:
    """A fresh diffusers scheduler for one of `SAMPLERS`, with the noise schedule of a model's own config.

    Of a rectified-flow model the config says so; how its path is shifted may follow the picture's `pixels`.

    Entries of the config that the sampler does not know are left out, as diffusers does when schedulers are exchanged.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"`sample_sampler` '{name}' is not a sampler; known are {', '.join(SAMPLERS)}.")
    if scheduler_config.get("prediction_type") == "flow_prediction":
        return make_flow_scheduler(name, scheduler_config, pixels)
    name = name.removeprefix("k_")
    if name == "lms" and find_spec("scipy") is None:
        raise ConfigError("`sample_sampler` 'lms' needs the package scipy: `pip install scipy`, or choose 'euler'.")
    scheduler_class, fixed = _SCHEDULERS[name]
    known = inspect.signature(scheduler_class.__init__).parameters
    config = {key: value for key, value in (_STABLE_DIFFUSION | dict(scheduler_config)).items() if key in known}
    with warnings.catch_warnings():  # diffusers means to drop the first DPM-Solver one day; until then it is offered
        warnings.simplefilter("ignore", FutureWarning)
        return scheduler_class(**(config | fixed))
