"""The generators that nobody passes around: torch's own, and those that network modules draw from."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_generators(number: int) -> None:
    """Begin torch's, Python's and NumPy's own generators at `number`."""
    torch.manual_seed(number % 2**63)
    random.seed(number)
    np.random.seed(number % 2**32)
