"""Stage 1: faces as latents, each with the latents of a few damaged versions of it, computed once.

Half of the people have a name in pretraining and half are nobody; the held-out identities are in none of it. The damage
is `restoration.damage.degradation` with ranges that are stronger than those of real restorers: in this world a face
is told apart by colours and shapes that a mild blur leaves as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from library.models.load import load_model
from miniworld.architecture import IMAGE_SIZE, use_plain_attention
from miniworld.pretrain.lockstep import Process, write_atomically
from miniworld.scenes import ScenePicture, draw
from restoration.damage.degradation import degrade, generator
from restoration.damage.ranges import PRESETS, Degradation
from restoration.system.system import condition_latents

PART = 500  # faces of one seed and one file, whatever the number of processes
SETS: dict[str, int] = {"train": 11, "unseen": 12}
"""Number of each set: a part of its seeds."""
UNSEEN = 128  # faces that are never trained on
NAMED_SHARE = 0.5
RANGES: dict[str, tuple[float, float]] = {
    "kernel_size": (81, 81),
    "blur_sigma": (6.0, 20.0),
    "downscale": (6.0, 14.0),
    "noise": (5.0, 40.0),
    "jpeg_quality": (40, 90),
}
"""Of the preset `face`, in pixels of a 512 px picture: what leaves background, pose and the large colours, and makes
eyes, glasses, beard, mouth and the form of the hair guesses."""
RANGES_OF: dict[str, dict[str, tuple[float, float]]] = {"hard": RANGES, "face": {}}
"""What pictures can be damaged by: as the restorer was pretrained, or milder, by the preset's own ranges."""


def damage_by(ranges: Mapping[str, tuple[float, float]]) -> Degradation:
    return PRESETS["face"].with_ranges(dict(ranges)).for_size(IMAGE_SIZE)


DAMAGE = damage_by(RANGES)


@dataclass(frozen=True)
class FaceSet:
    """One set: latents (faces, 4, 16, 16), and of the damaged versions (faces, versions, 4, 16, 16)."""

    latents: Tensor
    conditions: Tensor

    def __len__(self) -> int:
        return len(self.latents)


def portrait(rng: np.random.Generator) -> ScenePicture:
    """A face of somebody named or of nobody, as a photo."""
    return draw(rng, kind="named" if rng.random() < NAMED_SHARE else "face")


def portraits(name: str, seed: int, start: int, count: int) -> list[ScenePicture]:
    """Faces `start` and on of a set; `start` is a multiple of `PART`."""
    rng = np.random.default_rng([seed, SETS[name], start])
    return [portrait(rng) for _ in range(count)]


def damaged(picture: np.ndarray, seed: int, version: int, sample_id: str, damage: Degradation = DAMAGE) -> np.ndarray:
    """A picture uint8 (128, 128, 3), damaged: float32 (128, 128, 3) in [0, 1]."""
    return degrade(picture.astype(np.float32) / 255.0, damage, generator(seed, version, sample_id))


def unseen(seed: int, count: int = UNSEEN) -> tuple[list[ScenePicture], np.ndarray]:
    """Faces that are never trained on, and one damaged version of each, (count, 128, 128, 3) in [0, 1]."""
    pictures = portraits("unseen", seed, 0, count)
    return pictures, np.stack([damaged(p.image, seed, 0, f"unseen-{i}") for i, p in enumerate(pictures)])


def encode_faces(folder: Path, model: Path, seed: int, count: int, versions: int, processes: int, device: str) -> None:
    """Write the parts that are not there yet: `folder/faces/{set}-{first}.pt`."""
    (folder / "faces").mkdir(parents=True, exist_ok=True)
    wanted = [("unseen", 0, UNSEEN, 1)]
    wanted += [("train", start, min(PART, count - start), versions) for start in range(0, count, PART)]
    parts = [(folder, model, seed, *part, device) for part in wanted if not _file(folder, part[0], part[1]).exists()]
    with ExitStack() as stack:
        run: Callable[..., Iterator[int]] = map
        if processes > 1:
            run = stack.enter_context(ProcessPoolExecutor(processes, mp_context=get_context("spawn"))).map
        for done, faces in enumerate(itertools.accumulate(run(_encode, parts)), start=1):
            if done % 4 == 0 or done == len(parts):
                print(f"[faces] {faces} faces in {done} of {len(parts)} parts", flush=True)


def read(folder: Path, name: str, count: int) -> FaceSet:
    """The first `count` faces of a set."""
    parts = [torch.load(_file(folder, name, start), weights_only=True) for start in range(0, count, PART)]
    return FaceSet(*(torch.cat([part[key] for part in parts])[:count] for key in ("latents", "conditions")))


def _file(folder: Path, name: str, start: int) -> Path:
    return folder / "faces" / f"{name}-{start:06d}.pt"


def _encode(part: tuple[Path, Path, int, str, int, int, int, str]) -> int:
    """Draw, damage and encode one part; returns the number of faces."""
    folder, model, seed, name, start, count, versions, device = part
    if device == "cpu":
        torch.set_num_threads(1)
    vae: Any = load_model(model).vae
    vae.to(device)
    if device == "cpu":
        use_plain_attention(vae)
    pictures = portraits(name, seed, start, count)
    clean = np.stack([p.image for p in pictures]).astype(np.float32) / 255.0
    spoilt = [
        np.stack([damaged(p.image, seed, version, f"{name}-{start + i}") for i, p in enumerate(pictures)])
        for version in range(versions)
    ]
    conditions = torch.stack([encoded(vae, pixels, device) for pixels in spoilt], 1)
    write_atomically({"latents": encoded(vae, clean, device), "conditions": conditions}, _file(folder, name, start))
    return count


def encoded(vae: AutoencoderKL, pixels: np.ndarray, device: str) -> Tensor:
    """c(I) of pictures (n, 128, 128, 3) in [0, 1]: (n, 4, 16, 16) float16 on the CPU."""
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
    with Process(device=device).autocast():
        parts = [condition_latents(vae, part).half().cpu() for part in pictures.split(32)]
    return torch.cat(parts)
