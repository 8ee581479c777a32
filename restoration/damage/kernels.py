"""Blur kernels of the degradations: Gaussian, generalized Gaussian, plateau, and sinc.

All are functions of the distance d from the middle, in units of the kernel's standard deviations along its two axes:
exp(-d^2 / 2), exp(-(d^2)^beta / 2) (Liu et al. 2020), 1 / (1 + (d^2)^beta), and J1(w r) / r, a low-pass filter
(Wang et al. 2021, Real-ESRGAN). Each sums to 1.
"""

from __future__ import annotations

import math

import numpy as np

Kernel = np.ndarray  # (size, size) float64


def gaussian(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> Kernel:
    """Standard deviations in pixels along axes that are turned by `angle` radians."""
    return _normal(np.exp(-0.5 * squared_distance(size, sigma_x, sigma_y, angle)))


def generalized_gaussian(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> Kernel:
    """A Gaussian with a flatter (beta > 1) or sharper (beta < 1) top."""
    return _normal(np.exp(-0.5 * squared_distance(size, sigma_x, sigma_y, angle) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> Kernel:
    """Flat in the middle, with long tails."""
    return _normal(1.0 / (1.0 + squared_distance(size, sigma_x, sigma_y, angle) ** beta))


def sinc(size: int, cutoff: float) -> Kernel:
    """The ideal circular low-pass filter with `cutoff` in radians per pixel, cut to the window: it rings."""
    from scipy.special import j1

    x, y = _grid(size)
    radius = np.hypot(x, y)
    middle = size // 2
    radius[middle, middle] = 1.0
    kernel = cutoff * j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[middle, middle] = cutoff**2 / (4 * math.pi)
    return _normal(kernel)


def squared_distance(size: int, sigma_x: float, sigma_y: float, angle: float) -> Kernel:
    """x^T C^-1 x at every pixel x of a window of odd `size`, C the covariance matrix."""
    x, y = _grid(size)
    along = math.cos(angle) * x + math.sin(angle) * y
    across = -math.sin(angle) * x + math.cos(angle) * y
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    steps = np.arange(size) - size // 2
    x, y = np.meshgrid(steps, steps)
    return x.astype(np.float64), y.astype(np.float64)


def _normal(kernel: Kernel) -> Kernel:
    return kernel / kernel.sum()
