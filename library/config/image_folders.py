"""Folders of images as names alone: REPEATS_CLASS folders, and what a folder without images holds instead."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from library.config.dataset_specs import DatasetPlan
from library.config.option import DatasetTables, Origin, Settings
from library.config.spec import declared, spec
from library.config.suggest import missing
from library.errors import Problem, UserError

HEIF = (".heic", ".heif") if find_spec("pillow_heif") else ()
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", *HEIF)
"""What counts as a picture everywhere here, in any case; HEIC only where the package pillow-heif can read it."""
LOOKALIKES = (".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".tga", ".psd", ".svg", ".raw", ".dng", ".cr2", ".nef")
"""Pictures of other kinds, which are passed over and named."""


@spec
class SourceSpec:
    """The options on where pictures come from and what is made of them; field names are the options'."""

    dataset_config: Path | None = declared
    train_data_dir: Path | None = declared
    reg_data_dir: Path | None = declared
    in_json: Path | None = declared
    masked_loss: bool = declared
    cache_latents: bool = declared
    cache_latents_to_disk: bool = declared
    dataset_repeats: int = declared
    caption_extension: str = declared
    explain: bool = declared


def folder_tables(settings: Settings, problems: list[Problem], warnings: list[str]) -> DatasetTables:
    """`train_data_dir` and `reg_data_dir` as the dataset description that they stand for; with `in_json` the images of
    that file, which are looked for in `train_data_dir`."""
    source = settings.take(SourceSpec)
    if source.in_json:
        return metadata_tables(settings)
    subsets: list[dict[str, Any]] = []
    for name, is_reg in (("train_data_dir", False), ("reg_data_dir", True)):
        folder: Path | None = settings[name]
        if folder is None:
            continue
        if why := why_not_a_folder(folder):
            problems.append(Problem(f"{settings.place(name)}: {why}", understood=True))
            continue
        found = concept_folders(folder, warnings)
        if not found and is_reg:
            warnings.append(f"{settings.place(name)}: {no_concepts(folder)}")
        subsets += [{**subset, "is_reg": is_reg} for subset in found]

    def origin_of(*keys: str | int) -> Origin:
        return Origin("file", source.train_data_dir)

    datasets = [{"subsets": subsets}] if subsets else []
    return DatasetTables({"datasets": datasets}, origin_of, source.train_data_dir or Path())


def metadata_tables(settings: Settings) -> DatasetTables:
    """`in_json` as the dataset description that it stands for."""
    source = settings.take(SourceSpec)
    places = {"metadata_file": source.in_json, "image_dir": source.train_data_dir}
    subset = {key: str(path) for key, path in places.items() if path is not None}

    def origin_of(*keys: str | int) -> Origin:
        return settings.origins["train_data_dir" if keys[-1] == "image_dir" else "in_json"]

    return DatasetTables({"datasets": [{"subsets": [subset]}]}, origin_of, source.in_json or Path())


def concept_folders(folder: Path, warnings: list[str]) -> list[dict[str, Any]]:
    """The REPEATS_CLASS folders inside `folder`, by name: "10_red car" is 10 repeats of the class "red car"."""
    found = []
    for entry in sorted(path for path in folder.iterdir() if path.is_dir()):
        concept = parse_folder_name(entry.name)
        if concept is None:
            if not entry.name.startswith("."):
                warnings.append(f"{entry} is not used: its name does not begin with a number of repeats, as 10_person.")
        elif concept[0] < 1:
            warnings.append(f"{entry} is not used: its name asks for {concept[0]} repeats.")
        else:
            found.append({"image_dir": str(entry), "num_repeats": concept[0], "class_tokens": concept[1]})
    return found


def parse_folder_name(name: str) -> tuple[int, str] | None:
    """Repeats and class of a folder's name; None if it does not begin with a whole number."""
    first, _, rest = name.partition("_")
    try:
        return int(first), rest
    except ValueError:
        return None


