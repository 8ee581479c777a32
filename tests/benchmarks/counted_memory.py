"""A training step of a published model, counted by `library.training.plan.step_memory`, for docs/memory.md.

What a GPU adds by itself (its context, kernels' workspaces, gaps between blocks; usually 0.5 to 1.5 GB) is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from library.models.family import Family, StableDiffusion
from library.models.standard import standard_configs
from library.training.plan.step_memory import Case, Counter
from library.training.plan.step_memory import count as count_case
from library.training.runtime.memory import MemorySpec
from networks import lora

__all__ = ["Counter", "Held", "Step", "count"]


@dataclass(frozen=True)
class Step:
    """A training step of a LoRA: sizes and the options that save memory, under their names."""

    family: Family
    side: int
    rank: int = 32
    batch: int = 1
    network_train_unet_only: bool = False  # with text embeddings from a cache
    cache_latents: bool = False
    adamw_8bit: bool = False
    full_bf16: bool = False
    memory: MemorySpec = field(default_factory=MemorySpec)


@dataclass(frozen=True)
class Held:
    """Bytes: what lies on the device all the time, and the most that a step adds. `encode` is the VAE's own peak."""

    model: int
    network: int
    optimizer: int
    step: int
    encode: int

    @property
    def peak(self) -> int:
        return self.model + self.network + self.optimizer + max(self.step, self.encode)


def count(case: Step) -> Held:
    """Count a step under `mixed_precision = "bf16"`: forward, backward, and what the optimizer keeps."""
    parameters: list[torch.Tensor] = []

    def make(model: StableDiffusion) -> nn.Module:
        torch.set_default_dtype(torch.bfloat16 if case.full_bf16 else torch.float32)
        encoders: Any = model.text_encoders if case.family is Family.SDXL else model.text_encoders[0]
        network = lora.create_network(1.0, case.rank, case.rank, None, encoders, model.unet)
        network.apply_to(encoders, model.unet, not case.network_train_unet_only, True)
        parameters.extend(network.parameters())
        return network

    memory = MemorySpec(**vars(case.memory) | {"full_bf16": case.full_bf16})
    size = (case.side, case.side)
    counted = count_case(
        Case(
            *(case.family, standard_configs(case.family), *size, case.batch),
            runs_text=not case.network_train_unet_only,
            memory=memory,
        ),
        make,
    )
    each = 2 * (1 + 4 / 256) if case.adamw_8bit else 2 * parameters[0].element_size()
    model = counted.unet
    model += 0 if case.cache_latents else counted.vae
    model += 0 if case.network_train_unet_only else counted.text_encoders
    return Held(
        model=model,
        network=counted.network,
        optimizer=int(each * sum(parameter.numel() for parameter in parameters)),
        step=counted.step,
        encode=0 if case.cache_latents else counted.encode,
    )
