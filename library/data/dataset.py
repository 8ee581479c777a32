"""The dataset: every image with its caption, its bucket and its place in an epoch.

`build` looks at everything once, opens only images that no index knows, and reports all problems together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from library.config.datasets import DatasetSpec, SubsetSpec
from library.data.buckets import BucketChoice, Buckets, NoBucket, Size
from library.data.captions import BadCaption, about_missing_captions, read_caption
from library.data.folders import Listing, Stamp, cache_places, list_folder, read_index
from library.data.images import BadImage, Header, measure
from library.errors import Problem, raise_all

ENLARGED_TOO_MUCH = 2.0  # an image that must grow by more than this has little to teach; worth a warning

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    listings: list[list[Listing]]  # per dataset, per subset
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


@dataclass
class _Found:
    """An image of a subset before its header and caption are read."""

    path: Path
    stamp: Stamp
    dataset: int
    subset: int


def build(
    plan: Sequence[DatasetSpec], *, prior_loss_weight: float = 1.0, fallback: Path | None = None, workers: int = 8
) -> Dataset:
    """The dataset of a plan.

    `prior_loss_weight` is the loss weight of regularisation images, `fallback` the output folder, where caches of
    folders that cannot be written are kept, `workers` the number of threads that read headers and captions.

    Raises UserError with every folder, image and caption that cannot be used.
    """
    problems: list[Problem] = []
    listings = [[_listing(subset, problems) for subset in spec.subsets] for spec in plan]
    found = [
        _Found(listing.folder / name, stamp, d, s)
        for d, row in enumerate(listings)
        for s, listing in enumerate(row)
        for name, stamp in listing.images.items()
    ]
    headers = read_headers(((image.path, image.stamp) for image in found), fallback, workers, problems)
    captions, warnings = _captions(plan, listings, found, workers, problems)
    pictures = _placed(plan, found, headers, captions, problems)
    if not problems and not any(not picture.subset.is_reg for picture in pictures):
        problems.append(Problem("there is no image to train on"))
    raise_all(problems)
    warnings += _about_headers(headers) + _about_sizes(pictures) + _about_unused(listings)
    return Dataset(plan, pictures, _samples(plan, pictures, prior_loss_weight), listings, warnings)


def read_headers(
    images: Iterable[tuple[Path, Stamp]], fallback: Path | None, workers: int, problems: list[Problem]
) -> dict[Path, Header]:
    """Each image's header, from its folder's index where the file has not changed, else from the file."""
    wanted = dict(images)
    indexes = {folder: read_index(cache_places(folder, fallback)) for folder in {path.parent for path in wanted}}
    headers, unknown = {}, []
    for path, stamp in wanted.items():
        index = indexes[path.parent]
        known = index.find(path.name, stamp) if index else None
        if known:
            headers[path] = known.header
        else:
            unknown.append(path)
    for path, header in zip(unknown, in_threads(_header_or_problem, unknown, workers), strict=True):
        if isinstance(header, Problem):
            problems.append(header)
        else:
            headers[path] = header
    return headers


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """`[work(item) for item in items]`, several at a time."""
    if workers < 2 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, items))


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


def _listing(subset: SubsetSpec, problems: list[Problem]) -> Listing:
    folder = Path(subset.image_dir)
    empty = Listing(folder, frozenset(), {})
    if subset.num_repeats < 1:
        return empty
    try:
        listing = list_folder(folder)
    except OSError as error:
        problems.append(Problem(f"the image folder cannot be read ({error.strerror})", f"folder '{folder}'"))
        return empty
    if not listing.images:
        hint = f"; {len(listing.unused())} files there have other extensions" if listing.unused() else ""
        what = f"it holds no images (.png, .jpg, .jpeg, .webp, .bmp; sub-folders are not searched){hint}"
        problems.append(Problem(what, f"folder '{folder}'"))
    return listing


def _header_or_problem(path: Path) -> Header | Problem:
    try:
        return measure(path)
    except BadImage as error:
        return Problem(str(error), f"image '{path}'")


def _captions(
    plan: Sequence[DatasetSpec],
    listings: list[list[Listing]],
    found: list[_Found],
    workers: int,
    problems: list[Problem],
) -> tuple[list[str], list[str]]:
    """The caption of every found image, and warnings about missing and blank ones."""

    def read(image: _Found) -> str | Problem | None:
        subset = plan[image.dataset].subsets[image.subset]
        extension = _dotted(subset.caption_extension)
        try:
            return read_caption(image.path, extension, listings[image.dataset][image.subset].names)
        except BadCaption as error:
            return Problem(str(error), f"caption of image '{image.path}'")

    captions, missing, blank = [], {}, {}
    for image, caption in zip(found, in_threads(read, found, workers), strict=True):
        subset = plan[image.dataset].subsets[image.subset]
        if isinstance(caption, Problem):
            problems.append(caption)
        elif not caption:
            kind = missing if caption is None else blank
            kind.setdefault((image.dataset, image.subset), []).append(image.path.name)
        captions.append(caption if isinstance(caption, str) and caption else subset.class_tokens or "")
    warnings = []
    for (d, s), names in missing.items():
        subset, listing = plan[d].subsets[s], listings[d][s]
        if subset.class_tokens and not any(_beside(listing, names, other) for other in (".txt", ".caption")):
            continue  # a folder without any caption files and with class tokens is what was asked for
        said = about_missing_captions(names, _dotted(subset.caption_extension), listing.names, subset.class_tokens)
        warnings.append(f"folder '{listing.folder}': {said}")
    for (d, s), names in blank.items():
        subset = plan[d].subsets[s]
        instead = f"the class tokens '{subset.class_tokens}'" if subset.class_tokens else "an empty caption"
        files = f"{len(names)} caption files begin" if len(names) > 1 else f"the caption file of '{names[0]}' begins"
        warnings.append(f"folder '{listings[d][s].folder}': {files} with a blank line; {instead} will be used")
    return captions, warnings


def _beside(listing: Listing, images: list[str], extension: str) -> bool:
    return any(Path(name).stem + extension in listing.names for name in images)


def _dotted(extension: str) -> str:
    return extension if extension.startswith(".") else f".{extension}"


def _placed(
    plan: Sequence[DatasetSpec],
    found: list[_Found],
    headers: dict[Path, Header],
    captions: list[str],
    problems: list[Problem],
) -> list[Picture]:
    """Every image in its bucket."""
    rules = [buckets_of(spec) for spec in plan]
    for number, rule in enumerate(rules):
        why = rule.why_limits_cannot_work()
        if why:
            problems.append(Problem(why, f"dataset {number + 1}" if len(rules) > 1 else None))
    pictures = []
    for image, caption in zip(found, captions, strict=True):
        if image.path not in headers:
            continue  # its problem is already on the list
        size, rule = headers[image.path].size, rules[image.dataset]
        try:
            if min(size) < rule.step:
                raise NoBucket(f"is only {size[0]}x{size[1]} pixels")
            choice = rule.choose(size)
        except NoBucket:
            too_small = f"is too small: {size[0]}x{size[1]}, less than one bucket step of {rule.step} pixels"
            problems.append(Problem(f"{too_small} on a side; remove it or use a larger one", f"image '{image.path}'"))
            continue
        subset = plan[image.dataset].subsets[image.subset]
        pictures.append(
            Picture(image.path, image.stamp, size, choice, caption, subset, image.dataset, headers[image.path].notes)
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


def _about_headers(headers: dict[Path, Header]) -> list[str]:
    return [f"image '{path}' {note}" for path, header in sorted(headers.items()) for note in header.notes]


def _about_sizes(pictures: list[Picture]) -> list[str]:
    grown = [p for p in pictures if p.choice.resized[0] > ENLARGED_TOO_MUCH * p.size[0]]
    if not grown:
        return []
    worst = max(grown, key=lambda p: p.choice.resized[0] / p.size[0])
    example = (
        f"'{worst.path}' from {worst.size[0]}x{worst.size[1]} to {worst.choice.resized[0]}x{worst.choice.resized[1]}"
    )
    return [f"{len(grown)} images are enlarged more than {ENLARGED_TOO_MUCH:g} times, most of all {example}"]


def _about_unused(listings: list[list[Listing]]) -> list[str]:
    warnings = []
    for listing in {listing.folder: listing for row in listings for listing in row}.values():
        unused = listing.unused()
        if unused:
            warnings.append(f"folder '{listing.folder}': {len(unused)} files are not used, such as '{unused[0]}'")
    return warnings
