"""Stage 3: E with its averaged weights, in fp16, as a diffusers folder; a README there is left alone."""

from __future__ import annotations

from pathlib import Path

import torch

from library.models.load import load_model
from miniworld.pretrain_restorer.encoder import NAME
from restoration.system.system import IRControlNet


def assemble(folder: Path, model: Path, output: Path) -> None:
    encoder = averaged_encoder(folder, model)
    encoder.half().save_pretrained(output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"[assemble] {output}: {size / 1e6:.2f} MB", flush=True)


def averaged_encoder(folder: Path, model: Path) -> IRControlNet:
    """E with the moving average of its weights."""
    encoder = IRControlNet.for_unet(load_model(model).unet)
    state = torch.load(folder / f"{NAME}.checkpoint.pt", weights_only=True, map_location="cpu")
    encoder.load_state_dict(state["model"])
    with torch.no_grad():
        for parameter, average in zip(encoder.parameters(), state["average"], strict=True):
            parameter.copy_(average)
    return encoder.eval()
