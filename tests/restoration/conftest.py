"""A tiny restorer: SD2's layout with random weights, and an E whose outputs are not zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from library.models.family import Family
from miniworld.tiny import build
from restoration.system import IRControlNet, System


def shaken(encoder: IRControlNet, seed: int = 0) -> IRControlNet:
    """The same E with noise on all weights: a new one's outputs are 0 and would show nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return encoder


@pytest.fixture
def system() -> System:
    model = build(Family.SD2)
    return System(model, shaken(IRControlNet.copy_of(model.unet)).requires_grad_(False))


@pytest.fixture(scope="session")
def faces() -> np.ndarray:
    """Twenty drawn portraits, float32 (20, 128, 128, 3) in [0, 1]."""
    from miniworld.sets import identity_set

    pictures = [picture.image for name in ("id01", "id02") for picture in identity_set(name, "test")]
    return np.stack(pictures) / np.float32(255)
