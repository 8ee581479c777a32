"""One arm of the rank bed: a network trained on a task's latents, measured on its way and at its end.

The loop is that of train_network.py for a U-Net-only network on cached latents, written out, so that an arm costs its
steps and nothing else: AdamW with decay 0.01, gradients clipped at 1, 20 steps of warm-up, every picture once in an
epoch, a draw of the VAE's posterior, noise and timestep of its own for each sample. Arms of one task and seed see the
same samples under the same noise. A network module is called by its contract, `on_progress` included.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from library.diffusion.schedule import add_noise, alphas_cumprod
from library.models.family import StableDiffusion
from miniworld.prove.arms import BATCH, WARM_UP, Method
from miniworld.prove.bed_tasks import Data

MEASURED_AT = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Where on the way the held-out loss is measured, as shares of the steps."""


def train(
    method: Method,
    data: Data,
    base: StableDiffusion,
    rate: float,
    steps: int,
    seed: int,
    measure: Callable[[int, StableDiffusion], None],
) -> tuple[Any, float]:
    """Train the method's network, calling `measure` after the steps of `MEASURED_AT`.

    Returns the network and the CPU seconds of its training without what `measure` took.
    """
    torch.manual_seed(seed)
    model = dataclasses.replace(base, unet=copy.deepcopy(base.unet).requires_grad_(False))
    module = importlib.import_module(method.module)
    arguments = dict(argument.split("=", 1) for argument in method.arguments)
    dim, alpha = method.dim, method.alpha or method.dim
    network = module.create_network(1.0, dim, alpha, model.vae, model.text_encoders[0], model.unet, **arguments)
    network.apply_to(model.text_encoders[0], model.unet, False, True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    alpha_bar = alphas_cumprod(model.scheduler_config)
    measured = {max(1, round(share * steps)) for share in MEASURED_AT}
    pictures = len(data.mean)
    total_epochs = -(-steps * BATCH // pictures)
    progress = SimpleNamespace(epochs_done=0, total_epochs=total_epochs, global_step=0, total_steps=steps)
    progress.optimizer = optimizer
    _empty(progress)
    seconds, begun = 0.0, time.process_time()
    network.train()
    for step, (latents, hidden, noise, timesteps, target) in enumerate(batches(data, steps, seed), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / WARM_UP)
        noisy = add_noise(latents, noise, alpha_bar[timesteps])
        loss = ((model.unet(noisy, timesteps, hidden).sample - target) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        progress.loss_sum += float(loss.detach())
        progress.relative_mse_sum += float(loss.detach() / (target**2).mean())
        progress.count += 1
        if step in measured:
            seconds += time.process_time() - begun
            network.eval()
            measure(step, model)
            network.train()
            begun = time.process_time()
        epochs = step * BATCH // pictures
        if hasattr(network, "on_progress") and epochs > progress.epochs_done and step < steps:
            progress.epochs_done, progress.global_step = epochs, step
            network.on_progress(progress)
            _empty(progress)
    network.eval()
    return network, seconds


def _empty(progress: Any) -> None:
    progress.loss_sum, progress.relative_mse_sum, progress.count = 0.0, 0.0, 0


def batches(data: Data, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Latents, captions, noise, timesteps and target of each step: a function of the task and the seed alone.

    A teacher's noise and timesteps are among those for which its prediction is known: each epoch takes the next draw.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    times_seen = [0] * len(data.mean)
    for _ in range(steps):
        while len(order) < BATCH:
            order += torch.randperm(len(data.mean), generator=generator).tolist()
        chosen, order = torch.tensor(order[:BATCH]), order[BATCH:]
        shape = data.mean[chosen].shape
        latents = data.mean[chosen] + data.deviation[chosen] * torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        timesteps = torch.randint(0, 1000, (BATCH,), generator=generator)
        target = noise
        if data.draws is not None:
            draw = []
            for picture in chosen.tolist():
                draw.append((seed + times_seen[picture]) % len(data.draws[0]))
                times_seen[picture] += 1
            noise, timesteps, shift = (of[torch.tensor(draw), chosen] for of in data.draws)
            target = noise + shift
        yield latents, data.hidden[chosen], noise, timesteps, target


def ranks_found(network: Any) -> dict[str, int]:
    """By module: the ranks of AC-LoRA's last RESTART, or what a plain LoRA made use of."""
    restarts = getattr(network, "restarts", [])
    return dict(restarts[-1]["ranks"]) if restarts else ranks_in_use(network)


@torch.no_grad()
def ranks_in_use(network: Any, share: float = 0.9) -> dict[str, int]:
    """By module, the fewest singular values of B A with `share` of its energy."""
    ranks = {}
    for lora in network.unet_loras:
        up, down = lora.lora_up.weight.flatten(1), lora.lora_down.weight.flatten(1)
        values = torch.linalg.svdvals(torch.linalg.qr(up)[1] @ torch.linalg.qr(down.mT)[1].mT).double()
        sums = (values**2).cumsum(0)
        ranks[lora.lora_name] = int((sums < share * sums[-1]).sum()) + 1 if sums[-1] > 0 else 0
    return ranks


def distance_to_planted(ranks: Mapping[str, int], planted: Mapping[str, int]) -> dict[str, float]:
    """Mean |log2(rank / planted)| over the layers; and Spearman's correlation, where different ranks were planted."""
    found = [max(ranks[name], 1) for name in planted]
    true = list(planted.values())
    octaves = float(np.mean(np.abs(np.log2(np.array(found) / np.array(true)))))
    apart = len(set(true)) > 1 and len(set(found)) > 1
    rho = {"rho": round(float(np.corrcoef(places(found), places(true))[0, 1]), 3)} if apart else {}
    return {"octaves": round(octaves, 3), **rho}


def places(values: Sequence[float]) -> np.ndarray:
    """The place of each value among all, from 0; equal values share the mean of theirs."""
    numbers = np.asarray(values, dtype=float)
    below = (numbers[None, :] < numbers[:, None]).sum(1)
    equal = (numbers[None, :] == numbers[:, None]).sum(1)
    return below + (equal - 1) / 2
