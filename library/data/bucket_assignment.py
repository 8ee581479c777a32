"""Every image in its bucket, and what is worth saying about how it gets there."""

from __future__ import annotations

from collections.abc import Sequence

from library.config.dataset_specs import DatasetSpec
from library.data.buckets import Buckets, NoBucket
from library.data.images.image import DatasetImage
from library.data.images.scan import Seen
from library.errors import Problem

ENLARGED_TOO_MUCH = 2.0  # an image that must grow by more than this has little to teach; worth a warning
CUT_TOO_MUCH = 0.5  # the share of an image that is cut away; beyond it little is left of what its caption says


def placed(plan: Sequence[DatasetSpec], images: list[Seen], problems: list[Problem]) -> list[DatasetImage]:
    """Every image in its bucket, with the caption that it will have."""
    rules = [buckets_of(spec) for spec in plan]
    pictures = []
    for image in images:
        if image.header is None:
            continue  # its problem is already on the list
        size, rule = image.header.size, rules[image.dataset]
        try:
            if min(size) < rule.step:
                raise NoBucket(f"{size[0]}x{size[1]} is less than one bucket step of {rule.step} pixels on a side")
            choice = rule.choose(size)
        except NoBucket as error:
            text = f"is too small: {error}; remove it, use a larger one, or lower `bucket_reso_steps`"
            problems.append(Problem(text, f"image '{image.path}'"))
            continue
        pictures.append(
            DatasetImage(
                path=image.path,
                stamp=image.stamp,
                size=size,
                choice=choice,
                caption=image.caption or image.subset.class_tokens or "",
                subset=image.subset,
                dataset=image.dataset,
                notes=image.header.notes,
                mask=image.mask,
            )
        )
    return pictures


def buckets_of(spec: DatasetSpec) -> Buckets:
    """The bucket arithmetic that a DatasetSpec asks for."""
    return Buckets(
        resolution=(spec.resolution[0], spec.resolution[1]),
        enable_bucket=spec.enable_bucket,
        smallest=spec.min_bucket_reso,
        largest=spec.max_bucket_reso,
        step=spec.bucket_reso_steps,
        no_upscale=spec.bucket_no_upscale,
    )


def is_skipped(spec: DatasetSpec, image: Seen) -> bool:
    """Whether an image has no more pixels than `skip_image_resolution`."""
    if spec.skip_image_resolution is None or image.header is None:
        return False
    (width, height), (least_width, least_height) = image.header.size, spec.skip_image_resolution
    return width * height <= least_width * least_height


def about_skipped(plan: Sequence[DatasetSpec], images: Sequence[Seen]) -> list[str]:
    """A line for each dataset with `skip_image_resolution`: how many images it leaves out."""
    lines = []
    for place, spec in enumerate(plan):
        limit = spec.skip_image_resolution
        if limit is not None:
            own = [image for image in images if image.dataset == place]
            count = sum(is_skipped(spec, image) for image in own)
            lines.append(f"skip_image_resolution leaves out {count} of {len(own)} images: those up to {written(limit)}")
    return lines


def about_sizes(pictures: Sequence[DatasetImage]) -> list[str]:
    """A line on images that are enlarged much, and one on those of which much is cut away."""
    lines = []
    grown = [p for p in pictures if growth(p) > ENLARGED_TOO_MUCH]
    if grown:
        worst = max(grown, key=growth)
        sizes = f"from {written(worst.size)} to {written(worst.choice.resized)}"
        count = f"{len(grown)} images are enlarged more than {ENLARGED_TOO_MUCH:g} times"
        lines.append(f"{count}, most of all '{worst.path}' {sizes}")
    cropped = [p for p in pictures if cut_away(p) > CUT_TOO_MUCH]
    if cropped:
        worst = max(cropped, key=cut_away)
        sizes = f"of {written(worst.size)}, {cut_away(worst):.0%} to fit {written(worst.choice.bucket)}"
        lines.append(f"{len(cropped)} images lose more than half to the crop, most of all '{worst.path}' {sizes}")
    return lines


def growth(picture: DatasetImage) -> float:
    """By how much an image's sides grow."""
    return picture.choice.resized[0] / picture.size[0]


def cut_away(picture: DatasetImage) -> float:
    """The share of the resized image that its bucket leaves out."""
    (width, height), (kept_width, kept_height) = picture.choice.resized, picture.choice.bucket
    return 1 - kept_width * kept_height / (width * height)


def written(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
