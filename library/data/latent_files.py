"""Cached posteriors on disk: one small file for each image and variant, named by everything it depends on."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from library.data.buckets import BucketChoice
from library.data.folders import Index, Known, open_index, replace_file

FORMAT = 1  # of the numbers in a file; another format makes other names, so that old files are never misread
EXTENSION = ".safetensors"


def name_of(sha256: str, choice: BucketChoice, flipped: bool, vae_hash: str, dtype: torch.dtype) -> str:
    """A cache file's name: a hash of the image's bytes, size and crop, the flip, the VAE's weights and the dtype."""
    parts = [FORMAT, sha256, choice.resized, choice.crop, choice.bucket, flipped, vae_hash, str(dtype)]
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
        sweep(cache.index.where)
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
        except (OSError, SafetensorError, KeyError):
            self.damaged += 1
            del self.lengths[name]
            return False
        self._note(name, length)
        return True

    def write(self, name: str, posterior: Tensor) -> None:
        """Keep one posterior, (2, 4, h/8, w/8). Raises OSError."""
        content = save({"posterior": posterior.contiguous()}, metadata={"format": str(FORMAT)})
        replace_file(self.index.where / name, content)
        self.lengths[name] = len(content)
        self._note(name, len(content))

    def know(self, name: str, known: Known) -> None:
        """Remember an image that was read."""
        if self.index.images.get(name) != known:
            self.index.images[name] = known
            self.changed = True

    def close(self) -> None:
        """Write the index if anything changed. Raises OSError."""
        if self.changed:
            self.index.write()
            self.changed = False

    def _note(self, name: str, length: int) -> None:
        self.index.latents[name] = length
        self.changed = True


def sweep(folder: Path, age: float = 3600.0) -> None:
    """Remove the temporary files that a killed program left, once they are `age` seconds old."""
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > age:
                path.unlink()


def read_posterior(path: Path) -> Tensor:
    """(2, 4, h/8, w/8): mean and standard deviation. Raises OSError, SafetensorError or KeyError."""
    return load(path.read_bytes())["posterior"]
