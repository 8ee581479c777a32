"""Previews of a pivot: some references, damaged the same way each time, restored as the person so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from library.config.spec import declared
from library.sampling.previews import undisturbed, write_png
from library.training.callbacks.samples import Previews, PreviewSpec
from library.training.runtime.memory import on_device
from library.training.saving.file_names import SavingSpec
from restoration.options import restoration_spec
from restoration.pivots.batches import Latents
from restoration.pivots.faces import ReferenceFace
from restoration.restoring.sampling import Sampling, restore
from restoration.system.system import System

SHOWN = 4  # references
STEPS = 20
EPOCH_OF_PREVIEWS = 0  # training counts from 1, so no picture is damaged in this way in training


@restoration_spec
class RestorationPreviewSpec:
    """The options on how previews are restored; field names are the options'."""

    gamma: float = declared
    color_fix: str = declared
    seed: int = declared


def build_previews(
    spec: RestorationPreviewSpec,
    when: PreviewSpec,
    saving: SavingSpec,
    system: System,
    latents: Latents,
    faces: Sequence[ReferenceFace],
    prompt: str,
    device: torch.device,
) -> Previews:
    wanted = when.sample_at_first or when.sample_every_n_steps
    sampling = Sampling(gamma=spec.gamma, guidance_scale=1.0, steps=STEPS, seed=spec.seed, color_fix=spec.color_fix)
    folder = saving.output_dir / "sample"

    def draw(epoch: int | None, step: int) -> list[Path]:
        files = []
        with on_device(system.model, device), undisturbed(system.model):
            nn.Module.to(system.encoder, device)
            text = system.text([prompt])
            for number, face in enumerate(faces[:SHOWN]):
                damaged = torch.from_numpy(latents.degraded(face, EPOCH_OF_PREVIEWS)).permute(2, 0, 1)[None]
                restored = restore(system, damaged.to(device), text, [face.sample_id], sampling, latents.cleaner)
                both = torch.cat([damaged, restored.cpu()], dim=-1)[0].permute(1, 2, 0)
                path = folder / f"{saving.output_name}_{step:06d}_{number:02d}.png"
                picture = Image.fromarray(np.uint8(np.round(both.numpy() * 255)))
                write_png(path, picture, {"prompt": f"reference {number + 1}: damaged, restored"})
                files.append(path)
        return files

    return Previews(when, draw if wanted else None, saving.sheet)
