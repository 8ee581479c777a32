"""LPIPS (Zhang et al. 2018) on AlexNet, without the packages that need torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from library.errors import UserError
from library.files import read_tensors

CONVOLUTIONS = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
"""AlexNet's convolutions by their number in torchvision's file, with stride and padding."""
POOLED_BEFORE = (3, 6)
CHANNELS = (64, 192, 384, 256, 256)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for colours in -1..1."""


@dataclass(frozen=True)
class Lpips:
    """Weights and biases of the five convolutions, and how much each of their channels counts."""

    convolutions: list[tuple[Tensor, Tensor]]
    heads: list[Tensor]
    device: str = "cpu"

    def features(self, pictures: Tensor) -> list[Tensor]:
        """(n, 3, height, width) in [0, 1] -> behind each ReLU, (n, channels, h, w), of length 1 over channels."""
        shift, scale = (torch.tensor(v, device=pictures.device)[:, None, None] for v in (SHIFT, SCALE))
        x, found = (pictures * 2 - 1 - shift) / scale, []
        for (number, (stride, padding)), (weight, bias) in zip(CONVOLUTIONS.items(), self.convolutions, strict=True):
            if number in POOLED_BEFORE:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    @torch.no_grad()
    def distance(self, pictures: Tensor, originals: Tensor) -> Tensor:
        """Of each pair, (n, 3, height, width) in [0, 1]: weighted squares, mean over places, sum over layers."""
        if min(pictures.shape[2:]) < 32:
            raise UserError("LPIPS needs pictures of at least 32 pixels on each side")
        total = torch.zeros(len(pictures), device=self.device)
        pairs = zip(self.features(pictures.to(self.device)), self.features(originals.to(self.device)), strict=True)
        for head, (mine, theirs) in zip(self.heads, pairs, strict=True):
            total = total + ((mine - theirs).square() * head).sum(1).mean(dim=(1, 2))
        return total


def load_lpips(alexnet: Path, heads: Path, device: str = "cpu") -> Lpips:
    """torchvision's AlexNet file (or its `features.` alone) and LPIPS' own small file. Raises UserError."""
    body, small = read_tensors(alexnet)[0], read_tensors(heads)[0]
    try:
        convolutions = [(body[f"features.{n}.weight"], body[f"features.{n}.bias"]) for n in CONVOLUTIONS]
    except KeyError as error:
        raise UserError(f"'{alexnet}' is not torchvision's AlexNet: it has no {error}") from None
    try:
        weights = [small[f"lin{layer}.model.1.weight"].reshape(1, -1, 1, 1) for layer in range(len(CHANNELS))]
    except KeyError as error:
        raise UserError(f"'{heads}' does not hold the heads of LPIPS: it has no {error}") from None
    if tuple(weight.shape[1] for weight in weights) != CHANNELS:
        raise UserError(f"'{heads}' holds the heads of LPIPS on another network; AlexNet's are in alex.pth")
    convolutions = [(weight.float().to(device), bias.float().to(device)) for weight, bias in convolutions]
    return Lpips(convolutions, [weight.float().to(device) for weight in weights], device)
