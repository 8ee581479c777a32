"""The base model of a run, loaded as its options say, and what they say that its weights contradict."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from library.config.option import Settings
from library.models.family import Family, StableDiffusion
from library.models.load import load_model
from library.training.runtime.mixed_precision import DTYPES

LoadModel = Callable[[Settings, torch.device, Callable[[str], None]], StableDiffusion]
"""How a run comes by its base model: `load_base_model`, or what keeps one loaded for several runs."""


def load_base_model(settings: Settings, device: torch.device, say: Callable[[str], None]) -> StableDiffusion:
    """The model that is trained on: on the CPU, or with `lowram` on the device at once.

    The weights decide what it is; `say` is told what of `v2`, `sdxl` and `v_parameterization` contradicts them.
    """
    mapped = not settings["disable_mmap_load_safetensors"]
    model = load_model(
        settings["pretrained_model_name_or_path"],
        dtype=DTYPES[settings["mixed_precision"]],
        vae=settings["vae"],
        vae_dtype=torch.float32 if settings["no_half_vae"] else None,
        tokenizer_cache_dir=settings["tokenizer_cache_dir"],
        prediction_type="v_prediction" if settings["v_parameterization"] else None,
        device=device if settings["lowram"] else "cpu",
        mapped=mapped,
    )
    apply_noise_schedule(settings, model)
    for line in contradictions(settings, model):
        say(line)
    if not mapped:
        how = "is a folder, to which `disable_mmap_load_safetensors` does not apply"
        say(f"{model.source.name} {how if model.source.is_dir() else 'was read without mapping it into memory'}")
    return model


def apply_noise_schedule(settings: Settings, model: StableDiffusion) -> None:
    """What the options change of the model's noise schedule; the objective, its SNR and the samplers follow."""
    if settings["zero_terminal_snr"]:
        model.scheduler_config["rescale_betas_zero_snr"] = True


def contradictions(settings: Settings, model: StableDiffusion) -> Iterator[str]:
    """A line for each option that a person wrote and that the model's files say otherwise."""
    for name, family in (("v2", Family.SD2), ("sdxl", Family.SDXL)):
        if settings.explicit(name) and settings[name] != (model.family is family):
            what = f"does not match the weights, which are {model.family.spoken}"
            yield f"{settings.place(name)} {what}; the weights count"
    name = "v_parameterization"
    if settings.explicit(name) and not settings[name] and model.says == "v_prediction":
        yield f"{settings.place(name)} is off, but {model.source.name} says that it predicts v; the file counts"
