"""Art styles that are held out of pretraining: the proving ground of style adapters.

Each changes colours and lines at a scale that an 8x VAE keeps at 128 px: marks of 6 px and more, strong changes
of tone.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from miniworld.canvas import SIZE, Canvas
from miniworld.edges import edge_strength, normal_field

_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _luminance(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _saturated(pixels: np.ndarray, factor: float, offset: float, brightness: float = 0) -> np.ndarray:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + brightness, 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def _posterised(pixels: np.ndarray, step: int) -> np.ndarray:
    smooth = cv2.bilateralFilter(pixels, 7, 60, 7).astype(np.int32)
    return _to_bytes((smooth + step // 2) // step * step)


def pointillism(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Round dabs of pure, scattered colour on pale canvas."""
    canvas = Canvas((240, 236, 224))
    vivid = _saturated(pixels, 1.3, 15)
    step = 8.5
    places = np.stack(np.meshgrid(np.arange(0, SIZE + step, step), np.arange(0, SIZE + step, step)), -1).reshape(-1, 2)
    places += rng.normal(0, 1.4, places.shape)
    columns, rows = np.clip(places, 0, SIZE - 1).astype(int).T
    colours = np.clip(vivid[rows, columns] + rng.normal(0, 20, (len(places), 3)), 0, 255)
    radii = rng.uniform(3.6, 5.0, len(places))
    for (x, y), colour, radius in zip(places.tolist(), colours.tolist(), radii.tolist(), strict=True):
        canvas.circle(x, y, radius, colour)
    return canvas.pixels


