"""A first look at all image folders: what is there, how large it is, what it is called; problems and warnings.

Only images that no index knows are opened, and of those only the header is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from library.config.dataset_specs import DatasetSpec, SubsetSpec
from library.data.ahead import ahead_of_time
from library.data.captions import OTHER_EXTENSIONS, BadCaption, about_missing_captions, read_caption
from library.data.folders import Listing, Stamp, cache_places, list_folder, read_index
from library.data.images import BadImage, Header, measure
from library.errors import Problem

HANDFUL = 32  # files that a thread takes at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Seen:
    """An image in a subset's folder. Without a caption file `caption` is None; without a readable header, `header`."""

    path: Path
    stamp: Stamp
    dataset: int
    subset: SubsetSpec
    header: Header | None
    caption: str | None


@dataclass
class Survey:
    """All images of all subsets, in the order of the plan and of their names."""

    images: list[Seen] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def survey(plan: Sequence[DatasetSpec], fallback: Path | None, workers: int) -> Survey:
    """Look at every folder of a plan with `workers` threads. `fallback`: the output folder, where an index may lie."""
    done = Survey()
    places = [(number, subset) for number, spec in enumerate(plan) for subset in spec.subsets]
    listings = [_listing(subset, done.problems) for _, subset in places]
    headers = _headers(listings, fallback, workers, done.problems)
    for (number, subset), listing in zip(places, listings, strict=True):
        captions = _captions(subset, listing, workers, done)
        for name, stamp in listing.images.items():
            path = listing.folder / name
            done.images.append(Seen(path, stamp, number, subset, headers.get(path), captions[name]))
    done.warnings += [f"image '{path}' {note}" for path, header in headers.items() for note in header.notes]
    done.warnings += _about_unused(listings)
    return done


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> list[Result]:
    """`[work(item) for item in items]`, several at a time, in handfuls because handing over costs more than a look."""
    if workers < 2 or len(items) <= HANDFUL:
        return [work(item) for item in items]
    handfuls = [items[start : start + HANDFUL] for start in range(0, len(items), HANDFUL)]
    done = ahead_of_time(lambda handful: [work(item) for item in handful], handfuls, workers)
    return [result for results in done for result in results]


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


def _headers(
    listings: list[Listing], fallback: Path | None, workers: int, problems: list[Problem]
) -> dict[Path, Header]:
    """Each image's header, from its folder's index where the file has not changed, else from the file."""
    headers: dict[Path, Header] = {}
    unknown: list[Path] = []
    for listing in {listing.folder: listing for listing in listings}.values():
        index = read_index(cache_places(listing.folder, fallback)) if listing.images else None
        for name, stamp in listing.images.items():
            path = listing.folder / name
            known = index.find(name, stamp) if index else None
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


def _header_or_problem(path: Path) -> Header | Problem:
    try:
        return measure(path)
    except BadImage as error:
        return Problem(str(error), f"image '{path}'")


def _captions(subset: SubsetSpec, listing: Listing, workers: int, done: Survey) -> dict[str, str | None]:
    """Each image's caption as it stands in its file. Adds problems, and warnings about missing and blank ones."""

    def read(name: str) -> str | Problem | None:
        try:
            image = listing.folder / name
            return read_caption(image, subset.caption_extension, listing.names, every_line=subset.enable_wildcard)
        except BadCaption as error:
            return Problem(str(error), f"caption '{error.path}'")

    names = list(listing.images)
    captions: dict[str, str | None] = {}
    missing, blank = [], []
    for name, caption in zip(names, in_threads(read, names, workers), strict=True):
        if isinstance(caption, Problem):
            done.problems.append(caption)
            captions[name] = None
            continue
        captions[name] = caption
        if caption is None:
            missing.append(name)
        elif not caption:
            blank.append(name)
    if missing and not _is_meant(subset, listing, missing):
        said = about_missing_captions(missing, subset.caption_extension, listing.names, subset.class_tokens)
        done.warnings.append(f"folder '{listing.folder}': {said}")
    if blank:
        instead = f"the class tokens '{subset.class_tokens}'" if subset.class_tokens else "an empty caption"
        files = f"{len(blank)} caption files begin" if len(blank) > 1 else f"the caption file of '{blank[0]}' begins"
        done.warnings.append(f"folder '{listing.folder}': {files} with a blank line; {instead} will be used")
    return captions


def _is_meant(subset: SubsetSpec, listing: Listing, missing: list[str]) -> bool:
    """Class tokens and no captions of any kind: that is what was asked for, and no reason for a warning."""
    beside = any(Path(name).stem + other in listing.names for name in missing for other in OTHER_EXTENSIONS)
    return bool(subset.class_tokens) and not beside


def _about_unused(listings: list[Listing]) -> list[str]:
    warnings = []
    for listing in {listing.folder: listing for listing in listings}.values():
        unused = listing.unused()
        if unused:
            warnings.append(f"folder '{listing.folder}': {len(unused)} files are not used, such as '{unused[0]}'")
    return warnings
