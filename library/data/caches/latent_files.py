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

from library.atomic import sweep_temporaries
from library.data.caches.cache_entry import BadEntry, read_entry, write_entry
from library.data.caches.vae_encoding import Ready
from library.data.images.image import Look
from library.data.images.image_folder import Index, IndexedImage, open_index

FORMAT = 2  # of the numbers in a file; another format makes other names, so that old files are never misread
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
    """The cache of one image folder. `names`: the files that lie there; `sound`: those that were read and believed."""

    index: Index
    names: set[str] = field(default_factory=set)
    sound: set[str] = field(default_factory=set)
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
            self.names = {entry.name for entry in entries if entry.name.endswith(EXTENSION) and entry.is_file()}

    def has(self, name: str, look: Look) -> bool:
        """Whether a sound file of this name is there, for a picture of this look. It is read once to find out."""
        if name in self.sound:
            return True
        if name not in self.names:
            return False
        try:
            read_posterior(self.index.where / name, look)
        except BadEntry:
            self.damaged += 1
            self.names.discard(name)
            return False
        self.sound.add(name)
        return True

    def write(self, name: str, ready: Ready) -> None:
        """Keep one posterior with its mask. Raises UserError."""
        tensors = {"posterior": ready.tensor} | ({} if ready.mask is None else {"mask": ready.mask})
        write_entry(self.index.where / name, tensors)
        self.names.add(name)
        self.sound.add(name)

    def know(self, name: str, known: IndexedImage) -> None:
        """Remember an image that was read."""
        if self.index.images.get(name) != known:
            self.index.images[name] = known
            self.changed = True

    def close(self) -> None:
        """Write the index if anything changed. Raises UserError."""
        if self.changed:
            self.index.write()
            self.changed = False


def read_posterior(path: Path, look: Look) -> Ready:
    """A posterior and its mask, of a picture of this look. Raises BadEntry."""
    _, choice, _, mask = look
    height, width = choice.bucket[1] // 8, choice.bucket[0] // 8
    shapes = {"posterior": (2, 4, height, width)} | ({"mask": (1, height, width)} if mask else {})
    tensors = read_entry(path, shapes)
    return Ready(tensors["posterior"], tensors.get("mask"))
