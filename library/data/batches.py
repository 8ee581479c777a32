"""The data loader: batches, each with what one forward pass needs, prepared ahead of time by a few threads.

Nothing here has a state that would have to be saved: (seed, epoch, step) name a batch completely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from library.data.augmentation.caption_augmentation import Moment, worded
from library.data.augmentation.image_augmentation import View, view_of
from library.data.caches.vae_encoding import Ready
from library.data.dataset import Dataset, Sample
from library.data.images.image import DatasetImage
from library.data.images.masks import stacked
from library.data.keys import key
from library.data.prefetch import ahead_of_time
from library.data.sample_order import Geometry, MicroBatch, order, split, steps_per_epoch

if TYPE_CHECKING:
    from library.models.text import TextEmbeddings


class LatentSource(Protocol):
    """Where the VAE's posteriors come from: a cache, or the VAE itself."""

    scaling_factor: float
    shift_factor: float
    ready: bool
    """Whether `fetch` only looks into memory, so that threads would be of no use."""

    def fetch(self, picture: DatasetImage, view: View) -> Ready:
        """All that can be done ahead, in any thread: read a cache file, or decode and cut an image."""
        ...

    def posterior(self, fetched: Sequence[Ready], pictures: Sequence[DatasetImage]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each (batch, 4, height/8, width/8) float32 on the CPU; in the main thread."""
        ...


class TextSource(Protocol):
    """Where text embeddings come from, if not from the text encoder at every step."""

    def embeddings(self, captions: Sequence[str]) -> TextEmbeddings: ...


@dataclass
class Batch:
    """One micro-batch of one process. Everything is on the CPU, in pinned memory if asked for.

    Rows beyond the real samples are padding with weight 0; sizes and places are (height, width) and (top, left).
    """

    epoch: int
    sample_ids: list[str]
    files: list[str]
    captions: list[str]
    latents: Tensor  # (batch, 4, height/8, width/8) float32, drawn from the posterior, shifted and scaled
    hidden: TextEmbeddings | None  # None: the objective encodes the captions
    weights: Tensor  # (batch,) float32: each sample's loss weight
    true_count: int  # real samples of the whole global batch: what the summed loss is divided by
    original_sizes: Tensor  # (batch, 2) int64, before resizing
    crops: Tensor  # (batch, 2) int64, where the bucket was cut from the resized (and mirrored) image
    target_sizes: Tensor  # (batch, 2) int64, the bucket
    seed: int
    masks: Tensor | None = None
    """(batch, 1, height/8, width/8) float32 in [0, 1]: what counts in the loss; None where no picture has a mask."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    def generator(self, i: int, purpose: str) -> torch.Generator:
        """A fresh CPU generator for one of row i's draws, e.g. "noise" or "timestep"."""
        return key(self.seed, self.epoch, self.sample_ids[i], purpose)


@dataclass
class _Prepared:
    """A micro-batch after the part of the work that threads may do."""

    samples: list[Sample]
    real: int
    true_count: int
    views: list[View]
    fetched: list[Ready]


class Batches:
    """The optimizer steps of every epoch.

    `workers` threads prepare up to `prefetch` steps ahead; 0 does it all when asked. Neither changes a value.
    `pin` puts tensors in pinned memory, for a quick copy to a GPU.
    `total_steps` is the length of the run, which captions may follow (token_warmup_step as a share).
    """

    def __init__(
        self,
        dataset: Dataset,
        latents: LatentSource,
        text: TextSource | None,
        *,
        seed: int,
        geometry: Geometry | None = None,
        workers: int = 2,
        prefetch: int = 4,
        pin: bool = False,
        total_steps: int | None = None,
    ):
        self.dataset, self.latents, self.text = dataset, latents, text
        self.seed, self.geometry, self.pin = seed, geometry or Geometry(), pin
        self.workers = 0 if latents.ready else workers
        self.prefetch = max(1, prefetch)
        self.total_steps = total_steps

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.dataset, self.geometry.parts)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """One item per optimizer step: this process' micro-batches. The first `start` steps are left out, unread."""
        first = (epoch - 1) * self.steps_per_epoch + start  # optimizer steps done before
        steps = [self._split(global_batch) for global_batch in self._order(epoch)[start:]]
        parts = (part for step in steps for part in step)
        ahead = self.prefetch * self.geometry.accumulation
        samples = self.dataset.samples_of(self.seed, epoch)
        prepare = partial(self._prepared, samples=samples, epoch=epoch)
        with closing(ahead_of_time(prepare, parts, self.workers, ahead)) as prepared:
            for number, step in enumerate(steps, first):
                moment = Moment(epoch, number, self.total_steps)
                yield [self._finished(next(prepared), moment) for _ in step]

    def _order(self, epoch: int) -> list[list[int]]:
        return order(self.dataset, self.seed, epoch, self.geometry.parts)

    def _split(self, global_batch: list[int]) -> list[tuple[MicroBatch, int]]:
        """This process' parts of a global batch, each with the whole batch's number of samples."""
        number = self.dataset.samples[global_batch[0]].picture.dataset
        parts = split(global_batch, self.dataset.plan[number].batch_size, self.geometry)
        return [(part, len(global_batch)) for part in parts]

    def _prepared(self, part: tuple[MicroBatch, int], samples: Sequence[Sample], epoch: int) -> _Prepared:
        batch, true_count = part
        mine = [samples[i] for i in batch.samples]
        views = [view_of(s.picture, partial(key, self.seed, epoch, s.sample_id)) for s in mine]
        fetched = [self.latents.fetch(s.picture, view) for s, view in zip(mine, views, strict=True)]
        return _Prepared(mine, batch.real, true_count, views, fetched)

    def _finished(self, prepared: _Prepared, moment: Moment) -> Batch:
        epoch = moment.epoch
        samples = prepared.samples
        pictures = [sample.picture for sample in samples]
        ids = [sample.sample_id for sample in samples]
        mean, std = self.latents.posterior(prepared.fetched, pictures)
        noise = torch.stack([torch.randn(mean.shape[1:], generator=key(self.seed, epoch, i, "posterior")) for i in ids])
        captions = [
            worded(picture.caption, picture.subset, moment, partial(key, self.seed, epoch, i))
            for picture, i in zip(pictures, ids, strict=True)
        ]
        real = prepared.real
        masks = stacked([ready.mask for ready in prepared.fetched])
        return Batch(
            epoch=epoch,
            sample_ids=ids,
            files=[str(picture.path) for picture in pictures],
            captions=captions,
            latents=self._pinned((mean + std * noise - self.latents.shift_factor) * self.latents.scaling_factor),
            hidden=self.text.embeddings(captions) if self.text else None,
            weights=torch.tensor([sample.loss_weight if i < real else 0.0 for i, sample in enumerate(samples)]),
            true_count=prepared.true_count,
            original_sizes=_rows(picture.size[::-1] for picture in pictures),
            crops=_rows(view.crop for view in prepared.views),
            target_sizes=_rows(view.choice.bucket[::-1] for view in prepared.views),
            seed=self.seed,
            masks=None if masks is None else self._pinned(masks),
        )

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.pin else tensor


def _rows(pairs) -> Tensor:
    return torch.tensor(list(pairs), dtype=torch.int64)
