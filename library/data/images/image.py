"""One image as one subset uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.config.dataset_specs import SubsetSpec
from library.data.buckets import BucketChoice, Size
from library.data.images.image_folder import Stamp
from library.data.images.masks import MaskSource

Look = tuple[Path, BucketChoice, str | None, MaskSource | None]


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """One image as one subset uses it. `size` is (width, height), upright."""

    path: Path
    stamp: Stamp
    size: Size
    choice: BucketChoice
    caption: str
    subset: SubsetSpec
    dataset: int
    notes: tuple[str, ...] = ()
    mask: MaskSource | None = None

    @property
    def look(self) -> Look:
        """What a cache files the picture's latents under, besides the flip."""
        return self.path, self.choice, self.subset.resize_interpolation, self.mask
