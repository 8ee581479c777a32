"""A first look at all images of a plan: what is there, how large it is, what it is called; problems and warnings.

Only images that no index knows are opened, and of those only the header is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from library.config.dataset_specs import DatasetSpec, SubsetSpec
from library.data.images.image_folder import Stamp, cache_places, read_index
from library.data.images.masks import MaskSource
from library.data.images.subset_images import FirstLook, FoundImage, images_of, masks_of
from library.data.prefetch import in_threads
from library.errors import Problem
from library.image_files import BadImage, Header, measure


@dataclass(frozen=True)
class Seen:
    """An image as a subset uses it. Without a caption `caption` is None; without a readable header, `header`."""

    path: Path
    stamp: Stamp
    dataset: int
    subset: SubsetSpec
    header: Header | None
    caption: str | None
    mask: MaskSource | None


@dataclass
class Survey:
    """All images of all subsets, in the order of the plan and of their names."""

    images: list[Seen] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def survey(plan: Sequence[DatasetSpec], fallback: Path | None, workers: int) -> Survey:
    """Look at every subset of a plan with `workers` threads. `fallback`: the output folder, where an index may lie."""
    look = FirstLook(workers)
    found = [(number, subset, images_of(subset, look)) for number, spec in enumerate(plan) for subset in spec.subsets]
    headers = _headers([image for *_, images in found for image in images], fallback, look)
    done = Survey(problems=look.problems, warnings=look.warnings)
    for number, subset, images in found:
        masks = masks_of(subset, images, look)
        done.images += [
            Seen(i.path, i.stamp, number, subset, headers.get(i.path), i.caption, masks.get(i.path)) for i in images
        ]
    done.warnings += [f"image '{path}' {note}" for path, header in headers.items() for note in header.notes]
    return done


def _headers(images: Sequence[FoundImage], fallback: Path | None, look: FirstLook) -> dict[Path, Header]:
    """Each image's header, from its folder's index where the file has not changed, else from the file."""
    folders = {image.path.parent for image in images}
    indices = {folder: read_index(cache_places(folder, fallback)) for folder in folders}
    headers: dict[Path, Header] = {}
    unknown: list[Path] = []
    for path, stamp in {image.path: image.stamp for image in images}.items():
        index = indices[path.parent]
        known = index.find(path.name, stamp) if index else None
        if known:
            headers[path] = known.header
        else:
            unknown.append(path)
    for path, header in zip(unknown, in_threads(_header_or_problem, unknown, look.workers), strict=True):
        if isinstance(header, Problem):
            look.problems.append(header)
        else:
            headers[path] = header
    return headers


def _header_or_problem(path: Path) -> Header | Problem:
    try:
        return measure(path)
    except BadImage as error:
        return Problem(str(error), f"image '{path}'")
