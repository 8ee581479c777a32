"""What a weights file is, as far as the names of its tensors tell, without torch: only the header is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100 * 2**20
"""Bytes; safetensors itself refuses a longer one."""
NETWORK_MARKS = ("lora_down", "lora_up", "lora_A.", "lora_B.", ".hada_w", ".lokr_w", "oft_unet_")
EMBEDDING_MARKS = ("string_to_param", "emb_params")
MODEL_MARKS = ("model.diffusion_model.", "first_stage_model.")


def tensor_names(path: Path) -> list[str] | None:
    """The names in a safetensors file; None where it is none, or cannot be read."""
    header, _ = _header(path)
    return None if header is None else [name for name in header if name != "__metadata__"]


def damage(path: Path) -> str | None:
    """What is wrong with a file whose name ends in .safetensors; None where the header and the length are right."""
    if path.suffix.lower() != ".safetensors" or not os.access(path, os.R_OK):
        return None  # of another format, or what the system says of it when it is opened
    header, begin = _header(path)
    if header is None:
        with open(path, "rb") as file:
            start = file.read(64)
        if start.startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer and not the weights themselves"
        if start.startswith((b"PK", b"\x80")):
            return None  # a pickle: the reader says what it is, and reads some of them
        return "is no safetensors file: its header cannot be read"
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    if not entries:
        return "holds no tensors"
    try:
        expected = begin + max(int(entry["data_offsets"][1]) for entry in entries)
    except (KeyError, IndexError, TypeError, ValueError):
        return "is no safetensors file: its header has no lengths"
    there = path.stat().st_size
    return f"is not complete: {there:,} of {expected:,} bytes are there" if there < expected else None


def _header(path: Path) -> tuple[dict[str, Any] | None, int]:
    """The header, None where there is none, and where the data begins."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                return None, 0
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return None, 0
    return (header, 8 + length) if isinstance(header, dict) else (None, 0)


def kind_of(path: Path) -> str | None:
    """ "network", "embedding" or "model"; None where the names do not tell."""
    names = tensor_names(path) or []
    for kind, marks in (("network", NETWORK_MARKS), ("embedding", EMBEDDING_MARKS), ("model", MODEL_MARKS)):
        if any(mark in name for name in names for mark in marks):
            return kind
    return None
