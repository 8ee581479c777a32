"""What a cache is keyed by: a hash of weights, the same for the same numbers whatever they are called or lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from library.files import file_hash


def weights_hash(weights: torch.nn.Module | Path | str) -> str:
    """64 hex digits: sha256 of a file's bytes, or of a module's tensors with their names, types and shapes.

    A file is read once for each (path, size, modification time) and process. A module's hash changes with its dtype,
    not with its device.
    """
    if isinstance(weights, torch.nn.Module):
        return _module_hash(weights)
    return file_hash(weights)


def _module_hash(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