def no_concepts(folder: Path) -> str:
    images = count_images(folder)
    name = folder.absolute().name
    if images and re.fullmatch(r"\d+_.+", name):
        return (
            f"{folder} is itself a folder named REPEATS_CLASS ({images} images); give the folder above it, "
            f"{folder.absolute().parent}."
        )
    if images:
        return (
            f"{folder} holds {images} images itself, but must hold folders named REPEATS_CLASS; "
            f"move them into {folder / '10_person'}, for example."
        )
    return f"{folder} has no folder named REPEATS_CLASS (as 10_person) in it."


def count_images(folder: Path) -> int:
    return sum(is_image_name(name) for name in os.listdir(folder))


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image of its folder (hidden files do not)."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS and not name.startswith(".")


def lookalikes(names: Iterable[str]) -> list[str]:
    """The names of pictures that are of a kind that is not read, sorted."""
    endings = set(LOOKALIKES) - set(IMAGE_EXTENSIONS)
    return sorted(n for n in names if os.path.splitext(n)[1].lower() in endings and not n.startswith("."))


def about_passed_over(folder: Path) -> str | None:
    """One line on pictures of other kinds and folders of pictures in a folder, of which nothing is taken."""
    names = os.listdir(folder)
    left = lookalikes(name for name in names if (folder / name).is_file())
    inner = sorted(n for n in names if not n.startswith(".") and (folder / n).is_dir() and count_images(folder / n))
    parts = []
    if left:
        kinds = ", ".join(f"{kind} ({n})" for kind, n in sorted(Counter(Path(n).suffix.lower() for n in left).items()))
        advice = "install pillow-heif to read HEIC, or convert them" if ".heic" in kinds else "convert them to PNG"
        parts.append(f"{len(left)} files are of a kind that is not read, {kinds}: {advice}")
    if inner:
        parts.append(f"folders inside are not searched, and there are pictures in {', '.join(map(repr, inner[:3]))}")
    return f"'{folder}' is not taken whole: {'; '.join(parts)}" if parts else None


def what_else_is_there(folder: Path) -> str:
    """What a folder without images holds, in a sentence."""
    names = [name for name in os.listdir(folder) if not name.startswith(".")]
    endings = Counter(Path(name).suffix.lower() or "no ending" for name in names if (folder / name).is_file())
    inner = [name for name in names if (folder / name).is_dir() and count_images(folder / name)]
    looked_for = f"{folder}: looked for {', '.join(IMAGE_EXTENSIONS)}"
    if inner:
        return f"{looked_for}; images are in its folder {inner[0]}, but folders inside are not searched."
    if endings:
        found = ", ".join(f"{ending} ({count})" for ending, count in sorted(endings.items()))
        return f"{looked_for}; found {found}."
    return f"{looked_for}; it is empty."


def why_not_a_file(path: Path) -> str | None:
    """Why there is no file to read, or None if there is."""
    if os.path.isfile(path):
        return None
    return f"{path} is a folder, not a file." if os.path.isdir(path) else missing(path)


def why_not_a_folder(path: Path) -> str | None:
    """Why no images can be looked for in a folder, or None if they can."""
    if not os.path.isdir(path):
        return f"{path} is a file, not a folder." if os.path.exists(path) else missing(path)
    return None if os.access(path, os.R_OK | os.X_OK) else f"{path} may not be read; change its permissions."


def require_images(plan: DatasetPlan, train_data_dir: Path | None) -> None:
    """Raise UserError if no folder holds an image, with what its folders hold instead."""
    if not plan and train_data_dir is not None:
        raise UserError(f"There is no image to train on. {no_concepts(train_data_dir)}")
    subsets = [subset for dataset in plan for subset in dataset.subsets]
    if any(subset.metadata_file is not None for subset in subsets):
        return  # which names its images, here or elsewhere
    folders = [subset.image_dir for subset in subsets]
    if any(count_images(folder) for folder in folders):
        return
    found = " ".join(what_else_is_there(folder) for folder in folders)
    raise UserError(f"There is no image to train on. {found or 'No subset has repeats.'}")
