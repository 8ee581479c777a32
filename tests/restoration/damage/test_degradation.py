"""Eq. 9 and what it draws: kernels, colours, seeds, sizes, and how strong the damage is."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal

from restoration.damage import kernels
from restoration.damage.degradation import degrade, draw_kernel, generator, jpeg
from restoration.damage.ranges import PRESETS, Degradation, DegradationStage, Range


def sigmas(kernel: np.ndarray) -> list[float]:
    """Square roots of the covariance's eigenvalues, largest first."""
    x, y = np.meshgrid(*[np.arange(len(kernel)) - len(kernel) // 2] * 2)
    cross = (kernel * x * y).sum()
    covariance = np.array([[(kernel * x * x).sum(), cross], [cross, (kernel * y * y).sum()]])
    return sorted(np.sqrt(np.linalg.eigvalsh(covariance)), reverse=True)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(np.float64) - other) ** 2)))


# A normal distribution cut at a = 20.5 / 10 standard deviations keeps sqrt(1 - 2 a phi(a) / (2 Phi(a) - 1)) = 0.890.
@pytest.mark.parametrize(
    ("asked", "got"), [((2.0, 2.0), (2.0, 2.0)), ((6.0, 1.5), (5.999, 1.5)), ((10.0, 10.0), (8.90, 8.90))]
)
def test_a_gaussian_kernel_has_the_sigmas_that_were_asked_for_as_far_as_its_window_reaches(asked, got):
    kernel = kernels.gaussian(41, *asked, angle=math.pi / 4)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-6)
    assert sigmas(kernel) == pytest.approx(got, abs=0.01 if asked[0] == 10 else 2e-3)


def test_every_kind_of_kernel_sums_to_one():
    rng = np.random.default_rng(0)
    for _ in range(60):
        assert draw_kernel(PRESETS["realesrgan"].stages[0], rng).sum() == pytest.approx(1.0, abs=1e-6)
    assert kernels.sinc(21, math.pi / 2).min() < 0


def test_a_grey_picture_stays_grey_in_the_mean():
    grey = np.full((128, 128, 3), 0.5, np.float32)
    for name in ("face", "second_order"):
        means = [degrade(grey, PRESETS[name], generator(0, 0, str(i))).mean() for i in range(8)]
        assert np.mean(means) == pytest.approx(0.5, abs=0.002), name


def test_red_stays_red_through_the_jpeg():
    red = np.zeros((64, 64, 3), np.float32)
    red[..., 0] = 1.0
    assert jpeg(red, 95).mean(axis=(0, 1)) == pytest.approx((0.996, 0.0, 0.0), abs=0.004)


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_degraded_picture_keeps_its_size_type_and_range(name: str):
    picture = np.random.default_rng(0).random((96, 131, 3), dtype=np.float32)
    for i in range(6):
        result = degrade(picture, PRESETS[name], generator(0, 0, str(i)))
        assert result.shape == picture.shape
        assert result.dtype == np.float32
        assert 0 <= result.min() <= result.max() <= 1


