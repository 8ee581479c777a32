"""The dataset: every image with its caption, its bucket and its place in an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from library.config.dataset_specs import DatasetSpec, SubsetSpec
from library.data.buckets import BucketChoice, Buckets, NoBucket, Size
from library.data.folders import Stamp
from library.data.masks import MaskSource
from library.data.survey import Seen, survey
from library.errors import Problem, raise_all

ENLARGED_TOO_MUCH = 2.0  # an image that must grow by more than this has little to teach; worth a warning


Look = tuple[Path, BucketChoice, str | None, MaskSource | None]


@dataclass(frozen=True, slots=True)
class Picture:
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


@dataclass(frozen=True, slots=True)
class Sample:
    """One visit to a picture in every epoch; a picture has as many samples as repeats.

    The id, `<dataset>/<folder name>/<file name>#<repeat>`, names the sample's random draws and stays the same when the
    folder moves or other images come and go.
    """

    sample_id: str
    picture: Picture
    loss_weight: float


@dataclass
class Dataset:
    """All samples of all datasets of a plan. `plan` is what they were built from."""

    plan: Sequence[DatasetSpec]
    pictures: list[Picture]
    samples: list[Sample]
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def groups(self) -> dict[tuple[int, Size], list[int]]:
        """Indices of the samples that may share a batch: one list per dataset and bucket, in ascending order."""
        groups: dict[tuple[int, Size], list[int]] = {}
        for index, sample in enumerate(self.samples):
            groups.setdefault((sample.picture.dataset, sample.picture.choice.bucket), []).append(index)
        return dict(sorted(groups.items()))

    @cached_property
    def visits(self) -> list[int]:
        """How many samples each of `pictures` has in an epoch: its repeats, for regularisation images often others."""
        counts = Counter(id(sample.picture) for sample in self.samples)
        return [counts[id(picture)] for picture in self.pictures]


def build(
    plan: Sequence[DatasetSpec], *, prior_loss_weight: float = 1.0, fallback: Path | None = None, workers: int = 8
) -> Dataset:
    """The dataset of a plan.

    `prior_loss_weight` is the loss weight of regularisation images, `fallback` the output folder, where caches of
    folders that cannot be written are kept, `workers` the number of threads that read headers and captions.

    Raises UserError with every folder, image and caption that cannot be used.
    """
    seen = survey(plan, fallback, workers)
    problems = seen.problems
    pictures = _placed(plan, seen.images, problems)
    if not problems and all(picture.subset.is_reg for picture in pictures):
        problems.append(Problem("there is no image to train on"))
    raise_all(list(dict.fromkeys(problems)))  # a folder of two datasets has each of its problems once
    samples = _samples(plan, pictures, prior_loss_weight)
    return Dataset(plan, pictures, samples, list(dict.fromkeys(seen.warnings)) + _about_sizes(pictures))


def fill_up(images: Sequence[int], wanted: int) -> list[int]:
    """How often each regularisation image is seen in an epoch that has `wanted` training samples.

    `images` are the repeats that their folders ask for. Images are taken in order with these repeats until there are
    enough, then all of them once more in turn until there are; 0 = not used. The last one may overshoot.
    """
    repeats, total = [0] * len(images), 0
    while images and total < wanted:
        for i, asked in enumerate(images):
            if total >= wanted:
                break
            visits = asked if repeats[i] == 0 else 1
            repeats[i] += visits
            total += visits
    return repeats


def _placed(plan: Sequence[DatasetSpec], images: list[Seen], problems: list[Problem]) -> list[Picture]:
    """Every image in its bucket, with the caption that it will have."""
    rules = [buckets_of(spec) for spec in plan]
    for number, rule in enumerate(rules):
        why = rule.why_limits_cannot_work()
        if why:
            problems.append(Problem(why, f"dataset {number + 1}" if len(rules) > 1 else None))
    pictures = []
    for image in images:
        if image.header is None:
            continue  # its problem is already on the list
        size, rule = image.header.size, rules[image.dataset]
        try:
            if min(size) < rule.step:
                raise NoBucket(f"is only {size[0]}x{size[1]} pixels")
            choice = rule.choose(size)
        except NoBucket:
            too_small = f"is too small: {size[0]}x{size[1]}, less than one bucket step of {rule.step} pixels"
            problems.append(Problem(f"{too_small} on a side; remove it or use a larger one", f"image '{image.path}'"))
            continue
        pictures.append(
            Picture(
                path=image.path,
                stamp=image.stamp,
                size=size,
                choice=choice,
                caption=image.caption or image.subset.class_tokens or "",
                subset=image.subset,
                dataset=image.dataset,
                notes=image.header.notes,
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


def _samples(plan: Sequence[DatasetSpec], pictures: list[Picture], prior_loss_weight: float) -> list[Sample]:
    samples = []
    folders = {id(subset): name for spec in plan for subset, name in _folder_names(spec)}
    for d in range(len(plan)):
        train = [picture for picture in pictures if picture.dataset == d and not picture.subset.is_reg]
        reg = [picture for picture in pictures if picture.dataset == d and picture.subset.is_reg]
        wanted = sum(picture.subset.num_repeats for picture in train)
        visits = [(picture, picture.subset.num_repeats, 1.0) for picture in train]
        filled = fill_up([picture.subset.num_repeats for picture in reg], wanted)
        visits += [(picture, number, prior_loss_weight) for picture, number in zip(reg, filled, strict=True)]
        for picture, number, weight in visits:
            name = f"{d}/{folders[id(picture.subset)]}/{picture.path.name}"
            samples += [Sample(f"{name}#{repeat}", picture, weight) for repeat in range(number)]
    return samples


def _folder_names(spec: DatasetSpec) -> list[tuple[SubsetSpec, str]]:
    """Each subset with the name of its folder, numbered where two folders of a dataset are called the same."""
    taken: dict[str, int] = {}
    named = []
    for subset in spec.subsets:
        name = Path(subset.image_dir).resolve().name
        taken[name] = taken.get(name, 0) + 1
        named.append((subset, name if taken[name] == 1 else f"{name} ({taken[name]})"))
    return named


def _about_sizes(pictures: list[Picture]) -> list[str]:
    grown = [p for p in pictures if p.choice.resized[0] > ENLARGED_TOO_MUCH * p.size[0]]
    if not grown:
        return []
    worst = max(grown, key=lambda p: p.choice.resized[0] / p.size[0])
    example = (
        f"'{worst.path}' from {worst.size[0]}x{worst.size[1]} to {worst.choice.resized[0]}x{worst.choice.resized[1]}"
    )
    return [f"{len(grown)} images are enlarged more than {ENLARGED_TOO_MUCH:g} times, most of all {example}"]
