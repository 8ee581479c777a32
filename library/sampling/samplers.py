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
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import KDPM2AncestralDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from library.config.options.sampling import SAMPLERS
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


def make_scheduler(name: str, scheduler_config: Mapping[str, Any]) -> Any:
    """A fresh diffusers scheduler for one of `SAMPLERS`, with the noise schedule of a model's own config.

    Entries of the config that the sampler does not know are left out, as diffusers does when schedulers are exchanged.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"`sample_sampler` '{name}' is not a sampler; known are {', '.join(SAMPLERS)}.")
    name = name.removeprefix("k_")
    if name == "lms" and find_spec("scipy") is None:
        raise ConfigError("`sample_sampler` 'lms' needs the package scipy: `pip install scipy`, or choose 'euler'.")
    scheduler_class, fixed = _SCHEDULERS[name]
    known = inspect.signature(scheduler_class.__init__).parameters
    config = {key: value for key, value in (_STABLE_DIFFUSION | dict(scheduler_config)).items() if key in known}
    with warnings.catch_warnings():  # diffusers means to drop the first DPM-Solver one day; until then it is offered
        warnings.simplefilter("ignore", FutureWarning)
        return scheduler_class(**(config | fixed))
