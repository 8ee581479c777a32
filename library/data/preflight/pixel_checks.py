"""What is only known once the images are decoded: damage, pictures that are there twice, and what their colours are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from library.data.dataset import Dataset
from library.data.preflight.duplicates import nearly_same, same_bytes
from library.data.preflight.findings import Finding
from library.data.preflight.pixels import Sight, is_mislabelled, look_at_all

CONVERTED = {"CMYK": "without its profile", "LAB": "roughly", "YCbCr": "roughly", "HSV": "roughly"}


@dataclass(frozen=True)
class SplitFiles:
    """Which files are trained on and which are held out; regularization images are in neither."""

    trained: Collection[Path]
    held_out: Collection[Path]

    @staticmethod
    def of(dataset: Dataset) -> SplitFiles:
        held_out = dataset.validation.pictures if dataset.validation else []
        trained = {picture.path for picture in dataset.pictures if not picture.subset.is_reg}
        return SplitFiles(trained, {picture.path for picture in held_out})


def found_inside(dataset: Dataset, workers: int) -> list[Finding]:
    """Everything that is found by opening each image, and each mask, once."""
    uses_alpha = {seen.path for seen in dataset.images if seen.subset.alpha_mask}
    sights = look_at_all(list(dict.fromkeys(seen.path for seen in dataset.images)), workers)
    masks = list(dict.fromkeys(seen.mask.file for seen in dataset.images if seen.mask and seen.mask.file))
    sound = [sight for sight in sights if sight.damage is None]
    found = [about_damage(sight) for sight in [*sights, *look_at_all(masks, workers)] if sight.damage is not None]
    for sight in sound:
        found += about_file(sight, sight.path in uses_alpha)
    parts = SplitFiles.of(dataset)
    return [*found, *about_both_parts(parts), *about_doubles(sound, parts)]


def about_damage(sight: Sight) -> Finding:
    return Finding("damaged", str(sight.path), str(sight.damage))


def about_file(sight: Sight, uses_alpha: bool) -> Iterator[Finding]:
    """What one sound file is, where that is not what it seems or not what is trained on."""
    file = str(sight.path)
    if is_mislabelled(sight):
        yield Finding("mislabelled", file, f"is a {sight.format} file in spite of its extension")
    if sight.frames > 1:
        yield Finding("animation", file, "is an animation, of which the first frame is used")
    if sight.mode in CONVERTED:
        how = f"is {sight.mode} and converted to RGB {CONVERTED[sight.mode]}: colours may be off; save it as sRGB"
        yield Finding("colours", file, how)
    if sight.mode.startswith("I"):
        yield Finding("deep colours", file, "has 16 bits, of which the upper 8 are used")
    if sight.orientation > 1:
        yield Finding("rotated", file, f"is turned upright by its EXIF orientation ({sight.orientation})")
    if sight.transparent and not uses_alpha:
        message = "has transparent parts, whose hidden colours are trained on; give it a background or set `alpha_mask`"
        yield Finding("transparent", file, message)


def about_both_parts(parts: SplitFiles) -> Iterator[Finding]:
    """Files that two subsets share, and that only one of them holds out."""
    for path in sorted(set(parts.trained) & set(parts.held_out)):
        yield Finding("leak", str(path), "is trained on and held out, by two subsets: the held-out loss will look good")


def about_doubles(sights: Sequence[Sight], parts: SplitFiles) -> Iterator[Finding]:
    """Pictures that are there twice; worse where the one is trained on and the other is to measure what was learnt."""
    same = [[sight.path for sight in group] for group in same_bytes(sights)]
    near = [[sight.path for sight in group] for group in nearly_same(sights)]
    for groups, kind, alike in ((same, "duplicate", "is the same file as"), (near, "near duplicate", "looks like")):
        for group in groups:
            yield from about_group(group, parts, kind, alike)


def about_group(group: Sequence[Path], parts: SplitFiles, kind: str, alike: str) -> Iterator[Finding]:
    """One finding for each held-out picture of a group that is trained on, too, and for each double of the others."""
    trained = next((path for path in group if path in parts.trained), None)
    leaks = [path for path in group if trained is not None and path in parts.held_out and path != trained]
    for path in leaks:
        message = f"is held out, but {alike} '{trained}', which is trained on: the held-out loss will look good"
        yield Finding("leak", str(path), message, str(trained))
    first, *others = (path for path in group if path not in leaks)
    for path in others:
        yield Finding(kind, str(path), f"{alike} '{first}'", str(first))
