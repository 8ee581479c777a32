"""How pictures are damaged: eq. 9, x_d = [(x * k)↓r + n]JPEG, once or twice, with everything drawn from ranges.

The ranges are in `restoration.damage.ranges`: `face`, one stage, what DiffBIR's face weights were trained with;
`second_order`, that stage twice, as the paper writes; `realesrgan`, the two richer stages of Real-ESRGAN for pictures
of any kind.

Pictures are float32 RGB (height, width, 3) in [0, 1]. What is drawn for a picture depends on (seed, epoch, sample id)
and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from library.data.keys import seed_of
from restoration.damage import kernels
from restoration.damage.ranges import PRESETS, Degradation, DegradationStage

__all__ = ["PRESETS", "Degradation", "DegradationStage", "degrade", "draw_kernel", "eq_9", "generator", "jpeg"]

SMALLEST_SIDE = 4  # pixels: no picture is made smaller than this
_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}


def generator(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """The generator of one picture's damage in one epoch: the same in every process and worker, and after a resume."""
    return np.random.Generator(np.random.PCG64(seed_of(seed, epoch, sample_id, "degradation")))


def degrade(picture: np.ndarray, degradation: Degradation, rng: np.random.Generator) -> np.ndarray:
    """A damaged picture of the same size, float32 (height, width, 3) in [0, 1]."""
    height, width = picture.shape[:2]
    result = np.asarray(picture, np.float32)
    for number, stage in enumerate(degradation.stages, start=1):
        drawn = _draw(stage, rng, (width, height), degradation.between if number > 1 else 1.0)
        if number == len(degradation.stages) and degradation.final_sinc_share:
            result = _last_stage(result, drawn, degradation, (width, height), rng)
        else:
            result = eq_9(result, *drawn)
            if degradation.between == 1.0:
                result = resized(result, (width, height), "bilinear")
    return np.clip(resized(result, (width, height), "bilinear"), 0.0, 1.0)


def eq_9(
    x: np.ndarray,
    k: np.ndarray | None,
    size: tuple[int, int],
    interpolation: str,
    noise: Callable[[np.ndarray], np.ndarray],
    q: int | None,
) -> np.ndarray:
    """x_d = [(x * k)↓r + n]JPEG_q: blur, resize to `size` (width, height), noise, JPEG (None: no JPEG yet)."""
    blurred = filtered(x, k) if k is not None else x
    small = resized(blurred, size, interpolation)
    noisy = np.clip(small + noise(small), 0.0, 1.0).astype(np.float32)
    return jpeg(noisy, q) if q is not None else noisy


def filtered(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def resized(picture: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """To `size` (width, height)."""
    if size == picture.shape[1::-1]:
        return picture
    return cv2.resize(picture, size, interpolation=_INTERPOLATION[interpolation])


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Through a JPEG of `quality` 1-100. The codec's colours are blue first, and whole numbers."""
    pixels = np.round(picture[..., ::-1] * 255.0).astype(np.uint8)
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Any = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return decoded[..., ::-1].astype(np.float32) / 255.0


# --- what is drawn


def draw_kernel(stage: DegradationStage, rng: np.random.Generator) -> np.ndarray:
    """One of the six kinds, or a sinc filter."""
    low, high = (int(side) for side in stage.kernel_size)
    size = int(rng.integers(low // 2, high // 2 + 1)) * 2 + 1
    if rng.random() < stage.sinc_share:
        return kernels.sinc(size, rng.uniform(math.pi / (3 if size < 13 else 5), math.pi))
    shares = np.asarray(stage.kernel_shares) / sum(stage.kernel_shares)
    kind, oval = divmod(int(rng.choice(len(shares), p=shares)), 2)
    sigma_x = sigma_y = rng.uniform(*stage.blur_sigma)
    angle = 0.0
    if oval:
        sigma_y, angle = rng.uniform(*stage.blur_sigma), rng.uniform(-math.pi, math.pi)
    if kind == 1:
        return kernels.generalized_gaussian(size, sigma_x, sigma_y, angle, rng.uniform(*stage.generalized_beta))
    if kind == 2:
        return kernels.plateau(size, sigma_x, sigma_y, angle, rng.uniform(*stage.plateau_beta))
    return kernels.gaussian(size, sigma_x, sigma_y, angle)


def draw_size(stage: DegradationStage, rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) after the stage's resize."""
    if stage.downscale is not None:
        r = rng.uniform(*stage.downscale)
    else:
        low, high = stage.resize
        change = rng.choice(3, p=np.asarray(stage.resize_shares) / sum(stage.resize_shares))
        r = 1.0 / (rng.uniform(1.0, high), rng.uniform(low, 1.0), 1.0)[int(change)]
    width, height = (max(SMALLEST_SIDE, int(side // r)) for side in size)
    return width, height


def draw_noise(stage: DegradationStage, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """n: the noise of a picture, which for Poisson noise depends on the picture."""
    gaussian, grey = rng.random() < stage.gaussian_share, rng.random() < stage.grey_noise_share
    strength = rng.uniform(*(stage.noise if gaussian else stage.poisson_scale))

    def gaussian_noise(picture: np.ndarray) -> np.ndarray:
        shape = (*picture.shape[:2], 1) if grey else picture.shape
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(strength / 255.0)

    def poisson_noise(picture: np.ndarray) -> np.ndarray:
        signal = np.clip(np.round(picture * 255.0), 0, 255) / 255.0
        if grey:
            signal = signal @ np.array([[0.299], [0.587], [0.114]])
        levels = 2.0 ** math.ceil(math.log2(len(np.unique(signal))))
        return ((rng.poisson(signal * levels) / levels - signal) * strength).astype(np.float32)

    return gaussian_noise if gaussian else poisson_noise


def _draw(stage: DegradationStage, rng: np.random.Generator, size: tuple[int, int], smaller: float) -> tuple[Any, ...]:
    """Everything that `eq_9` takes beside the picture."""
    base = (int(size[0] // smaller), int(size[1] // smaller))
    kernel = draw_kernel(stage, rng) if rng.random() < stage.blur_share else None
    small = draw_size(stage, rng, base)
    interpolation = stage.interpolations[int(rng.integers(len(stage.interpolations)))]
    noise = draw_noise(stage, rng)
    return kernel, small, interpolation, noise, int(rng.uniform(*stage.jpeg_quality))


def _last_stage(
    x: np.ndarray, drawn: tuple[Any, ...], degradation: Degradation, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Real-ESRGAN's end: the last resize with a sinc filter, before the JPEG or after it."""
    kernel, small, interpolation, noise, quality = drawn
    noisy = eq_9(x, kernel, small, interpolation, noise, None)
    end = (int(size[0] // degradation.between), int(size[1] // degradation.between))
    sinc = None
    if rng.random() < degradation.final_sinc_share:
        sinc = kernels.sinc(21, rng.uniform(math.pi / 3, math.pi))

    def ending(picture: np.ndarray) -> np.ndarray:
        small = resized(picture, end, interpolation)
        return np.clip(filtered(small, sinc), 0.0, 1.0) if sinc is not None else small

    if rng.random() < 0.5:
        return jpeg(np.clip(ending(noisy), 0.0, 1.0), quality)
    return ending(jpeg(noisy, quality))
