"""What the restorer makes of faces it has not seen: pictures to look at, and what the judge reads from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from library.files import write_json
from library.metrics.quality import psnr
from library.models.load import load_model
from miniworld.judge import Judge
from miniworld.pretrain.lockstep import Process, TrainingStage
from miniworld.pretrain.preview import save_grid, to_pixels
from miniworld.pretrain.vae import reconstruct
from miniworld.pretrain_restorer.faces import UNSEEN, unseen
from miniworld.scenes import ScenePicture
from restoration.restoring.sampling import Sampling, restore
from restoration.system.system import IRControlNet, System

SHOWN = 12
GRID = Sampling(gamma=1.0, steps=20, color_fix="none")
MEASURED = Sampling(gamma=1.0, steps=50, color_fix="none")
"""gamma = 1: the null text at every noise level, which is the blind restorer of eq. 4."""
IDENTITY = ("gender", "skin", "hair_style", "hair_colour", "eye_colour", "glasses", "beard")
"""What the judge can read of who somebody is."""
LAYOUT = ("expression", "hat", "background")
"""What it can read of the picture."""


def restore_blind(system: System, degraded: np.ndarray, sampling: Sampling, batch: int = 32) -> Tensor:
    """(n, 128, 128, 3) in [0, 1] -> (n, 3, 128, 128) in -1..1; the noise of a picture depends on its place alone."""
    pictures = torch.from_numpy(degraded).permute(0, 3, 1, 2)
    names = [str(i) for i in range(len(pictures))]
    parts = [slice(start, start + batch) for start in range(0, len(pictures), batch)]
    return torch.cat([restore(system, pictures[p], system.null, names[p], sampling) for p in parts]).cpu() * 2 - 1


def to_plus_minus(pixels: np.ndarray) -> Tensor:
    """(n, 128, 128, 3) in [0, 1] -> (n, 3, 128, 128) in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() * 2 - 1


def images(pictures: Sequence[ScenePicture]) -> np.ndarray:
    """The drawings, float32 (n, 128, 128, 3) in [0, 1]."""
    return np.stack([picture.image for picture in pictures]).astype(np.float32) / 255.0


def draw_grid(stage: TrainingStage, system: System, seed: int) -> None:
    """Degraded, restored and true faces, a row each: `encoder.png`, and one numbered by the step."""
    pictures, degraded = unseen(seed, SHOWN)
    with stage.averaged(), stage.process.autocast():
        restored = restore_blind(system, degraded, GRID)
    sheet = torch.cat([to_plus_minus(degraded), restored, to_plus_minus(images(pictures))])
    for name in (f"{stage.name}.png", f"{stage.name}-{stage.step:06d}.png"):
        save_grid(sheet, stage.file.parent / name, columns=SHOWN)


def shares_read(judge: Judge, pixels: np.ndarray, pictures: Sequence[ScenePicture]) -> dict[str, float]:
    """Per fact the share of pictures in which the judge reads what is true; facts that a face lacks are not asked."""
    answers = judge.read(pixels)
    shares = {}
    for head in (*IDENTITY, *LAYOUT):
        asked = [(seen[head], getattr(picture.facts, head)) for seen, picture in zip(answers, pictures, strict=True)]
        right = [seen == true for seen, true in asked if true is not None]
        shares[head] = float(np.mean(right)) if right else float("nan")
    return shares


def measure(folder: Path, model: Path, restorer: Path, seed: int, device: str, count: int = UNSEEN) -> None:
    """The finished E, from its files: PSNR and what the judge reads, printed and in `folder/measured.json`."""
    if (folder / "measured.json").exists():
        return
    parts = load_model(model, device=device)
    encoder: Any = IRControlNet.from_pretrained(restorer)
    encoder.to(device).eval()
    pictures, degraded = unseen(seed, count)
    truth = to_plus_minus(images(pictures))
    with Process(device=device).autocast():
        restored = restore_blind(System(parts, encoder), degraded, MEASURED)
    ceiling = reconstruct(parts.vae, truth)
    shown = {"degraded": to_plus_minus(degraded), "restored": restored, "truth through the VAE": ceiling}
    judge = Judge.load()
    measured = {
        name: {
            "psnr": float(psnr(seen / 2 + 0.5, truth / 2 + 0.5).mean()),
            **shares_read(judge, to_pixels(seen), pictures),
        }
        for name, seen in shown.items()
    } | {"truth": shares_read(judge, to_pixels(truth), pictures)}
    save_grid(torch.cat([*(seen[:SHOWN] for seen in shown.values()), truth[:SHOWN]]), folder / "measured.png", SHOWN)
    write_json(folder / "measured.json", measured)
    print(json.dumps(measured, indent=2), flush=True)
