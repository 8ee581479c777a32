"""The base model of a run, loaded as its options say, and what they say that its weights contradict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch

from library.config.option import Settings
from library.config.spec import declared, spec
from library.diffusion.rectified_flow import USUAL_SHIFT, FlowSpec
from library.models.family import Family, PredictionType, StableDiffusion
from library.models.load import load_model
from library.models.vae_padding import pad_by_reflection
from library.training.runtime.mixed_precision import DTYPES

logger = logging.getLogger(__name__)

LoadModel = Callable[[Settings, torch.device], StableDiffusion]
"""How a run comes by its base model: `load_base_model`, or what keeps one loaded for several runs."""


@spec
class BaseModelSpec:
    """The options that loading looks at; runs that agree in them may share one model."""

    pretrained_model_name_or_path: str
    vae: str | None = declared
    mixed_precision: str = declared
    no_half_vae: bool = declared
    tokenizer_cache_dir: str | None = declared
    v2: bool = declared
    sdxl: bool = declared
    v_parameterization: bool = declared
    zero_terminal_snr: bool = declared
    lowram: bool = declared
    disable_mmap_load_safetensors: bool = declared
    flow_model: bool = declared
    flow_uniform_static_ratio: float | None = declared
    flow_uniform_shift: bool = declared
    flow_uniform_base_pixels: int | None = declared
    vae_custom_scale: float | None = declared
    vae_custom_shift: float | None = declared
    vae_reflection_padding: bool = declared

    @property
    def prediction(self) -> PredictionType | None:
        """What the options say that the model predicts; None leaves it to its files."""
        if self.flow_model:
            return "flow_prediction"
        return "v_prediction" if self.v_parameterization else None


def load_base_model(settings: Settings, device: torch.device) -> StableDiffusion:
    """The model that is trained on: on the CPU, or with `lowram` on the device at once.

    The weights decide what it is; what of `v2`, `sdxl` and `v_parameterization` contradicts them is logged.
    """
    asked = settings.take(BaseModelSpec)
    mapped = not asked.disable_mmap_load_safetensors
    model = load_model(
        asked.pretrained_model_name_or_path,
        dtype=DTYPES[asked.mixed_precision],
        vae=asked.vae,
        vae_dtype=torch.float32 if asked.no_half_vae else None,
        tokenizer_cache_dir=asked.tokenizer_cache_dir,
        prediction_type=asked.prediction,
        device=device if asked.lowram else "cpu",
        mapped=mapped,
    )
    adjust_vae(model, asked)
    apply_noise_schedule(settings, model)
    report_contradictions(settings, model)
    if not mapped:
        how = "is a folder, to which `disable_mmap_load_safetensors` does not apply"
        logger.info(
            f"{model.source.name} {how if model.source.is_dir() else 'was read without mapping it into memory'}"
        )
    return model


def report_contradictions(settings: Settings, model: StableDiffusion) -> None:
    """Log what the options say of the model that its weights contradict."""
    for line in contradictions(settings, model):
        logger.info(line)


def apply_noise_schedule(settings: Settings, model: StableDiffusion) -> None:
    """What the options change of the model's noise schedule; the objective, its SNR and the samplers follow."""
    if model.is_flow:
        model.scheduler_config |= sampled_path(settings.take(FlowSpec), model)
    elif settings.take(BaseModelSpec).zero_terminal_snr:
        model.scheduler_config["rescale_betas_zero_snr"] = True


def adjust_vae(model: StableDiffusion, spec: BaseModelSpec) -> None:
    """Scale, shift and padding of the VAE where they are asked for; all that encodes and decodes follows its config."""
    asked = {"scaling_factor": spec.vae_custom_scale, "shift_factor": spec.vae_custom_shift}
    model.vae.register_to_config(**{name: value for name, value in asked.items() if value is not None})
    if spec.vae_reflection_padding:
        pad_by_reflection(model.vae)


def sampled_path(flow: FlowSpec, model: StableDiffusion) -> dict[str, Any]:
    """How samples of a rectified-flow model go from noise to picture: shifted as the training, or as it is usual."""
    if flow.flow_uniform_static_ratio is not None:
        return {"shift": flow.flow_uniform_static_ratio}
    if flow.flow_uniform_shift:
        return {"base_pixels": flow.base_pixels}
    return {"shift": model.scheduler_config.get("shift") or (USUAL_SHIFT if model.family is Family.SDXL else 1.0)}


def contradictions(settings: Settings, model: StableDiffusion) -> Iterator[str]:
    """A line for each option that a person wrote and that the model's files say otherwise."""
    for name, family in (("v2", Family.SD2), ("sdxl", Family.SDXL)):
        if settings.explicit(name) and settings[name] != (model.family is family):
            what = f"does not match the weights, which are {model.family.spoken}"
            yield f"{settings.place(name)} {what}; the weights count"
    for name, kind, what in (
        ("v_parameterization", "v_prediction", "it predicts v"),
        ("flow_model", "flow_prediction", "it is a rectified-flow model"),
    ):
        if settings.explicit(name) and not settings[name] and model.says == kind:
            yield f"{settings.place(name)} is off, but {model.source.name} says that {what}; the file counts"
