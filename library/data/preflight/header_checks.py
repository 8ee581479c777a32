"""What is known about a dataset without opening its images: headers, names and captions tell it.

A run has all of this at its start, so it costs nothing there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from library.config.dataset_specs import DatasetSpec, SubsetSpec
from library.data.bucket_assignment import CUT_TOO_MUCH, cut_away, growth, written
from library.data.dataset import Dataset
from library.data.images.captions import OTHER_EXTENSIONS, caption_names
from library.data.images.image_folder import Listing, list_folder
from library.data.images.scan import Seen
from library.data.preflight.findings import Bucket, Finding, in_order
from library.errors import Problem

ENLARGED = 1.1
"""Up to this, an image that grows loses nothing that an eye would see."""
PLACES = {"image": "damaged", "caption": "bad caption", "folder": "folder", "metadata file": "folder"}
"""What a problem of a survey is about, as the first word of its place says, and the kind that it is of."""


def found_at_hand(dataset: Dataset) -> list[Finding]:
    """Everything that is found without opening an image."""
    images = list({(seen.path, id(seen.subset)): seen for seen in dataset.images}.values())
    captioned = {id(seen.subset) for seen in images if seen.caption is not None}
    listings = {folder: listing for folder in folders_of(dataset.plan) if (listing := _listing(folder))}
    return in_order(
        [
            *(finding for seen in images for finding in about_header(seen)),
            *(finding for seen in images for finding in about_caption(seen, id(seen.subset) in captioned)),
            *about_sizes(dataset),
            *about_buckets(dataset),
            *about_masks(dataset, listings),
            *(finding for listing in listings.values() for finding in about_unused(listing)),
        ]
    )


def as_findings(problems: Sequence[Problem]) -> Iterator[Finding]:
    """What keeps a dataset from being trained on, as findings."""
    for problem in problems:
        what, _, name = (problem.where or "").partition(" '")
        kind = "too small" if "is too small" in problem.message else PLACES.get(what, "folder")
        if "has no mask" in problem.message:
            kind = "no mask"
        yield Finding(kind, name.rstrip("'"), problem.message)


def buckets_of(dataset: Dataset) -> list[Bucket]:
    """The sizes that are trained on, dataset by dataset."""
    found = []
    for (number, size), members in dataset.groups.items():
        images = {dataset.samples[i].picture.path for i in members}
        found.append(Bucket(size, len(images), len(members), dataset.plan[number].batch_size))
    return found


def about_header(seen: Seen) -> Iterator[Finding]:
    for note in seen.header.notes if seen.header else ():
        yield Finding("animation" if "animation" in note else "mislabelled", str(seen.path), note)


def about_caption(seen: Seen, others_have_one: bool) -> Iterator[Finding]:
    """A picture without a caption, unless class tokens stand for those of its whole folder."""
    subset = seen.subset
    if seen.caption is None:
        if any((seen.path.parent / name).is_file() for name in caption_names(seen.path.name, subset.caption_extension)):
            return  # it cannot be read, which is a problem of its own
        beside = [other for other in OTHER_EXTENSIONS if seen.path.with_suffix(other).is_file()]
        beside = [other for other in beside if other != subset.caption_extension]
        if beside:
            message = f"its caption is in a {beside[0]} file, but `caption_extension` is {subset.caption_extension}"
            yield Finding("caption extension", str(seen.path), message)
        elif others_have_one or not subset.class_tokens:
            message = f"has no {subset.caption_extension} file" if subset.metadata_file is None else "has no caption"
            yield Finding("no caption", str(seen.path), f"{message} and is trained with {_instead(subset)}")
    elif not seen.caption:
        yield Finding("blank caption", str(seen.path), f"its caption is blank; {_instead(subset)} is used")


def about_sizes(dataset: Dataset) -> Iterator[Finding]:
    """Pictures that are enlarged, and those of which much is cut away."""
    for picture in dataset.all_pictures:
        resized, bucket = picture.choice.resized, picture.choice.bucket
        if growth(picture) > ENLARGED:
            message = f"is {written(picture.size)} and enlarged {growth(picture):.2f} times to {written(resized)}"
            yield Finding("enlarged", str(picture.path), message)
        if cut_away(picture) > CUT_TOO_MUCH:
            message = (
                f"is {written(picture.size)}, of which {cut_away(picture):.0%} are cut away to fit {written(bucket)}"
            )
            yield Finding("cropped", str(picture.path), message)


def about_buckets(dataset: Dataset) -> Iterator[Finding]:
    """Buckets that never fill a batch: their pictures are trained in smaller ones, each as a step of its own."""
    for (number, size), members in dataset.groups.items():
        batch_size = dataset.plan[number].batch_size
        if len(members) < batch_size:
            paths = sorted({str(dataset.samples[i].picture.path) for i in members})
            beside = f" (with {len(paths) - 1} others)" if len(paths) > 1 else ""
            visits = f"{len(members)} visits in an epoch" if len(members) > 1 else "one visit in an epoch"
            message = f"its bucket {written(size)}{beside} has {visits}, fewer than a batch of {batch_size}"
            yield Finding("lonely bucket", paths[0], message)


def about_masks(dataset: Dataset, listings: dict[Path, Listing]) -> Iterator[Finding]:
    for subset in subsets_of(dataset.plan):
        listing = listings.get(subset.conditioning_data_dir) if subset.conditioning_data_dir else None
        if listing is None:
            continue
        stems = {seen.path.stem for seen in dataset.images if seen.subset is subset}
        for stem, name in listing.by_stem.items():
            if stem not in stems:
                message = f"is a mask, but '{subset.image_dir}' has no picture of this name"
                yield Finding("mask without picture", str(listing.folder / name), message)


def about_unused(listing: Listing) -> Iterator[Finding]:
    for name in listing.unused:
        message = f"is not taken for a picture: {os.path.splitext(name)[1]} is not read; save it as PNG or JPEG"
        yield Finding("unused file", str(listing.folder / name), message)


def folders_of(plan: Sequence[DatasetSpec]) -> list[Path]:
    """Folders whose images are looked for by name, and folders of masks."""
    named = (subset.image_dir for subset in subsets_of(plan) if subset.metadata_file is None)
    masks = (subset.conditioning_data_dir for subset in subsets_of(plan) if subset.conditioning_data_dir)
    return list(dict.fromkeys([*map(Path, named), *masks]))


def subsets_of(plan: Sequence[DatasetSpec]) -> list[SubsetSpec]:
    return [subset for spec in plan for subset in spec.subsets]


def _listing(folder: Path) -> Listing | None:
    try:
        return list_folder(folder)
    except OSError:
        return None  # a problem of the survey


def _instead(subset: SubsetSpec) -> str:
    return f"the class tokens '{subset.class_tokens}'" if subset.class_tokens else "an empty caption"
