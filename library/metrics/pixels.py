"""What pictures tell without any network: copies of references, duplicates, sharpness, colours and tones.

Likeness is the cosine of two pictures at 24 x 24 pixels without their mean colour: 1 for the same picture, also a
lighter one, and mirrored ones are tried. It finds copies, not kinship of content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from library.metrics.preprocess import open_picture

SMALL, SIDE = 24, 256
COPY, DUPLICATE = 0.95, 0.98
"""Cosines from which on two pictures are one: a copy may be redrawn, a duplicate is the same file or nearly so."""
MOST = 1000
"""Pictures of a set that are looked at; of more, the first ones."""


@dataclass(frozen=True)
class Looks:
    """Medians over a set: the variance of the Laplacian at 256 pixels, and on a scale from 0 to 1 the lightness, its
    standard deviation inside a picture, and the saturation."""

    sharpness: float
    lightness: float
    contrast: float
    saturation: float


@dataclass(frozen=True)
class LikePair:
    file: str
    other: str
    cosine: float


@dataclass(frozen=True)
class PixelFindings:
    """`copies` are generated pictures with the reference that each copies, `duplicates` pairs of generated ones."""

    generated: Looks
    references: Looks | None
    copies: list[LikePair]
    duplicates: list[LikePair]
    looked_at: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        names = ("sharpness", "lightness", "contrast", "saturation")
        lines = ["from the pixels alone, without a network (medians)"]
        for name in names:
            theirs = "" if self.references is None else f"   references {getattr(self.references, name):.3g}"
            lines.append(f"  {name:<10} {getattr(self.generated, name):.3g}{theirs}")
        if self.references is not None:
            lines.append(_listed("copies of references", self.copies, self.looked_at))
        lines.append(_listed("duplicates among the generated", self.duplicates, self.looked_at))
        return "\n".join(lines)


def _listed(what: str, pairs: Sequence[LikePair], of: int) -> str:
    shown = "; ".join(f"{pair.file} ~ {pair.other} ({pair.cosine:.2f})" for pair in pairs[:3])
    return f"  {what}: {len({pair.file for pair in pairs})} of {of}" + (f": {shown}" if shown else "")


def look_at_pixels(generated: Sequence[Path], references: Sequence[Path]) -> PixelFindings:
    """Raises `UserError` for a picture that cannot be read."""
    mine, theirs = generated[:MOST], references[:MOST]
    seen, signatures = zip(*map(_read, mine), strict=True)
    looks = None
    copies: list[LikePair] = []
    if theirs:
        their_seen, their_signatures = zip(*map(_read, theirs), strict=True)
        looks = _medians(their_seen)
        cosines = _likeness(np.stack(signatures), np.stack(their_signatures))
        nearest = cosines.argmax(1)
        found = [(i, int(j), float(cosines[i, j])) for i, j in enumerate(nearest)]
        copies = [LikePair(mine[i].name, theirs[j].name, round(c, 4)) for i, j, c in found if c >= COPY]
    among = _likeness(np.stack(signatures), np.stack(signatures))
    twice = [(int(i), int(j)) for i, j in np.argwhere(np.triu(among, 1) >= DUPLICATE)]
    duplicates = [LikePair(mine[i].name, mine[j].name, round(float(among[i, j]), 4)) for i, j in twice]
    return PixelFindings(_medians(seen), looks, copies, duplicates, len(mine))


def _read(path: Path) -> tuple[Looks, np.ndarray]:
    """What one picture looks like, and its signature (24, 24, 3) of length 1."""
    picture = open_picture(path)
    at_side = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    small = np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BOX), np.float64)
    centred = small - small.mean(axis=(0, 1))
    signature = centred / max(float(np.linalg.norm(centred)), 1e-6)
    return _looks(np.asarray(at_side, np.float64) / 255), signature


def _looks(pixels: np.ndarray) -> Looks:
    """Of (height, width, 3) in [0, 1]."""
    grey = pixels @ (0.299, 0.587, 0.114)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    most = pixels.max(-1)
    saturation = (most - pixels.min(-1)) / np.maximum(most, 1e-6)
    return Looks(float((255 * laplacian).var()), float(grey.mean()), float(grey.std()), float(saturation.mean()))


def _medians(looks: Sequence[Looks]) -> Looks:
    columns = zip(*(asdict(one).values() for one in looks), strict=True)
    return Looks(*(median(column) for column in columns))


def _likeness(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Cosines of signatures (n, 24, 24, 3) and (m, 24, 24, 3), or of their mirror images where these are larger."""
    rows, columns = mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1)
    return np.maximum(rows @ columns.T, rows @ theirs[:, :, ::-1].reshape(len(theirs), -1).T)
