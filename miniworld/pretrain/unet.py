"""Stage 4: the U-Net learns to predict noise, and the text encoder with it.

Epsilon prediction with min-SNR weights, timesteps stratified over the batch, a tenth of the captions dropped for
classifier-free guidance, and an average of the weights, which is what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from miniworld.architecture import (
    build_scheduler,
    build_text_encoder,
    build_unet,
    keep_clip_scales,
    use_plain_attention,
)
from miniworld.pretrain import drawings
from miniworld.pretrain.lockstep import Process, TrainingStage, draws, noise_generator
from miniworld.pretrain.preview import PROMPTS, generate, save_grid
from miniworld.pretrain.schedule import learning_rate
from miniworld.pretrain.text_encoder import parameter_groups
from miniworld.tokenizer import load_tokenizer, token_ids

VALIDATION_PICTURES = 256
GRID_EVERY = 1000  # steps
MIN_SNR_GAMMA = 5.0
CAPTION_DROPOUT = 0.1
WARM_UP = 200  # steps
FLAT = 0.25  # of all steps before the learning rate begins to fall
TIMESTEPS = 1000
ALPHAS_CUMPROD: Tensor = build_scheduler().alphas_cumprod


@dataclass(frozen=True)
class UNetRecipe:
    steps: int | None
    minutes: float | None
    batch: int = 32  # over all processes
    peak_rate: float = 1e-3
    text_share: float = 0.5  # of the learning rate, for the text encoder


def train(process: Process, folder: Path, seed: int, recipe: UNetRecipe) -> None:
    """Train from `folder/latents.pt` and `folder/text_encoder.pt`; the checkpoint holds the result."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    latents = torch.load(folder / "latents.pt", weights_only=True)
    ids = token_ids(tokenizer, drawings.read(folder, "train").captions).short()
    told = token_ids(tokenizer, drawings.read(folder, "validation").captions[:VALIDATION_PICTURES])
    no_caption = token_ids(tokenizer, [""]).short()
    torch.manual_seed(seed)
    model = build_model(len(tokenizer), folder / "text_encoder.pt").to(process.device)
    if process.device == "cpu":
        use_plain_attention(model["unet"], model["text_encoder"])
    stage = build_stage(model, folder, process, recipe)
    for step in stage.remaining():
        rng = draws(seed, "unet", step)
        chosen = rng.integers(len(ids), size=recipe.batch)
        dropped = torch.from_numpy(rng.random(recipe.batch) < CAPTION_DROPOUT)
        timesteps = stratified_timesteps(rng, recipe.batch)
        noise = torch.randn(recipe.batch, *latents["train"].shape[1:], generator=noise_generator(rng))
        mine = process.share(recipe.batch)
        captions = torch.where(dropped[mine, None], no_caption, ids[chosen[mine]]).long()
        clean = latents["train"][chosen[mine]].float()
        with process.autocast():
            errors = squared_errors(model, clean, captions, timesteps[mine], noise[mine])
        (errors * min_snr_weight(timesteps[mine]).to(errors)).mean().backward()
        stage.update(learning_rate(step, stage.steps, recipe.peak_rate, WARM_UP, FLAT))
        keep_clip_scales(model["text_encoder"])
        if stage.report_due():
            with stage.averaged(), process.autocast():
                held_out = validation_error(model, latents["validation"][:VALIDATION_PICTURES].float(), told)
            seen = stage.step * recipe.batch
            stage.report(pictures=seen, loss=errors.mean().item(), validation_error=held_out)
        if process.first and stage.step % GRID_EVERY == 0:
            draw_grid(stage, tokenizer, folder)
    if process.first:
        draw_grid(stage, tokenizer, folder)


def build_model(vocabulary_size: int, text_weights: Path | None = None) -> nn.ModuleDict:
    """The U-Net and the text encoder, the latter as the stage before left it."""
    model = nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(vocabulary_size)})
    if text_weights is not None:
        model["text_encoder"].load_state_dict(torch.load(text_weights, weights_only=True))
    return model


def build_stage(model: nn.ModuleDict, folder: Path, process: Process, recipe: UNetRecipe) -> TrainingStage:
    groups = [
        *parameter_groups(model["unet"], share=1.0),
        *parameter_groups(model["text_encoder"], share=recipe.text_share),
    ]
    optimizer = torch.optim.AdamW(groups, recipe.peak_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    return TrainingStage(
        "unet", folder, process, model, optimizer,
        steps=recipe.steps, minutes=recipe.minutes, average_decay=0.998,
    )  # fmt: skip


def stratified_timesteps(rng: np.random.Generator, batch: int) -> Tensor:
    """One timestep from each of `batch` equal intervals, in random order: less variance than independent draws."""
    return torch.from_numpy(
        rng.permutation((np.arange(batch) + rng.random(batch)) * TIMESTEPS / batch).astype(np.int64)
    )


def add_noise(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps (Ho et al. 2020, eq. 4)."""
    alphas = ALPHAS_CUMPROD[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt() * clean + (1 - alphas).sqrt() * noise


def min_snr_weight(timesteps: Tensor) -> Tensor:
    """min(SNR, gamma) / SNR, for epsilon prediction (Hang et al. 2023, section 3.4)."""
    alphas = ALPHAS_CUMPROD[timesteps]
    snr = alphas / (1 - alphas)
    return snr.clamp(max=MIN_SNR_GAMMA) / snr


def squared_errors(model: nn.ModuleDict, clean: Tensor, captions: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise of each picture, (batch,)."""
    device = next(model.parameters()).device
    noisy = add_noise(clean, noise, timesteps)
    hidden = model["text_encoder"](captions.to(device)).last_hidden_state
    noise_pred = model["unet"](noisy.to(device), timesteps.to(device), hidden).sample
    return (noise_pred.float() - noise.to(device)).square().mean((1, 2, 3))


@torch.no_grad()
def validation_error(model: nn.ModuleDict, clean: Tensor, captions: Tensor) -> float:
    """Mean squared error on pictures that were never trained on, always with the same noise and timesteps."""
    rng = np.random.default_rng(1)
    timesteps = stratified_timesteps(rng, len(clean))
    noise = torch.randn(clean.shape, generator=noise_generator(rng))
    parts = zip(*(tensor.split(64) for tensor in (clean, captions, timesteps, noise)), strict=True)
    return float(torch.cat([squared_errors(model, *part) for part in parts]).mean())


def draw_grid(stage: TrainingStage, tokenizer, folder: Path) -> None:
    """What the averaged weights make of a few prompts: `folder/unet.png`, and one numbered by the step."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(stage.process.device).eval()  # type: ignore[union-attr]
    with stage.averaged() as model, stage.process.autocast():
        pictures = generate(model["unet"], model["text_encoder"], tokenizer, vae, list(PROMPTS), seed=3)  # type: ignore[index]
    for name in ("unet.png", f"unet-{stage.step:06d}.png"):
        save_grid(pictures, folder / name, columns=8)
