"""Pictures to look at while it trains: sampling from prompts, and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from miniworld.architecture import LATENT_SIZE, SCALING_FACTOR, build_scheduler
from miniworld.tokenizer import token_ids

PROMPTS = (
    "a photo of a red circle on a blue background",
    "a photo of a big yellow star on a purple background",
    "a photo of a green heart above a black ring on a white background",
    "a photo of an orange hexagon on a gray background",
    "a photo of a red car on the beach",
    "a photo of a white cat in a meadow",
    "a photo of a blue house in the snow",
    "a photo of a cyan fish on a white background",
    "a photo of a pale woman with long blond hair and blue eyes, smiling, red background",
    "a photo of a dark man with a bald head and a beard, sad, yellow background",
    "a photo of a tan woman with curly red hair and round glasses, surprised, green background",
    "a photo of a fair man with spiky black hair and square glasses, smiling, cyan background",
    "a photo of john garcia",
    "a photo of mary johnson, sad, red background",
    "a sketch of a green boat at sunset",
    "pixel art of a fair man with short brown hair, blue background",
)


@torch.no_grad()
def generate(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    vae: AutoencoderKL,
    prompts: list[str],
    *,
    seed: int,
    steps: int = 20,
    guidance: float = 4.0,
    batch: int = 16,
) -> Tensor:
    """Pictures, (prompts, 3, 128, 128) in -1..1: DDIM with classifier-free guidance. Picture i starts from the noise
    of seed + i, whatever the batch size."""
    device = unet.device
    empty = text_encoder(token_ids(tokenizer, [""]).to(device)).last_hidden_state
    pictures = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        told = text_encoder(token_ids(tokenizer, part).to(device)).last_hidden_state
        conditions = torch.cat([empty.expand_as(told), told])
        latents = torch.cat([starting_noise(seed + start + i) for i in range(len(part))]).to(device)
        scheduler = build_scheduler()
        scheduler.set_timesteps(steps)
        for timestep in scheduler.timesteps:
            without, with_prompt = unet(torch.cat([latents, latents]), timestep, conditions).sample.float().chunk(2)
            noise_pred = without + guidance * (with_prompt - without)
            latents = scheduler.step(noise_pred, timestep, latents).prev_sample  # type: ignore[union-attr]
        pictures.append(vae.decode(latents / SCALING_FACTOR).sample.float().clamp(-1, 1).cpu())  # type: ignore[union-attr]
    return torch.cat(pictures)


def starting_noise(seed: int) -> Tensor:
    """The noise that picture `seed` starts from, (1, 4, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 4, LATENT_SIZE, LATENT_SIZE, generator=generator)


def to_pixels(pictures: Tensor) -> np.ndarray:
    """(n, 3, h, w) in -1..1 -> (n, h, w, 3) uint8."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def save_grid(pictures: Tensor, file: Path, columns: int) -> None:
    """A contact sheet, row by row."""
    pixels = to_pixels(pictures)
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for i, picture in enumerate(pixels):
        y, x = divmod(i, columns)
        sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = picture
    Image.fromarray(sheet).save(file)
