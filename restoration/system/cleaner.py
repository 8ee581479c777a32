"""R, the cleaner before the restorer: takes noise and blocks away, so that the restorer need not guess at them.

`none` leaves the picture as it is; `bicubic` shrinks it to a quarter by area and enlarges it again, for a picture that
is only noisy; a file (SwinIR, BSRNet, SCUNet ...) is loaded by spandrel, imported nowhere else.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from library.errors import UserError
from library.files import read_tensors
from restoration.system.layouts import CLEANER, under, unwrapped

NONE, BICUBIC = "none", "bicubic"
_SHRINK = 4
_NEEDED = 'run `python -m pip install spandrel torchvision` (for your torch), or set `cleaner = "none"`'


class Cleaner(Protocol):
    """Pictures (batch, 3, height, width) in [0, 1] to cleaned ones of the same size."""

    def __call__(self, pictures: Tensor) -> Tensor: ...


def no_cleaner(pictures: Tensor) -> Tensor:
    return pictures


def bicubic(pictures: Tensor) -> Tensor:
    """Through a picture of a quarter of the size."""
    small = F.interpolate(pictures, scale_factor=1 / _SHRINK, mode="area")
    return F.interpolate(small, size=pictures.shape[-2:], mode="bicubic", align_corners=False).clamp(0.0, 1.0)


class NetworkCleaner:
    """A restoration network in spandrel's wrapping, in evaluation mode."""

    def __init__(self, descriptor: Any, device: torch.device | str = "cpu") -> None:
        self._descriptor = descriptor
        self.model: torch.nn.Module = descriptor.model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """A network that enlarges is undone by area; one that asks for multiples of a size gets mirrored edges."""
        height, width = pictures.shape[-2:]
        parameter = next(self.model.parameters())
        padded = padded_to(pictures.to(parameter.device, parameter.dtype), self._multiple)
        cleaned = self.model(padded)
        scale = cleaned.shape[-1] // padded.shape[-1]
        cleaned = cleaned[..., : height * scale, : width * scale].float().to(pictures.device)
        if scale > 1:
            cleaned = F.interpolate(cleaned, size=(height, width), mode="area")
        return cleaned.clamp(0.0, 1.0)

    @property
    def _multiple(self) -> int:
        return int(self._descriptor.size_requirements.multiple_of)


def padded_to(pictures: Tensor, multiple: int) -> Tensor:
    """Enlarged on the right and at the bottom to multiples of a size, by repeating the edge."""
    height, width = pictures.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    return F.pad(pictures, (0, right, 0, bottom), mode="replicate") if right or bottom else pictures


def load_cleaner(
    name: str | Path | None, device: torch.device | str = "cpu", inside: Mapping[str, Tensor] | None = None
) -> Cleaner:
    """The cleaner that an option names; with no name, the one whose tensors came with the restorer, else none.

    Raises `UserError` for a file that is no restoration network, and where spandrel cannot be imported.
    """
    if name is None and not inside:
        return no_cleaner
    if name is not None and str(name) == NONE:
        return no_cleaner
    if name is not None and str(name) == BICUBIC:
        return bicubic
    if name is None:
        return NetworkCleaner(_described(dict(inside or {}), "the restorer's own cleaner"), device)
    tensors = unwrapped(read_tensors(name)[0])
    tensors = under(tensors, CLEANER) or tensors
    return NetworkCleaner(_described(tensors, f"`cleaner = {name}`"), device)


def _described(tensors: dict[str, Tensor], what: str) -> Any:
    try:
        spandrel = importlib.import_module("spandrel")  # optional: no part of requirements.txt
    except (ImportError, RuntimeError) as error:  # torchvision built for another torch raises RuntimeError
        raise UserError(f"{what} needs spandrel, which cannot be imported ({error}); {_NEEDED}") from None
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(tensors)
    except Exception as error:  # spandrel has a class of its own for each thing that it does not know
        raise UserError(f"{what} is no network that spandrel knows ({error}); give another file, or none") from None
    return descriptor