def test_the_damage_follows_from_seed_epoch_and_sample_alone(faces: np.ndarray):
    def damaged(seed: int, epoch: int, name: str) -> bytes:
        return degrade(faces[0], PRESETS["face"], generator(seed, epoch, name)).tobytes()

    first = damaged(7, 1, "0/refs/a.png#0")
    assert first == damaged(7, 1, "0/refs/a.png#0")
    others = [damaged(7, 2, "0/refs/a.png#0"), damaged(8, 1, "0/refs/a.png#0"), damaged(7, 1, "0/refs/b.png#0")]
    assert len({first, *others}) == 4
    names = [str(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:  # any number of workers
        assert list(pool.map(lambda name: damaged(7, 1, name), names)) == [damaged(7, 1, name) for name in names]


def test_a_lower_jpeg_quality_damages_more(faces: np.ndarray):
    qualities = [psnr(jpeg(faces[0], quality), faces[0]) for quality in (95, 60, 20)]
    assert qualities == sorted(qualities, reverse=True)


@pytest.mark.parametrize("key", ["blur_sigma", "downscale", "noise"])
def test_each_range_of_the_face_preset_moves_the_damage(key: str, faces: np.ndarray):
    weak: dict[str, Range] = {"blur_sigma": (0.1, 0.2), "downscale": (1.0, 1.0), "noise": (0.0, 0.0)}

    def mean_psnr(degradation: Degradation) -> float:
        return float(np.mean([psnr(degrade(x, degradation, generator(0, 0, str(i))), x) for i, x in enumerate(faces)]))

    preset = PRESETS["face"].for_size(128)
    assert mean_psnr(preset.with_ranges({key: weak[key]})) > mean_psnr(preset) + 0.2


def test_a_range_without_prefix_moves_both_stages_where_they_agreed():
    both = PRESETS["second_order"].with_ranges({"noise": (1.0, 2.0), "second_jpeg_quality": (30, 40)})
    assert [stage.noise for stage in both.stages] == [(1.0, 2.0), (1.0, 2.0)]
    assert [stage.jpeg_quality for stage in both.stages] == [(60, 100), (30, 40)]
    one = PRESETS["realesrgan"].with_ranges({"blur_sigma": (1.0, 2.0)})
    assert [stage.blur_sigma for stage in one.stages] == [(1.0, 2.0), (0.2, 1.5)]


def test_blurs_shrink_with_the_picture_and_the_rest_stays():
    small = PRESETS["face"].for_size(128).stages[0]
    assert small.blur_sigma == (0.05, 2.5)
    assert small.kernel_size == (11, 11)
    assert (small.noise, small.jpeg_quality, small.downscale) == (
        DegradationStage().noise,
        DegradationStage().jpeg_quality,
        DegradationStage().downscale,
    )


def independent(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One stage of the face preset by SciPy and Pillow, with draws of its own."""
    sigma = rng.uniform(0.1, 10, 2) if rng.random() < 0.5 else [rng.uniform(0.1, 10)] * 2
    turn = rng.uniform(-180, 180)
    axes = np.zeros((41, 41))
    axes[20, 20] = 1
    kernel = ndimage.rotate(ndimage.gaussian_filter(axes, sigma, truncate=20), turn, reshape=False, order=1)
    kernel /= kernel.sum()
    mirrored = np.pad(picture, ((20, 20), (20, 20), (0, 0)), mode="reflect")
    blurred = np.stack([signal.fftconvolve(mirrored[..., c], kernel, mode="valid") for c in range(3)], axis=-1)
    r = rng.uniform(0.8, 8)
    small = cv2.resize(blurred, (int(picture.shape[1] // r), int(picture.shape[0] // r)))
    noisy = np.clip(small + rng.normal(0, rng.uniform(0, 20) / 255, small.shape), 0, 1)
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.round(noisy * 255))).save(file, "JPEG", quality=int(rng.uniform(60, 100)))
    decoded = np.asarray(Image.open(file), np.float32) / 255
    return cv2.resize(decoded, picture.shape[1::-1])


def test_the_damage_is_as_strong_as_an_independent_program_s_and_two_stages_damage_more(faces: np.ndarray):
    large = [cv2.resize(face, (512, 512), interpolation=cv2.INTER_CUBIC) for face in faces[::2]]

    def measured(damage: Callable[[np.ndarray, int], np.ndarray], draws: int) -> tuple[float, float]:
        values = [psnr(damage(x, i + 100 * d), x) for d in range(draws) for i, x in enumerate(large)]
        return float(np.mean(values)), float(np.std(values))

    one, spread = measured(lambda x, i: degrade(x, PRESETS["face"], generator(0, 0, str(i))), 3)
    two, _ = measured(lambda x, i: degrade(x, PRESETS["second_order"], generator(0, 0, str(i))), 3)
    reference, _ = measured(lambda x, i: independent(x, np.random.default_rng(i)), 1)
    assert one == pytest.approx(reference, abs=1.0)
    assert 1.0 < spread < 4.0
    assert two < one - 1.0
