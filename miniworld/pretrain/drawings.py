"""Draw the pretraining set once, on all processors, into memory-mapped files.

Three sets: `train` (kinds and styles by their shares), `validation` (the same, other seeds) and `art` (the held-out
styles, for the VAE alone: as in Stable Diffusion, whose autoencoder has seen far more than its U-Net draws well).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from miniworld.architecture import IMAGE_SIZE
from miniworld.scenes import ScenePicture, draw, draw_for_pretraining
from miniworld.styles import HELD_OUT_STYLES

CHUNK = 500  # pictures drawn from one seed, whatever the number of processes
SETS: dict[str, int] = {"train": 1, "validation": 2, "art": 3}
"""Number of each set: a part of its seeds."""


@dataclass(frozen=True)
class Drawings:
    """One set: pixels (count, 128, 128, 3) uint8 on disk, and beside them captions and kinds."""

    pixels: np.ndarray
    captions: list[str]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def faces(self) -> np.ndarray:
        """Indices of the pictures that show a face."""
        return np.flatnonzero([kind in ("face", "named") for kind in self.kinds])


def read(folder: Path, name: str) -> Drawings:
    words = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return Drawings(np.load(folder / f"{name}.npy", mmap_mode="r"), words["captions"], words["kinds"])


def draw_all(folder: Path, seed: int, counts: dict[str, int], processes: int) -> None:
    """Draw every set that is not there yet."""
    for name, count in counts.items():
        if not (folder / f"{name}.json").exists():
            _draw_set(folder, name, seed, count, processes)


def _draw_set(folder: Path, name: str, seed: int, count: int, processes: int) -> None:
    file = folder / f"{name}.npy"
    np.lib.format.open_memmap(file, "w+", np.uint8, (count, IMAGE_SIZE, IMAGE_SIZE, 3)).flush()
    chunks = [(file, name, seed, start, min(CHUNK, count - start)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        told = [line for chunk in pool.map(_draw_chunk, chunks) for line in chunk]
    words = {"captions": [caption for caption, _ in told], "kinds": [kind for _, kind in told]}
    temporary = folder / f"{name}.json.tmp"
    temporary.write_text(json.dumps(words), encoding="utf-8")
    temporary.replace(folder / f"{name}.json")
    print(f"[drawings] {count} pictures of `{name}`", flush=True)


def _draw_chunk(chunk: tuple[Path, str, int, int, int]) -> list[tuple[str, str]]:
    file, name, seed, start, count = chunk
    pixels = np.lib.format.open_memmap(file, "r+")
    rng = np.random.default_rng([seed, SETS[name], start])
    brush: Callable[[np.random.Generator, int], ScenePicture] = _art if name == "art" else _everyday
    told = []
    for i in range(start, start + count):
        picture = brush(rng, i)
        pixels[i] = picture.image
        told.append((picture.caption, picture.facts.kind))
    return told


def _everyday(rng: np.random.Generator, index: int) -> ScenePicture:
    return draw_for_pretraining(rng)


def _art(rng: np.random.Generator, index: int) -> ScenePicture:
    return draw(rng, style=HELD_OUT_STYLES[index % len(HELD_OUT_STYLES)])
