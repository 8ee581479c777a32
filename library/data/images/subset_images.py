"""The images of one subset, each with its caption and its mask: from a folder, or as a metadata file names them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from library.config.dataset_specs import SubsetSpec
from library.config.image_folders import IMAGE_EXTENSIONS
from library.data.images.captions import (
    OTHER_EXTENSIONS,
    BadCaption,
    about_missing_captions,
    by_extension,
    read_caption,
)
from library.data.images.image_folder import Listing, Stamp, list_folder
from library.data.images.masks import MaskSource
from library.data.images.metadata_file import BadMetadata, caption_of, image_of_key, read_metadata_file
from library.data.prefetch import in_threads
from library.errors import Problem


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file of a subset. Without a caption file, or an entry that has one, `caption` is None."""

    path: Path
    stamp: Stamp
    caption: str | None


@dataclass
class FirstLook:
    """One look at the folders of a plan: each is listed once. Collects what is wrong and what is worth saying."""

    workers: int
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    listings: dict[Path, Listing] = field(default_factory=dict)

    def listing(self, folder: Path) -> Listing:
        """What lies in a folder; of one that cannot be read, nothing. Adds its problems the first time."""
        if folder not in self.listings:
            try:
                self.listings[folder] = list_folder(folder)
            except OSError as error:
                self.problems.append(Problem(f"the folder cannot be read ({error.strerror})", f"folder '{folder}'"))
                self.listings[folder] = Listing(folder, frozenset(), {}, unreadable=True)
            for name in self.listings[folder].broken:
                where = f"image '{folder / name}'"
                self.problems.append(Problem("is a link to a file that is not there; mend or remove it", where))
            special = self.listings[folder].special
            if special:
                message = f"{len(special)} named pipes, sockets or devices are not read, such as '{special[0]}'"
                self.warnings.append(f"folder '{folder}': {message}")
        return self.listings[folder]


def images_of(subset: SubsetSpec, look: FirstLook) -> list[FoundImage]:
    """The images of a subset in the order of their names, or of its metadata file."""
    if subset.num_repeats < 1:
        return []
    if subset.metadata_file is not None:
        return _named_by(subset.metadata_file, subset, look)
    listing = look.listing(Path(subset.image_dir))
    if not listing.images and not listing.unreadable and not listing.broken:
        hint = f"; {len(listing.unused)} files there have other extensions" if listing.unused else ""
        what = f"it holds no images ({', '.join(IMAGE_EXTENSIONS)}; sub-folders are not searched){hint}"
        look.problems.append(Problem(what, f"folder '{listing.folder}'"))
    elif listing.unused:
        message = f"{len(listing.unused)} files are not used, such as '{listing.unused[0]}'"
        look.warnings.append(f"folder '{listing.folder}': {message}")
    captions = _captions(subset, listing, look)
    return [FoundImage(listing.folder / name, stamp, captions[name]) for name, stamp in listing.images.items()]


def masks_of(subset: SubsetSpec, images: Iterable[FoundImage], look: FirstLook) -> dict[Path, MaskSource]:
    """The masks of a subset's images: images of the same names in its mask folder, else its images' alpha channels."""
    if subset.conditioning_data_dir is None:
        return {image.path: MaskSource() for image in images} if subset.alpha_mask else {}
    listing = look.listing(subset.conditioning_data_dir)
    by_stem = dict(listing.by_stem)
    masks: dict[Path, MaskSource] = {}
    for image in images:
        name = by_stem.pop(image.path.stem, None)
        if name is not None:
            masks[image.path] = MaskSource(listing.folder / name, listing.images[name])
        elif not listing.unreadable:
            what = f"has no mask: there is no image '{image.path.stem}' in '{listing.folder}'"
            look.problems.append(Problem(what, f"image '{image.path}'"))
    if by_stem:
        left = sorted(by_stem.values())
        look.warnings.append(f"folder '{listing.folder}': {len(left)} masks have no image, such as '{left[0]}'")
    return masks


def _captions(subset: SubsetSpec, listing: Listing, look: FirstLook) -> dict[str, str | None]:
    """Each image's caption as it is in its file. Adds problems, and warnings about missing and blank ones."""

    def read(name: str) -> str | Problem | None:
        try:
            image = listing.folder / name
            return read_caption(image, subset.caption_extension, files, every_line=subset.enable_wildcard)
        except BadCaption as error:
            return Problem(str(error), f"caption '{error.path}'")

    names, files = list(listing.images), by_extension(listing.names)
    captions: dict[str, str | None] = {}
    missing, blank = [], []
    for name, caption in zip(names, in_threads(read, names, look.workers), strict=True):
        if isinstance(caption, Problem):
            look.problems.append(caption)
            captions[name] = None
            continue
        captions[name] = caption
        if caption is None:
            missing.append(name)
        elif not caption:
            blank.append(name)
    if missing and not _is_meant(subset, listing, missing):
        message = about_missing_captions(missing, subset.caption_extension, listing.names, subset.class_tokens)
        look.warnings.append(f"folder '{listing.folder}': {message}")
    if blank:
        instead = f"the class tokens '{subset.class_tokens}'" if subset.class_tokens else "an empty caption"
        which = f"{len(blank)} caption files begin" if len(blank) > 1 else f"the caption file of '{blank[0]}' begins"
        look.warnings.append(f"folder '{listing.folder}': {which} with a blank line; {instead} will be used")
    return captions


def _is_meant(subset: SubsetSpec, listing: Listing, missing: list[str]) -> bool:
    """Class tokens and no captions of any kind: that is what was asked for, and no reason for a warning."""
    if len(missing) < len(listing.images):
        return False
    names = by_extension(listing.names)
    beside = any(Path(name).stem + other in names for name in missing for other in OTHER_EXTENSIONS)
    return bool(subset.class_tokens) and not beside


def _named_by(file: Path, subset: SubsetSpec, look: FirstLook) -> list[FoundImage]:
    """The images that a metadata file names."""
    where = f"metadata file '{file}'"
    found: dict[Path, FoundImage] = {}
    missing, silent = [], []
    try:
        for key, entry in read_metadata_file(file).items():
            path = image_of_key(key, Path(subset.image_dir), look.listing)
            if path is None:
                missing.append(key)
                continue
            caption = caption_of(entry, subset.caption_separator)
            if caption is None:
                silent.append(key)
            found[path] = FoundImage(path, look.listing(path.parent).images[path.name], caption)
    except BadMetadata as error:
        look.problems.append(Problem(str(error), where))
        return []
    if missing:
        what = f"{len(missing)} of the images that it names are not there, such as '{missing[0]}'"
        look.problems.append(Problem(f"{what}; mend the names, or set `image_dir` to their folder", where))
    if silent:
        message = f"{len(silent)} images have neither caption nor tags, such as '{silent[0]}'; their captions are empty"
        look.warnings.append(f"{where}: {message}")
    return list(found.values())
