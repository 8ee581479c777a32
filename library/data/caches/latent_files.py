"""Cached posteriors on disk: one small file for each image and variant, named by everything it depends on.

A picture's mask lies in the file of its posterior.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from library.atomic import atomic, sweep_temporaries
from library.data.caches.vae_encoding import Ready
from library.data.images.image import Look
from library.data.images.image_folder import Index, Known, open_index

FORMAT = 1  # of the numbers in a file; another format makes other names, so that old files are never misread
EXTENSION = ".safetensors"


def name_of(sha256: str, look: Look, flipped: bool, vae_hash: str, dtype: torch.dtype) -> str:
    """A cache file's name: a hash of the image's bytes, size, crop and mask, the flip, the VAE's weights, the dtype."""
    _, choice, interpolation, mask = look
    parts = [FORMAT, sha256, choice.resized, choice.crop, choice.bucket, flipped, vae_hash, str(dtype)]
    if interpolation or mask:
        parts += [interpolation, mask.mark if mask else None]
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest() + EXTENSION


@dataclass
class CacheFolder:
    """The cache of one image folder. `lengths`: the files that lie there now, with their lengths in bytes."""

    index: Index
    lengths: dict[str, int] = field(default_factory=dict)
    changed: bool = False
    damaged: int = 0

    @classmethod
    def open(cls, folder: Path, fallback: Path | None) -> CacheFolder:
        """Raises OSError if the cache can be written neither there nor under the fallback folder."""
        cache = cls(open_index(folder, fallback))
        cache.look()
        sweep_temporaries(cache.index.where)
        return cache

    def look(self) -> None:
        """See again which files there are (another process may have written some)."""
        with os.scandir(self.index.where) as entries:
            self.lengths = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(EXTENSION)}

    def has(self, name: str) -> bool:
        """Whether a sound file of this name is there. One that the index does not know is read to find out."""
        length = self.lengths.get(name)
        if length is None:
            return False
        if self.index.latents.get(name) == length:
            return True
        try:
            read_posterior(self.index.where / name)
        except (OSError, SafetensorError, KeyError, ValueError):
            self.damaged += 1
            del self.lengths[name]
            return False
        self._note(name, length)
        return True

    def write(self, name: str, ready: Ready) -> None:
        """Keep one posterior with its mask. Raises UserError."""
        tensors = {"posterior": ready.tensor.contiguous()}
        if ready.mask is not None:
            tensors["mask"] = ready.mask.contiguous()
        content = save(tensors, metadata={"format": str(FORMAT)})
        with atomic(self.index.where / name, durable=False) as temporary:
            temporary.write_bytes(content)
        self.lengths[name] = len(content)
        self._note(name, len(content))

    def know(self, name: str, known: Known) -> None:
        """Remember an image that was read."""
        if self.index.images.get(name) != known:
            self.index.images[name] = known
            self.changed = True

    def close(self) -> None:
        """Write the index if anything changed. Raises UserError."""
        if self.changed:
            self.index.write()
            self.changed = False

    def _note(self, name: str, length: int) -> None:
        self.index.latents[name] = length
        self.changed = True


def read_posterior(path: Path) -> Ready:
    """A posterior and its mask. Raises OSError, SafetensorError, KeyError, or ValueError where it is not finite."""
    tensors = load(path.read_bytes())
    posterior = tensors["posterior"]
    if not posterior.isfinite().all():
        raise ValueError("it holds NaN or infinite numbers")
    return Ready(posterior, tensors.get("mask"))
