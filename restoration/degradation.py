"""How pictures are damaged: eq. 9, x_d = [(x * k)↓r + n]JPEG, once or twice, with everything drawn from ranges.

Presets: `face`, one stage, what DiffBIR's face weights were trained with; `second_order`, that stage twice, as the
paper writes; `realesrgan`, the two richer stages of Real-ESRGAN for pictures of any kind. All lengths are those of a
512 px picture; `for_size` brings them to another.

Pictures are float32 RGB (height, width, 3) in [0, 1]. What is drawn for a picture depends on (seed, epoch, sample id)
and on nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from library.data.keys import seed_of
from restoration import kernels

Range = tuple[float, float]
REFERENCE_SIDE = 512  # pixels: what the presets' lengths mean
SMALLEST_SIDE = 4  # pixels: no picture is made smaller than this
_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}


@dataclass(frozen=True)
class Stage:
    """The ranges that one application of eq. 9 draws from; the defaults are the preset `face`.

    Ranges are (lowest, highest), both inclusive and uniform between.
    """

    blur_share: float = 1.0
    """How often there is a blur at all."""
    kernel_size: Range = (41, 41)
    """Side of the kernel's window in pixels; odd sizes are drawn."""
    kernel_shares: tuple[float, ...] = (0.5, 0.5, 0.0, 0.0, 0.0, 0.0)
    """How often the kernel is: round, oval; the same for the generalized Gaussian; the same for the plateau."""
    sinc_share: float = 0.0
    """How often it is a sinc filter instead."""
    blur_sigma: Range = (0.1, 10.0)
    """Standard deviation in pixels, drawn for each axis of an oval kernel."""
    generalized_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    downscale: Range | None = (0.8, 8.0)
    """r: the picture is made this many times smaller. None: `resize` says how."""
    resize: Range = (0.15, 1.5)
    """Factor: above 1 when the draw is `up`, below when it is `down`."""
    resize_shares: Range | tuple[float, float, float] = (0.2, 0.7, 0.1)
    """How often up, down, keep."""
    interpolations: tuple[str, ...] = ("bilinear",)
    gaussian_share: float = 1.0
    """How often the noise is Gaussian; else it is Poisson noise."""
    noise: Range = (0.0, 20.0)
    """Standard deviation of Gaussian noise in units of 1/255."""
    poisson_scale: Range = (0.05, 3.0)
    grey_noise_share: float = 0.0
    """How often all three channels get the same noise."""
    jpeg_quality: Range = (60, 100)


@dataclass(frozen=True)
class Degradation:
    """One or two stages, and how they are joined."""

    stages: tuple[Stage, ...]
    between: float = 1.0
    """Before a second stage's resize and at the end, the picture is this many times smaller than the original."""
    final_sinc_share: float = 0.0
    """How often the last JPEG has a sinc filter before it or after it; the order is drawn evenly."""

    def for_size(self, side: int) -> Degradation:
        """The same damage to a picture of another size: blurs shrink or grow with it; resize, noise and JPEG stay."""
        share = side / REFERENCE_SIDE
        return replace(self, stages=tuple(_scaled(stage, share) for stage in self.stages))

    def with_ranges(self, ranges: Mapping[str, Any]) -> Degradation:
        """The same with other values of `Stage`'s fields; a name that begins with `second_` is the second stage's only,
        and one without is the first's, and the second's too where both stages had the same value."""
        stages = list(self.stages)
        alike = {name: all(getattr(stage, name) == getattr(stages[0], name) for stage in stages) for name in RANGES}
        for name, value in ranges.items():
            if name.startswith(SECOND):
                if len(stages) > 1:
                    stages[1] = replace(stages[1], **{name.removeprefix(SECOND): value})
                continue
            stages[0] = replace(stages[0], **{name: value})
            if len(stages) > 1 and alike[name] and SECOND + name not in ranges:
                stages[1] = replace(stages[1], **{name: value})
        return replace(self, stages=tuple(stages))


SECOND = "second_"
RANGES: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Stage))
_FACE = Stage()
_REAL_1 = Stage(
    kernel_size=(7, 21),
    kernel_shares=(0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
    sinc_share=0.1,
    blur_sigma=(0.2, 3.0),
    downscale=None,
    interpolations=("area", "bilinear", "bicubic"),
    gaussian_share=0.5,
    noise=(1.0, 30.0),
    grey_noise_share=0.4,
    jpeg_quality=(30, 95),
)
_REAL_2 = replace(
    _REAL_1,
    blur_share=0.8,
    blur_sigma=(0.2, 1.5),
    resize=(0.3, 1.2),
    resize_shares=(0.3, 0.4, 0.3),
    noise=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)
PRESETS: Mapping[str, Degradation] = {
    "face": Degradation((_FACE,)),
    "second_order": Degradation((_FACE, _FACE)),
    "realesrgan": Degradation((_REAL_1, _REAL_2), between=4.0, final_sinc_share=0.8),
}


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


def draw_kernel(stage: Stage, rng: np.random.Generator) -> np.ndarray:
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


def draw_size(stage: Stage, rng: np.random.Generator, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) after the stage's resize."""
    if stage.downscale is not None:
        r = rng.uniform(*stage.downscale)
    else:
        low, high = stage.resize
        change = rng.choice(3, p=np.asarray(stage.resize_shares) / sum(stage.resize_shares))
        r = 1.0 / (rng.uniform(1.0, high), rng.uniform(low, 1.0), 1.0)[int(change)]
    width, height = (max(SMALLEST_SIDE, int(side // r)) for side in size)
    return width, height


def draw_noise(stage: Stage, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
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


def _draw(stage: Stage, rng: np.random.Generator, size: tuple[int, int], smaller: float) -> tuple[Any, ...]:
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


def _scaled(stage: Stage, share: float) -> Stage:
    low, high = stage.blur_sigma
    smallest, largest = (max(3, int(side * share) // 2 * 2 + 1) for side in stage.kernel_size)
    # A blur below this is none at all, in pixels of any picture.
    return replace(stage, blur_sigma=(max(low * share, 0.05), high * share), kernel_size=(smallest, largest))
