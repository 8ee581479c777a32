"""The attention backend of the U-Net: PyTorch's scaled dot product attention (SDPA), or xformers where it can run."""

from __future__ import annotations

import torch
from torch import nn


def choose_attention(
    unet: nn.Module, device: torch.device, *, xformers: bool = False, mem_eff_attn: bool = False
) -> str | None:
    """Set the U-Net's attention; a line where another backend than the one asked for is used.

    PyTorch's scaled dot product attention is what diffusers uses by default: it needs no option.
    """
    if mem_eff_attn:
        return "mem_eff_attn: PyTorch's scaled dot product attention is used, which needs less memory and is faster"
    if not xformers:
        return None
    if device.type != "cuda":
        return "xformers needs a CUDA device: PyTorch's scaled dot product attention is used instead"
    try:
        unet.enable_xformers_memory_efficient_attention()  # pyright: ignore[reportCallIssue]
    except (ImportError, ModuleNotFoundError, ValueError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        return f"xformers cannot be used ({reason}): PyTorch's scaled dot product attention is used instead"
    return None
