"""Stage 2: every picture as the VAE's posterior mean, once; what the U-Net and the text encoder train on."""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from miniworld.architecture import SCALING_FACTOR, use_plain_attention
from miniworld.pretrain import drawings
from miniworld.pretrain.lockstep import Process, write_atomically
from miniworld.pretrain.vae import to_tensor

PARTS = 16


def encode_all(folder: Path, processes: int, device: str) -> None:
    """Write `folder/latents.pt`: {"train", "validation"}, (count, 4, 16, 16) float16, scaled to unit std."""
    if (folder / "latents.pt").exists():
        return
    latents = {}
    for name in ("validation", "train"):
        count = len(drawings.read(folder, name))
        edges = np.linspace(0, count, PARTS + 1).astype(int).tolist()
        parts = [(folder, name, start, stop, device) for start, stop in itertools.pairwise(edges)]
        if processes == 1:
            encoded = [_encode(part) for part in parts]
        else:
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                encoded = list(pool.map(_encode, parts))
        latents[name] = torch.from_numpy(np.concatenate(encoded))
    write_atomically(latents, folder / "latents.pt")
    std = latents["validation"].float().std((0, 2, 3)).tolist()
    print(f"[latents] std per channel {' '.join(f'{value:.3f}' for value in std)}", flush=True)


@torch.no_grad()
def _encode(part: tuple[Path, str, int, int, str]) -> np.ndarray:
    folder, name, start, stop, device = part
    if device == "cpu":
        torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(device).eval()  # type: ignore[union-attr]
    if device == "cpu":
        use_plain_attention(vae)
    pixels = drawings.read(folder, name).pixels[start:stop]
    encoded = []
    for i in range(0, len(pixels), 64):
        with Process(device=device).autocast():
            posterior = vae.encode(to_tensor(pixels[i : i + 64]).to(device)).latent_dist  # type: ignore[union-attr]
        encoded.append((posterior.mean.float() * SCALING_FACTOR).half().cpu().numpy())
    return np.concatenate(encoded)