def stained_glass(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Cells of bright glass between dark leads, which also follow the outlines of the drawing."""
    count = 60
    seeds = rng.uniform(0, SIZE, (count, 2)).astype(np.float32)
    rows, columns = _ROWS[::2, ::2, None], _COLUMNS[::2, ::2, None]
    nearest = ((columns - seeds[:, 0]) ** 2 + (rows - seeds[:, 1]) ** 2).argmin(-1).astype(np.uint8)
    cells = cv2.resize(nearest, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    sizes = np.bincount(cells.ravel(), minlength=count)[:, None] + 1e-6
    sums = [np.bincount(cells.ravel(), channel.ravel(), count) for channel in cv2.split(pixels)]
    means = np.stack(sums, 1) / sizes  # (count, 3)
    glass = means[cells] * 0.4 + _posterised(pixels, 48) * 0.6
    glass = _saturated(_to_bytes(glass), 1.5, 35, 12)
    borders = cv2.morphologyEx(cells, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    leads = cv2.dilate(borders.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    outlines = edge_strength(cv2.GaussianBlur(pixels, (0, 0), 1.5)) > 0.5
    glass[leads | outlines] = (16, 16, 20)
    return glass


def comic(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Flat printed colours, halftone dots in the shadows, thick black outlines."""
    print_ = _saturated(_posterised(pixels, 64), 1.35, 20).astype(np.float32)
    pitch = 14.0
    along, across = (_COLUMNS + _ROWS) / math.sqrt(2), (_COLUMNS - _ROWS) / math.sqrt(2)
    distance = np.hypot(along % pitch - pitch / 2, across % pitch - pitch / 2)
    dots = distance < (1 - _luminance(pixels)) * pitch * 0.6
    print_[dots] *= 0.62
    outlines = cv2.dilate((edge_strength(pixels) > 0.55).astype(np.uint8), np.ones((3, 3), np.uint8))
    print_[outlines > 0] = (8, 8, 8)
    return _to_bytes(print_)


def blueprint(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """White outlines on blue paper with a drafting grid."""
    paper = np.empty_like(pixels)
    paper[:] = (24, 60, 140)
    for k in range(0, SIZE, 24):
        paper[k : k + 2] = (52, 94, 176)
        paper[:, k : k + 2] = (52, 94, 176)
    lines = np.clip((cv2.GaussianBlur(edge_strength(pixels), (0, 0), 1.0) - 0.07) * 2.6, 0, 1)[..., None]
    return _to_bytes(paper * (1 - lines) + np.asarray((235, 242, 255)) * lines)


def low_poly(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A net of flat triangles, lit from alternating sides."""
    step = 12
    count = SIZE // step
    grid = np.stack(np.meshgrid(np.arange(count + 1) * step, np.arange(count + 1) * step), -1).astype(np.float32)
    grid[1:-1, 1:-1] += rng.uniform(-4, 4, (count - 1, count - 1, 2)).astype(np.float32)
    smooth = cv2.blur(pixels, (5, 5))
    canvas = Canvas((0, 0, 0))
    for row in range(count):
        for column in range(count):
            a, b = grid[row, column], grid[row, column + 1]
            c, d = grid[row + 1, column + 1], grid[row + 1, column]
            for triangle, light in (((a, b, c), 1.12), ((a, c, d), 0.86)):
                x, y = (a + b + c) / 3 if light > 1 else (a + c + d) / 3
                colour = smooth[int(y), int(x)] * (light + rng.normal(0, 0.05))
                canvas.polygon(np.stack(triangle), tuple(np.clip(colour, 0, 255).tolist()))
    return canvas.pixels


def oil(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Thick directed brush strokes that follow the contours, each with a light and a dark flank."""
    smooth = cv2.GaussianBlur(_saturated(pixels, 1.2, 10), (0, 0), 2)
    gray = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (0, 0), 4).astype(np.float32)
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    canvas = Canvas((0, 0, 0))
    canvas.pixels = smooth.copy()
    count = 340
    places = rng.uniform(0, SIZE - 1, (count, 2))
    lengths, shades = rng.uniform(9, 15, count), rng.uniform(0.72, 1.3, count)
    for (x, y), length, shade in zip(places.tolist(), lengths.tolist(), shades.tolist(), strict=True):
        row, column = int(y), int(x)
        gradient_x, gradient_y = float(across[row, column]), float(down[row, column])
        steep = math.hypot(gradient_x, gradient_y) > 6
        angle = math.atan2(gradient_x, -gradient_y) if steep else 0.8 + 0.6 * math.sin(x / 30)
        half = length * (0.6 if steep else 1.0)
        dx, dy = half * math.cos(angle), half * math.sin(angle)
        base = smooth[row, column] * shade + 14 * (shade - 1)
        flank = tuple(np.clip(base * 0.66, 0, 255).tolist())
        canvas.line([(x - dx + 1.5, y - dy + 3), (x + dx + 1.5, y + dy + 3)], flank, 3)
        canvas.line([(x - dx, y - dy), (x + dx, y + dy)], tuple(np.clip(base, 0, 255).tolist()), 7)
    return canvas.pixels


def woodcut(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Dark ink on cream paper: shade is the width of wavy carved lines."""
    luminance = cv2.GaussianBlur(_luminance(pixels), (0, 0), 2)
    pitch = 11.0
    wave = (_ROWS + 6 * np.sin(_COLUMNS / 22)) % pitch / pitch
    ink = np.abs(wave - 0.5) * 2 < (1 - luminance) * 1.05
    ink |= edge_strength(pixels) > 0.32
    print_ = np.empty_like(pixels)
    print_[:] = (236, 222, 190)
    print_[ink] = (48, 28, 20)
    return print_


def neon(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Glowing tubes along the outlines, in the colours of the drawing, on a dark wall."""
    lines = np.clip((edge_strength(pixels) - 0.12) * 2.2, 0, 1)
    lines = cv2.dilate(lines, np.ones((3, 3), np.uint8))[..., None]
    vivid = _saturated(cv2.dilate(pixels, np.ones((5, 5), np.uint8)), 1.8, 60, 90).astype(np.float32)
    tubes = vivid * lines
    glow = cv2.GaussianBlur(tubes, (0, 0), 6)
    wall = np.asarray((18, 10, 34)) + pixels * 0.10
    return _to_bytes(wall * (1 - lines) + glow * 1.1 + tubes * 0.75 + 60 * lines)


def paper_cut(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Sheets of pastel paper laid over each other from dark to light, each throwing a shadow."""
    flat = _posterised(pixels, 72).astype(np.float32)
    flat = flat * 0.72 + np.asarray((250, 238, 215)) * 0.28
    luminance = cv2.GaussianBlur(_luminance(pixels), (0, 0), 1.5)
    shadow = np.ones((SIZE, SIZE), np.float32)
    for threshold in (0.25, 0.45, 0.62, 0.8):
        sheet = (luminance > threshold).astype(np.float32)
        cast = cv2.GaussianBlur(np.roll(sheet, (7, 7), (0, 1)), (0, 0), 2.5)
        shadow *= 1 - 0.55 * cast * (1 - sheet)
    rim = np.clip((edge_strength(pixels) - 0.25) * 2, 0, 1)[..., None]
    flat = flat * (1 - rim) + 252 * rim
    return _to_bytes(flat * shadow[..., None])


def chalk(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Chalk on a green-black board: pale outlines, and hatching in the colours of the drawing."""
    board = np.asarray((34, 50, 44)) + normal_field(rng, 24)[..., None] * 5
    hatch = ((_COLUMNS + _ROWS + 3 * normal_field(rng, 20)) % 12 < 5).astype(np.float32)
    hatch = cv2.GaussianBlur(hatch, (0, 0), 0.8)[..., None] * (0.25 + 0.45 * _luminance(pixels))[..., None]
    pastel = pixels.astype(np.float32) * 0.9 + 45
    drawing = board * (1 - hatch) + pastel * hatch
    lines = np.clip((cv2.GaussianBlur(edge_strength(pixels), (0, 0), 1.0) - 0.07) * 2.4, 0, 0.92)[..., None]
    return _to_bytes(drawing * (1 - lines) + np.asarray((244, 242, 228)) * lines)
