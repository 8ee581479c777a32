"""The memory-saving path that all runs share: attention, checkpointing, what stays on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from library.models.family import StableDiffusion


@dataclass(frozen=True)
class MemorySpec:
    """The options on memory; field names are the options'."""

    xformers: bool = False
    mem_eff_attn: bool = False
    gradient_checkpointing: bool = False
    full_fp16: bool = False
    full_bf16: bool = False


def choose_attention(unet: nn.Module, spec: MemorySpec, device: torch.device) -> str | None:
    """Set the U-Net's attention; a line where another backend than the one asked for is used.

    PyTorch's scaled dot product attention is what diffusers uses by default: it needs no option.
    """
    if spec.mem_eff_attn:
        return "mem_eff_attn: PyTorch's scaled dot product attention is used, which needs less memory and is faster"
    if not spec.xformers:
        return None
    if device.type != "cuda":
        return "xformers needs a CUDA device: PyTorch's scaled dot product attention is used instead"
    try:
        unet.enable_xformers_memory_efficient_attention()  # pyright: ignore[reportCallIssue]
    except (ImportError, ModuleNotFoundError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        return f"xformers cannot be used ({reason}): PyTorch's scaled dot product attention is used instead"
    return None


def checkpoint_gradients(model: StableDiffusion, train_text_encoder: bool) -> None:
    """Recompute activations in the backward pass instead of keeping them."""
    model.unet.enable_gradient_checkpointing()
    if train_text_encoder:
        for text_encoder in model.text_encoders:
            text_encoder.gradient_checkpointing_enable({"use_reentrant": False})


def place(model: StableDiffusion, device: torch.device, *, vae: bool, text_encoders: bool) -> None:
    """Move to the device what each step needs, and off it what no step will need again."""
    wanted = {"unet": True, "vae": vae}
    for name, part in model.modules.items():
        part.to(device if wanted.get(name, text_encoders) else "cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def on_device(model: StableDiffusion, device: torch.device) -> Iterator[None]:
    """All parts of the model on the device inside; afterwards each is back where it was."""
    homes = [(part, next(part.parameters()).device) for part in model.modules.values()]
    try:
        for part, _ in homes:
            part.to(device)
        yield
    finally:
        for part, home in homes:
            part.to(home)
        if device.type == "cuda":
            torch.cuda.empty_cache()
