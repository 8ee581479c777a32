"""Pictures from prompts: the denoising loop with classifier-free guidance, over diffusers' schedulers."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from library.errors import ConfigError
from library.models.conditioning import added_conditions
from library.models.family import StableDiffusion
from library.models.half import in_dtype
from library.models.text import TextEmbeddings
from library.sampling.prompts import SamplePrompt
from library.sampling.samplers import make_scheduler

# Pictures that go through the U-Net, and through the VAE, at once: memory decides, so the measure is pixels.
_DENOISED_PIXELS = 2**19  # 32 pictures of 128, 2 of 512, 1 of 1024
_DECODED_PIXELS = 2**20


class Conditioner(Protocol):
    """What `generate` asks of a TextConditioner."""

    def encode(self, captions: Sequence[str], *, grad: bool = False) -> TextEmbeddings: ...


@torch.no_grad()
def generate(
    model: StableDiffusion,
    conditioner: Conditioner,
    prompts: Sequence[SamplePrompt],
    *,
    sampler: str = "ddim",
    batch_size: int | None = None,
    decode_batch_size: int | None = None,
    autocast: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
) -> list[Image.Image]:
    """Draw one picture for each prompt, in the prompts' order.

    `sampler` is for prompts that name none. Prompts of equal size, steps and sampler are drawn together, as many as fit
    a modest memory, or `batch_size`; the VAE decodes in `vae_dtype`, `decode_batch_size` at a time. `autocast` runs
    U-Net and text encoders in that type; None leaves the caller's autocast, if any, as it is. All noise of a picture
    comes from a CPU generator seeded with its seed, so a prompt gives the same picture in any company; no global
    generator is read. The modules' modes and the networks applied to them are the caller's business.
    """
    seeded = [prompt if prompt.seed is not None else replace(prompt, seed=secrets.randbits(32)) for prompt in prompts]
    pictures: dict[int, Image.Image] = {}
    for (size, steps, name), indices in _alike(seeded, model.native_size, sampler).items():
        together = batch_size or _fitting(size, _DENOISED_PIXELS)
        for first in range(0, len(indices), together):
            chosen = indices[first : first + together]
            latents = denoise(model, conditioner, [seeded[i] for i in chosen], size, steps, name, autocast)
            images = decode(model.vae, latents, vae_dtype, decode_batch_size or _fitting(size, _DECODED_PIXELS))
            pictures |= zip(chosen, images, strict=True)
    return [pictures[index] for index in range(len(prompts))]


def denoise(
    model: StableDiffusion,
    conditioner: Conditioner,
    prompts: Sequence[SamplePrompt],
    size: tuple[int, int],
    steps: int,
    sampler: str,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Latents of prompts that share size (width, height), steps and sampler: float32 (batch, 4, height/8, width/8).

    Raises `ConfigError` where they are no numbers.
    """
    unet = model.unet
    device = unet.device
    scheduler = make_scheduler(sampler, model.scheduler_config, size[0] * size[1])
    scheduler.set_timesteps(steps, device=device)
    generators = [torch.Generator("cpu").manual_seed(int(prompt.seed or 0)) for prompt in prompts]
    shape = (unet.config["in_channels"], size[1] // model.latent_factor, size[0] // model.latent_factor)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    latents = noise.to(device) * scheduler.init_noise_sigma  # (batch, 4, height/8, width/8)

    scales = torch.tensor([prompt.scale for prompt in prompts], device=device)
    guided = bool((scales > 1).any())
    with _running_in(autocast, device):
        text = conditioner.encode([prompt.prompt for prompt in prompts])
        if guided:
            empty = conditioner.encode([prompt.negative_prompt for prompt in prompts])
            text = TextEmbeddings.join([empty, text])
    text = text.to(device, unet.dtype)
    added = _size_conditions(text, size)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": generators} if takes_generator else {}

    for timestep in scheduler.timesteps:
        doubled = torch.cat([latents, latents]) if guided else latents
        scaled = scheduler.scale_model_input(doubled, timestep).to(unet.dtype)
        with _running_in(autocast, device):
            prediction = unet(
                scaled, timestep, encoder_hidden_states=text.hidden, added_cond_kwargs=added, return_dict=False
            )[0]
        prediction = prediction.float()
        if guided:
            prediction = guidance(*prediction.chunk(2), scales)
        latents = scheduler.step(prediction, timestep, latents, return_dict=False, **extra)[0]
    if not latents.isfinite().all():
        raise ConfigError(
            f"{sampler} came to values that are no numbers in {steps} steps. Ask for fewer (`--s`) or for another "
            "sampler (`--ss euler`); if none draws, the weights have diverged."
        )
    return latents


def guidance(unconditional: Tensor, conditional: Tensor, scales: Tensor) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022, eq. 6): away from the negative prompt by each picture's scale.

    A scale of 1 or less means none, as everywhere in the field.
    """
    strength = scales.clamp(min=1).view(-1, 1, 1, 1)
    return unconditional + strength * (conditional - unconditional)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, dtype: torch.dtype, batch_size: int) -> list[Image.Image]:
    """Pictures from latents that are scaled as the U-Net sees them."""
    with in_dtype(vae, dtype), torch.autocast(latents.device.type, enabled=False):
        latents = latents.to(dtype) / vae.config["scaling_factor"] + (vae.config.get("shift_factor") or 0.0)
        batches = [_decoded(vae, batch) for batch in latents.split(batch_size)]
    return [picture for batch in batches for picture in to_pictures(batch)]


def _decoded(vae: Any, latents: Tensor) -> Tensor:
    images = vae.decode(latents, return_dict=False)[0].float().cpu()
    if images.isfinite().all() or latents.dtype == torch.float32:
        return images
    # Half precision is too narrow for some VAEs (SDXL's own): what would come out is a black picture.
    with in_dtype(vae, torch.float32):
        return _decoded(vae, latents.float())


def to_pictures(images: Tensor) -> list[Image.Image]:
    """(batch, 3, height, width) in -1..1 to RGB pictures, rounded to the nearest of 256 values."""
    values = (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in (values * 255).round().astype(np.uint8)]


def _alike(
    prompts: Sequence[SamplePrompt], native_size: int, sampler: str
) -> dict[tuple[tuple[int, int], int, str], list[int]]:
    """Indices of prompts that can be drawn together, by size, steps and sampler."""
    groups: dict[tuple[tuple[int, int], int, str], list[int]] = {}
    for index, prompt in enumerate(prompts):
        key = (prompt.size(native_size), prompt.sample_steps, prompt.sample_sampler or sampler)
        groups.setdefault(key, []).append(index)
    return groups


def _size_conditions(text: TextEmbeddings, size: tuple[int, int]) -> dict[str, Tensor] | None:
    """SDXL is told that the picture is whole and of the size that is drawn."""
    if text.pooled is None:
        return None
    sizes = torch.tensor([[size[1], size[0]]]).expand(len(text), 2)
    return added_conditions(text.pooled, sizes, torch.zeros_like(sizes), sizes)


def _running_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _fitting(size: tuple[int, int], pixels: int) -> int:
    return max(1, pixels // (size[0] * size[1]))
