"""What networks make of pictures, each picture once: features are kept by the hash of the picture's file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from library.errors import UserError
from library.files import file_hash, read_tensors, write_tensors
from library.metrics.preprocess import open_picture


@dataclass(frozen=True)
class FeatureNetwork:
    """What turns pictures into features. `sha256` is of its weights; `see` takes RGB pictures to (n, dimensions)."""

    name: str
    sha256: str
    preprocessing: str
    see: Callable[[Sequence[Image.Image]], Tensor]

    @property
    def key(self) -> str:
        """What its features are kept under: other weights or another preprocessing make other features."""
        return hashlib.sha256(f"{self.name}\n{self.sha256}\n{self.preprocessing}".encode()).hexdigest()[:16]


@dataclass
class FeatureStore:
    """Features by network and picture, in memory, and in `folder` for the next call."""

    batch_size: int = 8
    folder: Path | None = None
    _kept: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def of(self, network: FeatureNetwork, pictures: Sequence[Path]) -> np.ndarray:
        """(pictures, dimensions) float64, in their order."""
        kept = self._of_network(network)
        hashes = {path: file_hash(path) for path in pictures}
        new = list({digest: path for path, digest in hashes.items() if digest not in kept}.values())
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            with torch.no_grad():
                features = network.see([open_picture(path) for path in part])
            for path, row in zip(part, features.double().cpu().numpy(), strict=True):
                kept[hashes[path]] = row
        if new and self.folder is not None:
            write_tensors(self._file(network), {digest: torch.from_numpy(row) for digest, row in kept.items()})
        return np.stack([kept[hashes[path]] for path in pictures])

    def _of_network(self, network: FeatureNetwork) -> dict[str, np.ndarray]:
        if network.key not in self._kept:
            self._kept[network.key] = {}
            if self.folder is not None and self._file(network).is_file():
                try:
                    stored, _ = read_tensors(self._file(network))
                except UserError:  # a cache that cannot be read is made anew
                    stored = {}
                self._kept[network.key] = {digest: row.numpy() for digest, row in stored.items()}
        return self._kept[network.key]

    def _file(self, network: FeatureNetwork) -> Path:
        assert self.folder is not None
        return self.folder / f"{network.name}-{network.key}.safetensors"
