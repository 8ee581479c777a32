"""Aspect-ratio buckets: which size an image is brought to, and which part of it is kept.

Integer for integer the arithmetic of sd-scripts (its `BucketManager`), so that a dataset falls into the same buckets
here and there. Two of its results are deliberately not copied: an image that would get a bucket of size zero raises
`NoBucket`, and the crop is where the pixels were really cut.

All sizes are (width, height) in pixels, all positions (x, y) from the top left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, sqrt

from library.config.bucket_limits import adjusted_limits

Size = tuple[int, int]


class NoBucket(ValueError):
    """The image is too small, or too narrow, to fill even one step of a bucket."""


@dataclass(frozen=True, slots=True)
class BucketChoice:
    """An image is resized to `resized`, then cut to `bucket` with its top left corner at `crop`."""

    bucket: Size
    resized: Size
    crop: tuple[int, int]


def predefined_buckets(resolution: Size, smallest: int, largest: int, step: int) -> list[Size]:
    """Every bucket of at most the resolution's area with sides from `smallest` to `largest`, in ascending order.

    The square is always there; beside it, for each width on the grid, the tallest height that keeps within the area,
    and the same lying down.
    """
    area = resolution[0] * resolution[1]
    side = isqrt(area) // step * step
    sizes = {(side, side)}
    for width in range(smallest, largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


@dataclass(frozen=True)
class Buckets:
    """The buckets of one dataset. Without `enable_bucket` there is one: the resolution itself."""

    resolution: Size
    enable_bucket: bool = True
    smallest: int = 256
    largest: int = 1024
    step: int = 64
    no_upscale: bool = False

    @cached_property
    def sizes(self) -> list[Size]:
        """The sizes to choose from; with `no_upscale` there is no such list, every multiple of the step is a bucket."""
        if not self.enable_bucket:
            return [self.resolution]
        limits = adjusted_limits(self.smallest, self.largest, self.step)
        return predefined_buckets(self.resolution, *limits, self.step)

    def choose(self, image: Size) -> BucketChoice:
        """The bucket for an image of this size. Raises NoBucket if it cannot fill one."""
        if self.enable_bucket and self.no_upscale:
            resized = shrink(image, self.resolution[0] * self.resolution[1], self.step)
            bucket = (resized[0] // self.step * self.step, resized[1] // self.step * self.step)
        else:
            bucket = nearest(image, self.sizes)
            resized = cover(image, bucket)
        if 0 in bucket:
            raise NoBucket(f"{image[0]}x{image[1]} cannot fill one step of {self.step} pixels")
        return BucketChoice(bucket, resized, centre(resized, bucket))


def nearest(image: Size, sizes: Sequence[Size]) -> Size:
    """The size itself if it is among `sizes`, else the one of nearest aspect ratio (the first of equals)."""
    if image in sizes:
        return image
    ratio = image[0] / image[1]
    return min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))


def cover(image: Size, bucket: Size) -> Size:
    """The image's size after scaling it until it just covers the bucket."""
    width, height = image
    wider = width / height > bucket[0] / bucket[1]
    scale = bucket[1] / height if wider else bucket[0] / width
    return int(width * scale + 0.5), int(height * scale + 0.5)


def shrink(image: Size, area: int, step: int) -> Size:
    """The image's size after scaling it down, never up, to the area, one side a whole number of steps.

    Of the two sides the one is put on the grid whose bucket keeps closer to the image's aspect ratio.
    """
    width, height = image
    if width * height <= area:
        return image
    ratio = width / height
    exact_width = sqrt(area * ratio)
    on_width, on_height = whole_steps(exact_width, step), whole_steps(area / exact_width, step)
    height_beside, width_beside = whole_steps(on_width / ratio, step), whole_steps(on_height * ratio, step)
    if 0 in (on_width, on_height, height_beside, width_beside):
        raise NoBucket(f"{width}x{height}, scaled down to {area} pixels, is narrower than one step of {step}")
    if abs(on_width / height_beside - ratio) < abs(width_beside / on_height - ratio):
        return on_width, int(on_width / ratio + 0.5)
    return int(on_height * ratio + 0.5), on_height


def whole_steps(length: float, step: int) -> int:
    """The length, rounded to a pixel, then down to a whole number of steps."""
    return int(length + 0.5) // step * step


def centre(resized: Size, bucket: Size) -> tuple[int, int]:
    """Where the bucket lies when it is cut from the middle of the resized image."""
    return (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
