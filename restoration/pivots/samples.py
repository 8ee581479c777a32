"""Previews of a pivot: some references, damaged the same way each time, restored as the person so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from library.config.option import Settings
from library.sampling.previews import undisturbed, write_png
from library.training.callbacks.samples import Previews, PreviewSpec
from library.training.runtime.memory import on_device
from library.training.saving.file_names import SavingSpec
from restoration.pivots.batches import Latents
from restoration.pivots.faces import ReferenceFace
from restoration.restoring.sampling import Sampling, restore
from restoration.system.system import System

SHOWN = 4  # references
STEPS = 20
EPOCH_OF_PREVIEWS = 0  # training counts from 1, so no picture is damaged in this way in training


def build_previews(
    settings: Settings,
    system: System,
    latents: Latents,
    faces: Sequence[ReferenceFace],
    prompt: str,
    device: torch.device,
) -> Previews:
    spec = settings.take(PreviewSpec)
    wanted = spec.sample_at_first or spec.sample_every_n_steps
    sampling = Sampling(
        gamma=settings["gamma"],
        guidance_scale=1.0,
        steps=STEPS,
        seed=settings["seed"],
        color_fix=settings["color_fix"],
    )
    folder = settings["output_dir"] / "sample"

    def draw(epoch: int | None, step: int) -> list[Path]:
        files = []
        with on_device(system.model, device), undisturbed(system.model):
            nn.Module.to(system.encoder, device)
            text = system.text([prompt])
            for number, face in enumerate(faces[:SHOWN]):
                damaged = torch.from_numpy(latents.degraded(face, EPOCH_OF_PREVIEWS)).permute(2, 0, 1)[None]
                restored = restore(system, damaged.to(device), text, [face.sample_id], sampling, latents.cleaner)
                both = torch.cat([damaged, restored.cpu()], dim=-1)[0].permute(1, 2, 0)
                path = folder / f"{settings['output_name']}_{step:06d}_{number:02d}.png"
                picture = Image.fromarray(np.uint8(np.round(both.numpy() * 255)))
                write_png(path, picture, {"prompt": f"reference {number + 1}: damaged, restored"})
                files.append(path)
        return files

    return Previews(spec, draw if wanted else None, settings.take(SavingSpec).sheet)
