"""Restorers written in each layout. Only names change: no tensor is computed, so what goes and comes back is the same.

What no part of generating uses is not kept: the text encoder's 24th layer comes back as a copy of the 23rd, its
projection as the identity, and the numbers of the noise schedule are computed anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.atomic import atomic_folder
from library.diffusion.schedule import scaled_linear_betas
from library.errors import UserError
from library.files import write_json, write_tensors
from library.models.family import Family
from library.models.save import original_tensors, packed_configs, save_folder
from library.models.standard import standard_configs
from library.streamed_weights import open_weights
from restoration.system.layouts import (
    CLEANER,
    CONDITION_ENCODER,
    Layout,
    Tensors,
    encoder_to,
    is_whole_restorer,
    unwrapped,
)
from restoration.system.load import (
    CLEANER_FILE,
    ENCODER_FOLDER,
    Restorer,
    encoder_metadata,
    encoder_tensors,
    load_restorer,
    packed_config,
    weights_file,
)
from restoration.system.system import IRControlNet

_VAE_ENCODER = ("first_stage_model.encoder.", "first_stage_model.quant_conv.")


def convert_restorer(source: Path, model: Path | None, target: Path, layout: str) -> list[str]:
    """Convert; returns lines on what was written. Raises `UserError` where the input cannot become that layout."""
    if not source.exists():
        raise UserError(f"`input = {source}` does not exist; give a restorer's file or folder")
    if layout == Layout.DIFFBIR_V2.value:
        return _write_v2(source, target)
    if is_whole(source):
        restorer = load_restorer(source)
    elif model is not None:
        restorer = load_restorer(model, source)
    elif layout == Layout.DIFFUSERS.value:
        return _write_encoder(source, target)
    else:
        raise UserError(f"'{source}' holds E alone; give the Stable Diffusion that belongs to it as `model`")
    return _write_v1(restorer, target) if layout == Layout.DIFFBIR_V1.value else _write_folder(restorer, target)


def is_whole(source: Path) -> bool:
    """Whether the input has G, E and all that belongs to them."""
    if source.is_dir():
        return (source / "model_index.json").is_file() and (source / ENCODER_FOLDER).is_dir()
    return is_whole_restorer(unwrapped(open_weights(source).outline))


def encoder_config(source: Path) -> dict[str, Any]:
    """The architecture of an E that comes alone: what its file or folder says, else that of SD 2.1."""
    file = weights_file(source)
    config = file.with_name("config.json")
    if source.is_dir() and config.is_file():
        return json.loads(config.read_text(encoding="utf-8"))
    return packed_config(encoder_metadata(source)) or standard_configs(Family.SD2)["unet"]


def _write_v2(source: Path, target: Path) -> list[str]:
    config = encoder_config(source)
    tensors = encoder_to(encoder_tensors(source, config), Layout.DIFFBIR_V2, config)
    write_tensors(target, tensors, {"diffusers_config": json.dumps(_plain(config))})
    return [f"wrote E, {len(tensors)} tensors, to {target}"]


def _write_encoder(source: Path, target: Path) -> list[str]:
    config = encoder_config(source)
    tensors = encoder_tensors(source, config)
    encoder = IRControlNet.for_config(config)
    missing = encoder.state_dict().keys() ^ tensors.keys()
    if missing:
        raise UserError(
            f"'{source}' is not the ControlNet of a Stable Diffusion 2.1 ({len(missing)} names differ, such as "
            f"`{sorted(missing)[0]}`); give the model that it belongs to as `model`"
        )
    with atomic_folder(target / ENCODER_FOLDER) as folder:
        _write_e(encoder.config, tensors, folder)
    return [f"wrote E, {len(tensors)} tensors, to {target / ENCODER_FOLDER}"]


def _write_folder(restorer: Restorer, target: Path) -> list[str]:
    system = restorer.system
    lines = [*restorer.notes]
    with atomic_folder(target) as folder:
        save_folder(system.model, folder)
        (folder / ENCODER_FOLDER).mkdir()
        _write_e(system.encoder.config, dict(system.encoder.state_dict()), folder / ENCODER_FOLDER)
        if restorer.cleaner:
            write_tensors(folder / CLEANER_FILE, restorer.cleaner)
            lines.append(f"wrote the cleaner, {len(restorer.cleaner)} tensors, to {target / CLEANER_FILE}")
    g, e = len(system.unet.state_dict()), len(system.encoder.state_dict())
    return [*lines, f"wrote {g} tensors of G and {e} of E to {target}"]


def _write_e(config: Any, tensors: Tensors, folder: Path) -> None:
    """E as diffusers' `save_pretrained` lays it out, with names that `IRControlNet.from_pretrained` reads."""
    write_json(folder / "config.json", {"_class_name": "IRControlNet", **_plain(config)})
    write_tensors(folder / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"})


def _write_v1(restorer: Restorer, target: Path) -> list[str]:
    system = restorer.system
    tensors = original_tensors(system.model)
    tensors |= encoder_to(system.encoder.state_dict(), Layout.DIFFBIR_V1, dict(system.encoder.config))
    for name in [name for name in tensors if name.startswith(_VAE_ENCODER)]:
        tensors[CONDITION_ENCODER + name.removeprefix("first_stage_model.")] = tensors[name]
    tensors |= {CLEANER + name: tensor for name, tensor in restorer.cleaner.items()}
    tensors |= schedule_numbers(system.model.scheduler_config)
    tensors |= unused_text_tensors(system.model.text_encoders[0].config.hidden_size)
    write_tensors(target, tensors, {"diffusers_config": json.dumps(packed_configs(system.model))})
    return [*restorer.notes, f"wrote {len(tensors)} tensors to {target}"]


def unused_text_tensors(width: int) -> dict[str, Tensor]:
    """What open_clip's text encoder has beside what Stable Diffusion 2 reads; loaders of v1 files ask for it."""
    return {
        "cond_stage_model.model.text_projection": torch.eye(width),
        "cond_stage_model.model.logit_scale": torch.tensor(4.6052),  # ln 100
    }


def schedule_numbers(config: dict[str, Any]) -> dict[str, Tensor]:
    """The 13 buffers of latent diffusion's schedule (Ho et al. 2020, eq. 4 and 7), which a v1 file carries."""
    betas = scaled_linear_betas(config.get("beta_start", 0.00085), config.get("beta_end", 0.012), 1000).double()
    alpha_bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    variance = betas * (1 - before) / (1 - alpha_bar)
    numbers = {
        "betas": betas,
        "alphas_cumprod": alpha_bar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": alpha_bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - alpha_bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - alpha_bar).log(),
        "sqrt_recip_alphas_cumprod": (1 / alpha_bar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / alpha_bar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp_min(1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - alpha_bar),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - alpha_bar),
        "logvar": torch.zeros(1000),
    }
    return {name: values.float() for name, values in numbers.items()}


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps({name: value for name, value in dict(config).items() if not name.startswith("_")}))
