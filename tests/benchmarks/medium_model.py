"""A random Stable Diffusion 1 at half its width, for measurements on a machine where the full one takes too long."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from library.models.family import Family, StableDiffusion
from library.models.save import save_folder
from library.models.standard import standard_configs
from library.models.tokenizers import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]


def write(folder: str) -> None:
    """Write the model as a diffusers folder; its tokenizer is the mini model's."""
    configs = standard_configs(Family.SD1)
    widths = [width // 2 for width in configs["unet"]["block_out_channels"]]
    unet_config = configs["unet"] | {"block_out_channels": widths, "attention_head_dim": 8}
    torch.manual_seed(0)
    unet: UNet2DConditionModel = UNet2DConditionModel.from_config(unet_config)  # pyright: ignore[reportAssignmentType]
    vae: AutoencoderKL = AutoencoderKL.from_config(configs["vae"])  # pyright: ignore[reportAssignmentType]
    text_encoder = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    tokenizer = load_tokenizer(ROOT / "miniworld" / "model" / "tokenizer")
    scheduler = configs["scheduler"]
    model = StableDiffusion(Family.SD1, "epsilon", unet, vae, [text_encoder], [tokenizer], scheduler, Path("medium"))
    save_folder(model, Path(folder))
