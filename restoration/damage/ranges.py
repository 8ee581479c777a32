"""The ranges that degradations draw from, and the presets: data alone.

All lengths are those of a 512 px picture; `Degradation.for_size` brings them to another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Range = tuple[float, float]
REFERENCE_SIDE = 512  # pixels: what the presets' lengths mean


@dataclass(frozen=True)
class DegradationStage:
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

    stages: tuple[DegradationStage, ...]
    between: float = 1.0
    """Before a second stage's resize and at the end, the picture is this many times smaller than the original."""
    final_sinc_share: float = 0.0
    """How often the last JPEG has a sinc filter before it or after it; the order is drawn evenly."""

    def for_size(self, side: int) -> Degradation:
        """The same damage to a picture of another size: blurs shrink or grow with it; resize, noise and JPEG stay."""
        share = side / REFERENCE_SIDE
        return replace(self, stages=tuple(_scaled(stage, share) for stage in self.stages))

    def with_ranges(self, ranges: Mapping[str, Any]) -> Degradation:
        """The same with other values of `DegradationStage`'s fields.

        A name that begins with `second_` is the second stage's only, and one without is the first's, and the second's
        too where both stages had the same value.
        """
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
RANGES: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(DegradationStage))
_FACE = DegradationStage()
_REAL_1 = DegradationStage(
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


def _scaled(stage: DegradationStage, share: float) -> DegradationStage:
    low, high = stage.blur_sigma
    smallest, largest = (max(3, int(side * share) // 2 * 2 + 1) for side in stage.kernel_size)
    # A blur below this is none at all, in pixels of any picture.
    return replace(stage, blur_sigma=(max(low * share, 0.05), high * share), kernel_size=(smallest, largest))
