"""What an arm is measured by: the denoising loss on pictures it has not seen, and what the judge sees in its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from library.diffusion.loss import squared_error
from library.diffusion.schedule import add_noise, alphas_cumprod
from library.models.family import StableDiffusion
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from miniworld.judge import Judge, to_pictures
from miniworld.scenes import ScenePicture

DRAWS = 4  # of noise and timestep for each picture: stratified, and the same for every arm
BATCH = 32
STEPS, GUIDANCE = 12, 4.0
AUTOCAST = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else None
"""Of the U-Net while measuring: a third faster, and the loss changes by less than 0.1 %. A CPU that has no instructions
for it is 15 times slower in bfloat16, and measures in float32."""


class HeldOut:
    """Pictures with captions, ready to be denoised again and again under the same noise."""

    @torch.no_grad()
    def __init__(self, model: StableDiffusion, pictures: Sequence[ScenePicture], seed: int = 0) -> None:
        images = to_pictures(np.stack([picture.image for picture in pictures]))
        posterior = model.vae.encode(images).latent_dist  # type: ignore[union-attr]
        latents = posterior.mean * model.scaling_factor
        hidden = TextConditioner(model).encode([picture.caption for picture in pictures]).hidden
        self._draw(model, latents, hidden, seed)

    @classmethod
    def of_latents(cls, model: StableDiffusion, latents: Tensor, hidden: Tensor, seed: int = 0) -> HeldOut:
        """The same of latents, scaled as the U-Net sees them, and of encoded captions."""
        made = cls.__new__(cls)
        made._draw(model, latents, hidden, seed)
        return made

    def _draw(self, model: StableDiffusion, latents: Tensor, hidden: Tensor, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = len(latents)
        order = [torch.randperm(count, generator=generator) for _ in range(DRAWS)]
        evenly = [(torch.arange(count) + (draw + 0.5) / DRAWS) * 1000 / count for draw in range(DRAWS)]
        self.timesteps = torch.cat([even.long()[o] for even, o in zip(evenly, order, strict=True)])
        self.latents, self.hidden = latents.repeat(DRAWS, 1, 1, 1), hidden.repeat(DRAWS, 1, 1)
        self.noise = torch.randn(self.latents.shape, generator=generator)
        self.shift: Tensor | None = None  # added to the noise where something else is to be predicted
        self._alpha_bar = alphas_cumprod(model.scheduler_config)

    @torch.no_grad()
    def loss(self, model: StableDiffusion) -> float:
        """Mean squared error of the predicted noise."""
        return float(torch.cat([self._errors(model, part) for part in range(0, len(self.latents), BATCH)]).mean())

    def _errors(self, model: StableDiffusion, first: int) -> Tensor:
        rows = slice(first, first + BATCH)
        timesteps, noise = self.timesteps[rows], self.noise[rows]
        noisy = add_noise(self.latents[rows], noise, self._alpha_bar[timesteps])
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=AUTOCAST is not None):
            predicted = model.unet(noisy, timesteps, self.hidden[rows]).sample
        target = noise if self.shift is None else noise + self.shift[rows]
        return squared_error(predicted.float(), target)


def draw(model: StableDiffusion, captions: Sequence[str], seed: int = 100) -> np.ndarray:
    """One picture for each caption, the same noise for every arm: uint8 (count, height, width, 3)."""
    prompts = [
        SamplePrompt(caption, seed=seed + i, scale=GUIDANCE, sample_steps=STEPS) for i, caption in enumerate(captions)
    ]
    pictures = generate(model, TextConditioner(model), prompts, autocast=AUTOCAST)
    return np.stack([np.asarray(picture) for picture in pictures])


@torch.no_grad()
def through_vae(model: StableDiffusion, images: np.ndarray) -> np.ndarray:
    """Pictures encoded and decoded: what the model would show if it denoised perfectly. uint8, as given."""
    posterior = model.vae.encode(to_pictures(images)).latent_dist  # type: ignore[union-attr]
    decoded = model.vae.decode(posterior.mean).sample  # type: ignore[union-attr]
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def similarity(features: Tensor, truth: Tensor) -> float:
    """Mean cosine between the features of each picture and those of the drawing of the same caption."""
    return float(torch.cosine_similarity(features, truth, dim=1).mean())


def content_score(judge: Judge, images: np.ndarray, pictures: Sequence[ScenePicture]) -> float:
    """Share of the pictures in which the judge sees the object or shape that the caption names."""
    found = []
    for seen, picture in zip(judge.read(images), pictures, strict=True):
        asked = {"object": picture.facts.object, "shape": picture.facts.shape}
        found += [seen[head] == value for head, value in asked.items() if value and picture.facts.kind != "two"]
    return float(np.mean(found)) if found else float("nan")
