"""`python -m miniworld.flow_model`: the mini model as one of rectified flow, trained on from its own weights.

The U-Net learns the velocity of straight paths on freshly drawn pictures of the same world; VAE and text encoder stay.
An average of its weights is what is kept. Pictures and noise of a step follow from its number, and `--minutes` stops in
time: called again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from library.atomic import atomic
from library.command import run_command
from library.data.keys import key
from library.diffusion.rectified_flow import TIMESTEPS, FlowSpec, draw_sigma, flow_velocity, interpolated
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.save import save_folder
from library.models.text import TextConditioner
from library.training.optim.weight_averages import decay_at
from miniworld.judge import to_pictures
from miniworld.scenes import draw_for_pretraining
from miniworld.sets import stream

MODEL = Path(__file__).parent / "model"
OUTPUT = Path("output/miniworld/flow")
BATCH, PEAK_RATE, WARM_UP, DECAY, DROPOUT = 16, 5e-4, 100, 0.998, 0.1
SAVE_EVERY = 50  # steps
SIDE = 128 * 128


def make(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.flow_model", description=__doc__)
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps in all")
    parser.add_argument("--minutes", type=float, help="stop after this time; the next call goes on")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the model's folder")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes is not None else float("inf")
    train(arguments.output, arguments.steps, end)


def train(output: Path, steps: int, end: float) -> None:
    """Go on to step `steps`, or as far as the time reaches; the model is written either way."""
    model = load_model(MODEL)
    conditioner = TextConditioner(model)
    average = copy.deepcopy(model.unet)
    model.unet.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(model.unet.parameters(), PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    checkpoint = output / "training.pt"
    done = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        done = saved["step"]
        model.unet.load_state_dict(saved["unet"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
    for step in range(done, steps):
        if time.monotonic() >= end:
            break
        loss = squared_error(model, conditioner, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.unet.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            share = 1.0 - decay_at(step + 1, DECAY)
            torch._foreach_lerp_(list(average.parameters()), list(model.unet.parameters()), share)
        done = step + 1
        if done % SAVE_EVERY == 0:
            print(f"step {done} of {steps}, loss {float(loss.detach()):.4f}", flush=True)
            keep(checkpoint, done, model, average, optimizer)
    keep(checkpoint, done, model, average, optimizer)
    write(model, average, output)


def rate_at(step: int, steps: int) -> float:
    """Up in `WARM_UP` steps, then down to 0 as half a cosine."""
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


def squared_error(model: StableDiffusion, conditioner: TextConditioner, step: int) -> Tensor:
    """mean |v - (eps - x0)|^2 of the pictures of one step; some of them without their captions."""
    rng = stream("pictures of the flow", step)
    pictures = [draw_for_pretraining(rng) for _ in range(BATCH)]
    captions = ["" if rng.random() < DROPOUT else picture.caption for picture in pictures]
    draws = [partial(key, 0, step, f"{i}") for i in range(BATCH)]
    with torch.no_grad():
        images = to_pictures(np.stack([picture.image for picture in pictures]))
        latents = model.vae.encode(images).latent_dist.mean * model.scaling_factor  # type: ignore[union-attr]
        hidden = conditioner.encode(captions).hidden
    noise = torch.stack([torch.randn(latents.shape[1:], generator=draw("noise")) for draw in draws])
    sigma = torch.stack([draw_sigma(FlowSpec(), SIDE, draw) for draw in draws])
    velocity = model.unet(interpolated(latents, noise, sigma), TIMESTEPS * sigma, hidden).sample
    return (velocity - flow_velocity(latents, noise)).square().mean()


def keep(file: Path, step: int, model: StableDiffusion, average: torch.nn.Module, optimizer: torch.optim.Optimizer):
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "unet": model.unet.state_dict(), "average": average.state_dict()}
    with atomic(file) as temporary:
        torch.save({**state, "optimizer": optimizer.state_dict()}, temporary)


def write(model: StableDiffusion, average: torch.nn.Module, output: Path) -> None:
    """The model's folder; its scheduler says what it is."""
    model.unet.load_state_dict(average.state_dict())
    model.prediction_type = "flow_prediction"
    model.scheduler_config = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": TIMESTEPS,
        "prediction_type": "flow_prediction",
        "shift": 1.0,
    }
    save_folder(model, output / "model")
    print(f"{output / 'model'} is written")


if __name__ == "__main__":
    sys.exit(run_command(make))
