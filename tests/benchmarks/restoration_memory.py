"""Memory of both pivots at full size, 512 pixels: `python -m tests.benchmarks.restoration_memory`.

The models are those of Stable Diffusion 2.1. Without a GPU a step runs on tensors without content and its bytes are
counted (see `counted_memory`); with `--device cuda` it runs on random weights, with AdamW8bit, and the peak and the
seconds per step are measured. Step 1 takes one picture and one of the prior, step 2 one picture; the forward pass is
bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from library.models.family import Family, StableDiffusion
from library.models.standard import standard_configs
from restoration.pivots.memory_budget import GIB, budget
from restoration.system.system import IRControlNet, System
from tests.benchmarks.counted_memory import Counter

BATCH = {"text": 2, "model": 1}
WARM_UP, STEPS = 3, 10


def full_size(pivot: str, checkpointing: bool, device: str) -> tuple[System, nn.Module]:
    """The system of a pivot with weights of no meaning: what is trained in float32, the rest in bfloat16."""
    config = standard_configs(Family.SD2)["unet"]
    with torch.device(device):
        unet: Any = made(lambda: UNet2DConditionModel.from_config(dict(config)), pivot == "text")
        encoder = made(lambda: IRControlNet.for_config(config), pivot == "model")
        null = torch.zeros(1, 77, config["cross_attention_dim"])
    vae: Any = nn.Identity()  # latents are cached: the VAE has left the device
    model = StableDiffusion(Family.SD2, "epsilon", unet, vae, [], [], {}, Path("fake"))
    trained = unet if pivot == "text" else encoder
    if checkpointing:
        unet.enable_gradient_checkpointing()
        encoder.enable_gradient_checkpointing()
    return System(model, encoder, null), trained


def made(module: Callable[[], Any], trained: bool) -> Any:
    """In float32 if it is trained, else frozen in bfloat16; made so, for tensors without content cannot be cast."""
    torch.set_default_dtype(torch.float32 if trained else torch.bfloat16)
    try:
        return module().requires_grad_(trained)
    finally:
        torch.set_default_dtype(torch.float32)


def loss_of(system: System, pivot: str, device: str) -> torch.Tensor:
    """One forward pass, as `restoration.pivots.objective` makes it."""
    batch = BATCH[pivot]
    noisy, condition = (torch.zeros(batch, 4, 64, 64, device=device) for _ in range(2))
    timesteps = torch.zeros(batch, dtype=torch.int64, device=device)
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        with torch.set_grad_enabled(pivot == "model"):
            controls = system.controls(noisy, timesteps, condition)
        predicted = system.predict(noisy, timesteps, system.null.expand(batch, -1, -1), controls)
    return predicted.float().square().mean()


def counted(pivot: str, checkpointing: bool) -> tuple[float, float]:
    """GiB of weights, gradients and states; and of what a step adds at its peak, gradients left out."""
    with FakeTensorMode(), Counter() as counter:
        system, trained = full_size(pivot, checkpointing, "cpu")
        frozen = system.encoder if pivot == "text" else system.unet
        needed = budget(list(trained.parameters()), [frozen], eight_bit=True, half=False)
        gc.collect()
        start = counter.peak = counter.now
        loss = loss_of(system, pivot, "cpu")
        after_forward = counter.now
        loss.backward()
        activations = max(after_forward - start, counter.peak - start - needed.gradients)
    gc.collect()
    return needed.total / GIB, activations / GIB


def measured(pivot: str, checkpointing: bool) -> tuple[float, float]:
    """GiB at the peak of PyTorch's allocator, and seconds per step, on a GPU."""
    import bitsandbytes

    system, trained = full_size(pivot, checkpointing, "cuda")
    optimizer = bitsandbytes.optim.AdamW8bit(trained.parameters(), lr=1e-6)
    torch.cuda.reset_peak_memory_stats()
    start = 0.0
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            torch.cuda.synchronize()
            start = time.perf_counter()
        loss_of(system, pivot, "cuda").backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / GIB, (time.perf_counter() - start) / STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    way: Callable[[str, bool], tuple[float, float]] = measured if arguments.device == "cuda" else counted
    units = ("GiB at the peak", "s a step") if way is measured else ("GiB that stay", "GiB of activations on top")
    for pivot in BATCH:
        for checkpointing in (True, False):
            first, second = way(pivot, checkpointing)
            told = "with" if checkpointing else "without"
            print(f"{pivot} pivot, {told} checkpointing: {first:.2f} {units[0]}, {second:.2f} {units[1]}", flush=True)


if __name__ == "__main__":
    main()
