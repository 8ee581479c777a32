"""The memory-saving path that all runs share: attention, checkpointing, eight-bit weights, what stays on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from library.config.spec import declared, spec
from library.models.accelerator import accelerator
from library.models.family import StableDiffusion
from library.models.float8 import store_in_float8
from library.training.runtime.attention_backend import choose_attention
from library.training.runtime.gradient_checkpointing import checkpoint_gradients


@spec
class MemorySpec:
    """The options on memory; field names are the options'."""

    xformers: bool = declared
    mem_eff_attn: bool = declared
    gradient_checkpointing: bool = declared
    full_fp16: bool = declared
    full_bf16: bool = declared
    fp8_base: bool = declared
    fp8_base_unet: bool = declared
    lowram: bool = declared
    highvram: bool = declared


def save_memory(
    model: StableDiffusion, spec: MemorySpec, device: torch.device, *, train_text_encoder: bool
) -> list[str]:
    """Apply to a frozen model what the options ask for, before a network is put on it; lines worth saying.

    Raises nothing: where a switch has no effect on this device, a line says so.
    """
    lines = [choose_attention(model.unet, device, xformers=spec.xformers, mem_eff_attn=spec.mem_eff_attn)]
    if spec.gradient_checkpointing:
        checkpoint_gradients(model, train_text_encoder)
    if spec.fp8_base or spec.fp8_base_unet:
        lines.append(store_base_in_float8(model, text_encoders=spec.fp8_base))
    if device.type == "cpu":
        lines += [
            f"{name}: {what}, and there is none here"
            for name, asked, what in (
                ("lowram", spec.lowram, "it loads the model straight to the GPU"),
                ("highvram", spec.highvram, "it keeps what PyTorch has reserved on the GPU"),
            )
            if asked
        ]
    return [line for line in lines if line]


def store_base_in_float8(model: StableDiffusion, *, text_encoders: bool) -> str:
    """Keep the U-Net's weights, and if asked for the text encoders', in eight bits; a line that says what it saved."""
    parts: list[nn.Module] = [model.unet, *(model.text_encoders if text_encoders else ())]
    before = sum(parameter.nbytes for part in parts for parameter in part.parameters())
    layers = sum(store_in_float8(part) for part in parts)
    after = sum(tensor.nbytes for part in parts for tensor in (*part.parameters(), *part.buffers()))
    return (
        f"{layers} layers of the model are kept in 8-bit floats: {before / 2**20:,.1f} MiB became {after / 2**20:,.1f}"
    )


def place(
    model: StableDiffusion,
    device: torch.device,
    *,
    unet: bool = True,
    vae: bool = False,
    text_encoders: bool = False,
    keep_reserved: bool = False,
) -> None:
    """Move to the device what comes next needs, and off it what it does not.

    `keep_reserved` (the option highvram) leaves what PyTorch holds of the GPU's memory to PyTorch.
    """
    wanted = {"unet": unet, "vae": vae}
    for name, part in model.modules.items():
        part.to(device if wanted.get(name, text_encoders) else "cpu")
    if (gpu := accelerator(device)) is not None and not keep_reserved:
        gpu.empty_cache()


@contextmanager
def on_device(model: StableDiffusion, device: torch.device, *, keep_reserved: bool = False) -> Iterator[None]:
    """All parts of the model on the device inside; afterwards each is back where it was."""
    homes = [(part, next(part.parameters()).device) for part in model.modules.values()]
    try:
        for part, _ in homes:
            part.to(device)
        yield
    finally:
        for part, home in homes:
            part.to(home)
        if (gpu := accelerator(device)) is not None and not keep_reserved:
            gpu.empty_cache()
