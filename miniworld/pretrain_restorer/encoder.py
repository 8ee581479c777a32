"""Stage 2: E learns to steer G: B = {G(x_t, null), E(x_t, null, c(I))} of eq. 4 predicts the noise of faces.

G stays as it was pretrained and reads the null text, as E does. Timesteps are uniform, stratified over the batch;
errors have min-SNR weights, as in G's own pretraining; an average of E's weights is what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from library.models.load import load_model
from miniworld.architecture import use_plain_attention
from miniworld.pretrain.lockstep import Process, TrainingStage, draws, noise_generator
from miniworld.pretrain.schedule import learning_rate
from miniworld.pretrain.unet import add_noise, min_snr_weight, stratified_timesteps
from miniworld.pretrain_restorer import faces
from miniworld.pretrain_restorer.measure import draw_grid
from restoration.system.system import IRControlNet, System

NAME = "encoder"
WARM_UP = 100  # steps
FLAT = 0.25  # of all steps before the learning rate begins to fall
GRID_EVERY = 500  # steps


@dataclass(frozen=True)
class EncoderRecipe:
    steps: int | None
    minutes: float | None
    faces: int = 16_000
    batch: int = 32  # over all processes
    peak_rate: float = 1e-3


def build(model: Path, device: str) -> System:
    """The pretrained G, frozen, and an E that is a copy of its encoder and says nothing yet."""
    parts = load_model(model)
    system = System(parts, IRControlNet.copy_of(parts.unet))
    modules: list[nn.Module] = [*parts.modules.values(), system.encoder]
    for module in modules:
        module.to(device)
    if device == "cpu":
        use_plain_attention(parts.unet, parts.vae, system.encoder)
    system.encoder.requires_grad_(True).train()
    return system


def build_stage(encoder: nn.Module, folder: Path, process: Process, recipe: EncoderRecipe) -> TrainingStage:
    parameters, rate = encoder.parameters(), recipe.peak_rate
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    return TrainingStage(
        NAME, folder, process, encoder, optimizer,
        steps=recipe.steps, minutes=recipe.minutes, average_decay=0.998,
    )  # fmt: skip


def train(process: Process, folder: Path, model: Path, seed: int, recipe: EncoderRecipe) -> None:
    """Train from `folder/faces`; the checkpoint holds the result."""
    known, unseen = faces.read(folder, "train", recipe.faces), faces.read(folder, "unseen", faces.UNSEEN)
    system = build(model, process.device)
    stage = build_stage(system.encoder, folder, process, recipe)
    for step in stage.remaining():
        rng = draws(seed, NAME, step)
        chosen = torch.from_numpy(rng.integers(len(known), size=recipe.batch))
        version = torch.from_numpy(rng.integers(known.conditions.shape[1], size=recipe.batch))
        timesteps = stratified_timesteps(rng, recipe.batch)
        noise = torch.randn(recipe.batch, *known.latents.shape[1:], generator=noise_generator(rng))
        mine = process.share(recipe.batch)
        clean, condition = known.latents[chosen[mine]].float(), known.conditions[chosen[mine], version[mine]].float()
        with process.autocast():
            errors = squared_errors(system, clean, condition, timesteps[mine], noise[mine])
        (errors * min_snr_weight(timesteps[mine]).to(errors)).mean().backward()
        stage.update(learning_rate(step, stage.steps, recipe.peak_rate, WARM_UP, FLAT))
        if stage.report_due():
            with stage.averaged(), process.autocast():
                held_out = unseen_error(system, unseen)
            stage.report(pictures=stage.step * recipe.batch, loss=errors.mean().item(), unseen_error=held_out)
        if process.first and stage.step % GRID_EVERY == 0:
            draw_grid(stage, system, seed)
    if process.first:
        draw_grid(stage, system, seed)


def squared_errors(system: System, clean: Tensor, condition: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the noise that B predicts for each picture, (batch,)."""
    device = system.unet.device
    noisy, steps = add_noise(clean, noise, timesteps).to(device), timesteps.to(device)
    null = system.null.expand(len(noisy), -1, -1)
    noise_pred = system(noisy, steps, null, condition.to(device))
    return (noise_pred.float() - noise.to(device)).square().mean((1, 2, 3))


@torch.no_grad()
def unseen_error(system: System, unseen: faces.FaceSet) -> float:
    """Mean squared error on faces that are never trained on, always with the same noise and timesteps."""
    rng = np.random.default_rng(1)
    timesteps = stratified_timesteps(rng, len(unseen))
    noise = torch.randn(unseen.latents.shape, generator=noise_generator(rng))
    whole = (unseen.latents.float(), unseen.conditions[:, 0].float(), timesteps, noise)
    parts = zip(*(tensor.split(64) for tensor in whole), strict=True)
    return float(torch.cat([squared_errors(system, *part) for part in parts]).mean())
