"""Images: which files and folders are taken, which bucket each gets, and how many steps an epoch has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from library.config.bucket_limits import adjusted_limits, why_limits_cannot_work
from library.config.dataset_specs import DatasetSpec
from library.config.image_folders import parse_folder_name
from library.data.augmentation.image_augmentation import View
from library.data.buckets import BucketChoice, Buckets, NoBucket
from library.data.dataset import Dataset, Sample
from library.data.images.image import DatasetImage
from library.data.images.image_folder import Stamp, list_folder
from library.data.regularization import fill_up
from library.data.sample_order import order, steps_per_epoch
from library.training.clock import Clock, total_steps
from tests.golden_table.captions import subset_of
from tests.golden_table.comparison import Comparison

TRUE_CROP = "SDXL is told where its pixels were cut, not where the whole image would lie inside the bucket"
NO_EMPTY_BUCKET = "an image that cannot fill one bucket step is refused at the start, by name"
CUT = "an image that is not of the resolution is resized and cut, with a cache and without"
ONE_BUCKET = "an optimizer step takes one batch from one bucket, cut into parts; theirs mixes buckets"


def buckets_of(setting: dict[str, Any]) -> Buckets:
    return Buckets(
        resolution=tuple(setting["resolution"]),
        enable_bucket=setting["enable_bucket"],
        smallest=setting["min_bucket_reso"],
        largest=setting["max_bucket_reso"],
        step=setting["bucket_reso_steps"],
        no_upscale=setting["bucket_no_upscale"],
    )


def buckets(data: dict[str, Any]) -> Iterator[Comparison]:
    chosen = Comparison("bucket, resized size and crop of 300 image sizes under 7 settings")
    told = Comparison("the crop that SDXL is told, upright and mirrored")
    listed = Comparison("predefined buckets")
    failing = Comparison("image sizes without a bucket")
    for setting in data["settings"]:
        rule = buckets_of(setting)
        for width, height, *theirs in setting["rows"]:
            choice = rule.choose((width, height))
            name = f"{setting['name']} {width}x{height}"
            chosen.add(name, [*choice.bucket, *choice.resized, *choice.crop], theirs[:6])
            ours = sdxl_crop(choice)
            told.add(name, ours, theirs[6:], TRUE_CROP if ours != theirs[6:] else None)
        if setting["predefined_buckets"]:
            listed.add(setting["name"], rule.sizes, setting["predefined_buckets"])
        for width, height, *_ in setting["fails"]:
            failing.add(f"{setting['name']} {width}x{height}", has_bucket(rule, (width, height)), True, NO_EMPTY_BUCKET)
        for width, height, result in setting.get("without_latent_cache") or []:
            ours = "ok" if has_bucket(rule, (width, height)) else "refused"
            failing.add(f"{width}x{height} uncached", ours, result, CUT if result != "ok" else None)
    yield from (chosen, told, listed, failing)

    limits = Comparison("limits of bucket sides, or that they cannot work")
    for resolution, low, high, step, theirs in data["limits"]["rows"]:
        wrong = why_limits_cannot_work(tuple(resolution), low, high, step)
        limits.add(
            f"{resolution} {low} {high}", "AssertionError" if wrong else adjusted_limits(low, high, step), theirs
        )
    yield limits


def sdxl_crop(choice: BucketChoice) -> list[int]:
    """Left, top, and left if mirrored."""
    (top, left), (_, mirrored) = View(choice).crop, View(choice, flipped=True).crop
    return [left, top, mirrored]


def has_bucket(rule: Buckets, size: tuple[int, int]) -> bool:
    try:
        rule.choose(size)
    except NoBucket:
        return False
    return True


def _is_their_image(name: str) -> bool:
    extension = os.path.splitext(name)[1]
    return extension in (extension.lower(), extension.upper()) and extension.lower() not in (".tif", ".tiff")


def folders(data: dict[str, Any]) -> Iterator[Comparison]:
    names = Comparison("folder names: repeats and class")
    for row in data["folder_names"]:
        concept = parse_folder_name(row["folder"])
        ours = concept if concept and concept[0] > 0 else (None, None)
        names.add(row["folder"], ours, (row["num_repeats"], row["class_tokens"]))
    yield names

    found = Comparison("image files that a folder holds, in their order")
    discovery = data["image_discovery"]
    with tempfile.TemporaryDirectory() as name:
        for file in discovery["files_in_folder"]:
            Path(name, file).parent.mkdir(exist_ok=True)
            Path(name, file).touch()
        ours, theirs = list(list_folder(Path(name)).images), discovery["found_in_order"]
        more = [file for file in ours if not _is_their_image(file)]
        found.add("names", [file for file in ours if file not in more], theirs)
        because = "taken here too: TIFF, and extensions in a mixture of cases, which sd-scripts passes over in silence"
        found.add("names of other images", more, [], because if more else None)
    yield found

    regularization = Comparison("visits of each regularization image")
    for row in data["reg_repeats"]:
        asked = [int(folder.split("_")[0]) for folder, images in row["reg"] for _ in range(images)]
        theirs = [visits for folder, _ in row["reg"] for visits in row["repeats_of_each_reg_image"].get(folder, [])]
        used = [visits for visits in fill_up(asked, row["num_train_images"]) if visits]
        regularization.add(str(row["reg"]), used, theirs)
    yield regularization

    steps = Comparison("batches, optimizer steps and epochs of a run")
    for row in data["steps"]:
        dataset = dataset_of(row)
        parts = row["gradient_accumulation_steps"] * row["num_processes"]
        per_epoch = steps_per_epoch(dataset, parts)
        length = total_steps(per_epoch, row["max_train_steps_given"], row["max_train_epochs"])
        ours = [
            sum(sample.loss_weight > 0 for sample in dataset.samples),
            len(order(dataset, 0, 1, 1)),
            per_epoch,
            length,
            Clock(per_epoch, length).total_epochs,
        ]
        theirs = [
            row["images_per_epoch"],
            row["batches_per_epoch_all_processes"],
            row["update_steps_per_epoch"],
            row["max_train_steps"],
            row["num_train_epochs"],
        ]
        mixed = parts > 1 and ours != theirs and ours[:2] == theirs[:2]
        steps.add(str(row), ours, theirs, ONE_BUCKET if mixed else None)
    yield steps


def dataset_of(row: dict[str, Any]) -> Dataset:
    """A dataset of the row's folders without any file: in each folder images of the sizes in turn, at 128 px."""
    spec = DatasetSpec(
        index=0,
        resolution=(128, 128),
        batch_size=row["batch_size"],
        enable_bucket=True,
        min_bucket_reso=64,
        max_bucket_reso=256,
        bucket_reso_steps=64,
        bucket_no_upscale=False,
        network_multiplier=1.0,
        validation_split=0.0,
        validation_seed=None,
        subsets=(),
    )
    rule = Buckets((128, 128), True, 64, 256, 64)
    sizes = [(width, height) for width, height in row["image_sizes_cycled"]]
    pictures: dict[bool, list[tuple[DatasetImage, int]]] = {False: [], True: []}
    for is_reg, names in ((False, row["train"]), (True, row["reg"])):
        for folder, images in names:
            repeats = int(folder.split("_")[0])
            subset = replace(subset_of({"is_reg": is_reg, "num_repeats": repeats}), image_dir=Path(folder))
            for i in range(images):
                size = sizes[i % len(sizes)]
                picture = DatasetImage(Path(folder, f"{i}.png"), Stamp(0, 0), size, rule.choose(size), "", subset, 0)
                pictures[is_reg].append((picture, repeats))
    wanted = sum(repeats for _, repeats in pictures[False])
    filled = fill_up([repeats for _, repeats in pictures[True]], wanted)
    visits = pictures[False] + [(p, n) for (p, _), n in zip(pictures[True], filled, strict=True)]
    samples = [Sample(f"{p.path}#{n}", p, 1.0) for p, times in visits for n in range(times)]
    return Dataset([spec], [p for p, _ in visits], samples)
