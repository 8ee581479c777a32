"""A model's shape without its weights: what it is, from its configs or a file's header, and its parts' modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from library.errors import UserError
from library.models.family import Family, StableDiffusion
from library.models.folder import folder_configs
from library.models.load import opened, packed_configs
from library.models.recognise import check_width, recognise_file
from library.models.standard import Configs, standard_configs


def model_configs(path: Path) -> tuple[Family, Configs]:
    """The family and the configs of the parts of a folder or a single file. Raises UserError if it is no such model.

    Of a .safetensors file only the header is read.
    """
    if path.is_dir():
        return folder_configs(path)
    if not path.is_file():
        raise UserError(f"There is no model at '{path}'. Give the path of a diffusers folder, or of a file.")
    file = opened(path)
    family = recognise_file(file.outline, file.metadata, path).family
    packed = packed_configs(file.metadata, path)
    if packed is None:
        check_width(file.outline, family, path)
    return family, packed or standard_configs(family)


def skeleton(
    path: Path, family: Family, configs: Configs, *, dtype: torch.dtype, vae_dtype: torch.dtype | None = None
) -> StableDiffusion:
    """The model with weights of no content, frozen: make it where tensors take no memory (`FakeTensorMode`)."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        unet: Any = UNet2DConditionModel.from_config(dict(configs["unet"]))
        encoders: list[Any] = [CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))]
        if family is Family.SDXL:
            encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])))
        torch.set_default_dtype(vae_dtype or dtype)
        vae: Any = AutoencoderKL.from_config(dict(configs["vae"]))
    finally:
        torch.set_default_dtype(before)
    for part in (unet, vae, *encoders):
        part.requires_grad_(False).eval()
    return StableDiffusion(family, "epsilon", unet, vae, encoders, [], dict(configs["scheduler"]), path)
