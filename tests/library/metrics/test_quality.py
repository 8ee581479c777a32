"""Known values, and other programs' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from library.metrics.quality import psnr, ssim


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(seed)) * 0.8


def test_a_picture_and_itself():
    x = pictures(0)
    assert psnr(x, x).tolist() == [float("inf")] * 2
    assert ssim(x, x).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)


def test_a_shift_of_a_tenth_is_twenty_decibels():
    x = pictures(0)
    assert psnr(x + 0.1, x).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)


def test_psnr_and_ssim_are_numpys_and_scipys():
    x, y = pictures(0), pictures(1) * 0.3 + pictures(0) * 0.7
    a, b = x.double().numpy(), y.double().numpy()
    assert psnr(x, y).numpy() == pytest.approx(10 * np.log10(1 / np.mean((a - b) ** 2, axis=(1, 2, 3))), abs=1e-4)

    def blurred(values: np.ndarray) -> np.ndarray:
        whole = ndimage.gaussian_filter(values, (0, 0, 1.5, 1.5), truncate=5 / 1.5)
        return whole[..., 5:-5, 5:-5]

    m, n = blurred(a), blurred(b)
    v, w, c = blurred(a * a) - m * m, blurred(b * b) - n * n, blurred(a * b) - m * n
    index = (2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m * m + n * n + 1e-4) * (v + w + 9e-4))
    assert ssim(x, y).numpy() == pytest.approx(index.mean((1, 2, 3)), abs=1e-6)
