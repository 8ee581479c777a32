"""Stage 1: the autoencoder, on crops first, then in turn on whole pictures and on crops around eyes and mouths.

The smallest things that matter in this world are eyes, mouths and glasses. Uniform crops rarely show them, and the
autoencoder then paints them as blurs that no U-Net can make good; hence the last third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from miniworld.architecture import IMAGE_SIZE, SCALING_FACTOR, build_vae, use_plain_attention
from miniworld.pretrain import drawings
from miniworld.pretrain.lockstep import Process, TrainingStage, draws, noise_generator
from miniworld.pretrain.preview import save_grid
from miniworld.pretrain.schedule import learning_rate

KL_WEIGHT = 5e-4
CLOSE_UP_SHARE = 1 / 3  # of all steps, at the end
EYES_TO_MOUTH = (np.array([52, 54]), np.array([76, 88]))  # pixels (x, y): where centres of close-ups lie, see faces.py
VALIDATION_PICTURES = 256


@dataclass(frozen=True)
class VaeRecipe:
    steps: int | None
    minutes: float | None
    crops: int  # in a global batch; whole pictures are a third as many, since each costs four crops
    crop_size: int = 64
    art_share: float = 1 / 6  # of every batch, from the held-out styles
    face_share: float = 3 / 4  # of the pretraining pictures of a close-up batch
    peak_rate: float = 1.5e-3


def train(process: Process, folder: Path, seed: int, recipe: VaeRecipe) -> None:
    """Train, put the averaged weights and unit-std latents into `folder/vae`."""
    train_set, art, validation = (drawings.read(folder, name) for name in ("train", "art", "validation"))
    faces = train_set.faces()
    seen = to_tensor(validation.pixels[:VALIDATION_PICTURES])
    torch.manual_seed(seed)
    vae: Any = build_vae()
    vae.to(process.device)
    if process.device == "cpu":
        use_plain_attention(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), recipe.peak_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stage = TrainingStage(
        "vae", folder, process, vae, optimizer,
        steps=recipe.steps, minutes=recipe.minutes, average_decay=0.995,
    )  # fmt: skip
    for step in stage.remaining():
        rng = draws(seed, "vae", step)
        pictures = to_tensor(batch(rng, step, stage.steps, recipe, train_set, art, faces, process))
        loss, divergence = losses(vae, pictures.to(process.device), noise_generator(rng), process)
        (loss + KL_WEIGHT * divergence).backward()
        stage.update(learning_rate(step, stage.steps, recipe.peak_rate, warm_up=100))
        if stage.report_due():
            with stage.averaged(), torch.no_grad(), process.autocast():
                copies = reconstruct(vae, seen[:32].to(process.device)).cpu()
            stage.report(loss=loss.item(), kl=divergence.item(), psnr=psnr(copies, seen[:32]))
            save_grid(torch.cat([seen[12:24], copies[12:24]]), folder / "vae.png", columns=12)
    if process.first:
        with stage.averaged():
            finish(stage, vae, seen, folder)


def batch(
    rng: np.random.Generator,
    step: int,
    steps: int | None,
    recipe: VaeRecipe,
    train_set: drawings.Drawings,
    art: drawings.Drawings,
    faces: np.ndarray,
    process: Process,
) -> np.ndarray:
    """This process' pictures of a step, (share, size, size, 3): drawn as a global batch, then cut."""
    late = steps is not None and step >= steps * (1 - CLOSE_UP_SHARE)
    whole, close_up = late and step % 2 == 1, late and step % 2 == 0
    count = recipe.crops // 3 if whole else recipe.crops
    from_art = max(process.count, round(count * recipe.art_share))
    chosen = rng.integers(len(train_set), size=count)
    if close_up:
        of_faces = rng.random(count) < recipe.face_share
        chosen = np.where(of_faces, rng.choice(faces, count), chosen)
    chosen_art = rng.integers(len(art), size=count)
    is_art = np.arange(count) % (count // from_art) == 0  # spread, so that every process gets its part
    size = IMAGE_SIZE if whole else recipe.crop_size
    if close_up:
        low, high = EYES_TO_MOUTH
        corners = rng.integers(low, high, size=(count, 2), endpoint=True) - size // 2
    else:
        corners = rng.integers(0, IMAGE_SIZE - size, size=(count, 2), endpoint=True)
    mirrored = rng.random(count) < 0.5
    mine = range(count)[process.share(count)]
    cut = []
    for i in mine:
        source = art.pixels[chosen_art[i]] if is_art[i] else train_set.pixels[chosen[i]]
        x, y = corners[i]
        crop = source[y : y + size, x : x + size]
        cut.append(crop[:, ::-1] if mirrored[i] else crop)
    return np.stack(cut)


def losses(vae: AutoencoderKL, pictures: Tensor, generator: torch.Generator, process: Process) -> tuple[Tensor, Tensor]:
    """Reconstruction loss of one posterior sample, and the posterior's divergence from N(0, 1) per element."""
    with process.autocast():
        posterior = vae.encode(pictures).latent_dist  # type: ignore[union-attr]
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        copies = vae.decode(mean + (0.5 * log_variance).exp() * noise).sample  # type: ignore[union-attr]
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return reconstruction_loss(copies.float(), pictures), divergence


def reconstruction_loss(copies: Tensor, pictures: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.7 L1 of the differences between neighbours (edges) + 0.3 L1 of the picture at half and quarter."""
    error = copies - pictures
    across = error[..., 1:] - error[..., :-1]
    down = error[..., 1:, :] - error[..., :-1, :]
    coarse = sum(F.avg_pool2d(error, k).abs().mean() for k in (2, 4))
    return (
        error.abs().mean() + 2 * error.square().mean() + 0.7 * (across.abs().mean() + down.abs().mean()) + 0.3 * coarse
    )


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Through the posterior's mean and back."""
    parts = [
        vae.decode(vae.encode(part).latent_dist.mean).sample.float()  # type: ignore[union-attr]
        for part in pictures.split(32)
    ]
    return torch.cat(parts)


def psnr(copies: Tensor, pictures: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values in -1..1."""
    return 10 * math.log10(4 / F.mse_loss(copies.clamp(-1, 1), pictures).item())


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, h, w) float32 in -1..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def finish(stage: TrainingStage, vae: AutoencoderKL, seen: Tensor, folder: Path) -> None:
    """Measure, give the latents unit std, and save."""
    seen = seen.to(stage.process.device)
    before = psnr(reconstruct(vae, seen), seen)
    with torch.no_grad():
        means = torch.cat([vae.encode(part).latent_dist.mean for part in seen.split(32)])  # type: ignore[union-attr]
        standardise(vae, means)
        after = psnr(reconstruct(vae, seen), seen)
        scaled = SCALING_FACTOR * vae.encode(seen[:64]).latent_dist.mean  # type: ignore[union-attr]
    vae.save_pretrained(folder / "vae")
    deviations = " ".join(f"{value:.2f}" for value in scaled.std((0, 2, 3)).tolist())
    stage.say(f"PSNR {before:.2f} dB, with unit latents {after:.2f} dB; std of scaled latents {deviations}")


@torch.no_grad()
def standardise(vae: Any, means: Tensor) -> None:
    """Bake a shift and a scale per channel into the two 1x1 convolutions around the latents: 0.18215 times a latent
    then has mean 0 and std 1, and pictures stay what they were. `means`: posterior means, (n, 4, h, w)."""
    shift, scale = means.mean((0, 2, 3)), means.std((0, 2, 3)) * SCALING_FACTOR
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:4] /= scale.view(4, 1, 1, 1)
    before.bias[:4] = (before.bias[:4] - shift) / scale
    before.bias[4:] -= 2 * torch.log(scale)
    after.bias += after.weight[:, :, 0, 0] @ shift
    after.weight *= scale.view(1, 4, 1, 1)
