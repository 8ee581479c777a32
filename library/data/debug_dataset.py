"""What a run would see of its dataset, without training: counts, the first batches, a sheet of their pictures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from library.atomic import atomic
from library.data.augmentation.image_augmentation import View
from library.data.batches import Batch, Batches
from library.data.bucket_assignment import written
from library.data.caches.vae_encoding import Ready, read_as_seen
from library.data.dataset import Dataset
from library.data.images.image import DatasetImage
from library.data.sample_order import steps_per_epoch

logger = logging.getLogger(__name__)

STEPS = 8  # whose pictures are shown
SIDE = 256  # pixels of the longer side of a picture on the sheet
COLUMNS = 6
SHEET = "debug_dataset.png"


class Pixels:
    """Pictures in place of latents: what would go into the VAE."""

    scaling_factor = 1.0
    shift_factor = 0.0
    ready = False

    def fetch(self, picture: DatasetImage, view: View) -> Ready:
        return read_as_seen(picture, view)

    def posterior(self, fetched: Sequence[Ready], pictures: Sequence[DatasetImage]) -> tuple[Tensor, Tensor]:
        images = torch.stack([ready.tensor for ready in fetched])
        return images, torch.zeros_like(images)


def show_dataset(dataset: Dataset, output_dir: Path, *, seed: int) -> None:
    """Say what epoch 1 of a run with this seed would see, and write the sheet into `output_dir`.

    Where captions follow a share of the run, they are those of a run of one epoch.
    """
    for line in [*dataset.warnings, *summary(dataset, seed)]:
        logger.info(line)
    batches = Batches(dataset, Pixels(), None, seed=seed, workers=0, total_steps=steps_per_epoch(dataset, 1))
    logger.info(f"{batches.steps_per_epoch} steps in an epoch; the first {min(STEPS, batches.steps_per_epoch)}:")
    pictures: list[Image.Image] = []
    for step, micro_batches in enumerate(islice(batches.epoch(1), STEPS), 1):
        for batch in micro_batches:
            for line in lines_of(batch):
                logger.info(f"step {step}: {line}")
            pictures += thumbnails(batch)
    path = output_dir / SHEET
    with atomic(path) as temporary:
        sheet(pictures).save(temporary)
    logger.info(f"their pictures, dark where a mask leaves them out: {path}")


def summary(dataset: Dataset, seed: int = 0) -> Iterator[str]:
    """Each dataset with its subsets and buckets, and what epoch 1 sees of them."""
    visits = Counter(id(sample.picture) for sample in dataset.samples_of(seed, 1))
    for number, spec in enumerate(dataset.plan):
        yield f"dataset {number + 1}: {written(spec.resolution)}, {spec.batch_size} images in a batch"
        for subset in spec.subsets:
            mine = [p for p in dataset.pictures if p.dataset == number and p.subset is subset]
            seen = sum(visits[id(picture)] for picture in mine)
            kind = ", regularization" if subset.is_reg else ""
            yield f"  {subset.metadata_file or subset.image_dir}: {len(mine)} images, {seen} in an epoch{kind}"
        sizes = Counter({b: len(members) for (d, b), members in dataset.groups.items() if d == number})
        if sizes:
            yield "  " + ", ".join(f"{written(bucket)}: {count}" for bucket, count in sorted(sizes.items()))
    if dataset.validation:
        yield f"held out to measure on: {len(dataset.validation.pictures)} images"


def lines_of(batch: Batch) -> Iterator[str]:
    """Each sample of a batch in a line: file, size, crop, caption."""
    for i, file in enumerate(batch.files):
        if batch.weights[i] > 0:
            height, width = batch.target_sizes[i].tolist()
            top, left = batch.crops[i].tolist()
            weight = f", weight {float(batch.weights[i]):g}" if batch.weights[i] != 1 else ""
            yield f"{file} at {width}x{height} from {left},{top}{weight}: {batch.captions[i]!r}"


def thumbnails(batch: Batch) -> list[Image.Image]:
    """The pictures of a batch of pixels, dimmed where their masks leave them out."""
    shown = []
    for i, image in enumerate(batch.latents):
        if batch.masks is not None:
            mask = torch.nn.functional.interpolate(batch.masks[i : i + 1], size=image.shape[1:], mode="nearest")[0]
            image = (image + 1) * (0.2 + 0.8 * mask) - 1
        pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        picture.thumbnail((SIDE, SIDE))
        shown.append(picture)
    return shown


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in rows on one sheet."""
    columns = max(1, min(COLUMNS, len(pictures)))
    rows = -(-len(pictures) // columns)
    paper = Image.new("RGB", (columns * SIDE, max(1, rows) * SIDE), "white")
    for i, picture in enumerate(pictures):
        paper.paste(picture, (i % columns * SIDE, i // columns * SIDE))
    return paper
