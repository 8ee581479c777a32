"""What a weights file is, as far as the names of its tensors tell, without torch: only the header is read."""

from __future__ import annotations

import json
from pathlib import Path

LONGEST_HEADER = 100 * 2**20
"""Bytes; safetensors itself refuses a longer one."""
NETWORK_MARKS = ("lora_down", "lora_up", "lora_A.", "lora_B.", ".hada_w", ".lokr_w", "oft_unet_")
EMBEDDING_MARKS = ("string_to_param", "emb_params")
MODEL_MARKS = ("model.diffusion_model.", "first_stage_model.")


def tensor_names(path: Path) -> list[str] | None:
    """The names in a safetensors file; None where it is none, or cannot be read."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                return None
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return None
    return [name for name in header if name != "__metadata__"] if isinstance(header, dict) else None


def kind_of(path: Path) -> str | None:
    """ "network", "embedding" or "model"; None where the names do not tell."""
    names = tensor_names(path) or []
    for kind, marks in (("network", NETWORK_MARKS), ("embedding", EMBEDDING_MARKS), ("model", MODEL_MARKS)):
        if any(mark in name for name in names for mark in marks):
            return kind
    return None
