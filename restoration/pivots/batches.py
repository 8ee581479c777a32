"""Batches for the pivots: references beside as many prior pictures, each with the latents of a fresh degradation.

Step k of epoch e is a function of the seed alone: which pictures, how they are damaged, and all noise. Prior pictures
are gone through in random orders of their own, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from library.data.batches import Batch
from library.data.keys import key, permutation
from library.data.sample_order import Geometry, MicroBatch, split
from library.errors import UserError
from library.models.text import TextEmbeddings
from restoration.damage.degradation import degrade, generator
from restoration.damage.ranges import Degradation
from restoration.pivots.faces import ReferenceFace, read_face
from restoration.system.cleaner import Cleaner


@dataclass
class RestorationBatch(Batch):
    """A batch whose pictures also come degraded: `conditions` (batch, 4, height/8, width/8) are their latents c(I).

    `person` is whose G reads the captions: all rows of a batch have the same.
    """

    conditions: Tensor = field(kw_only=True)
    person: str = field(kw_only=True)


class LatentEncoder(Protocol):
    """The VAE, as much of it as is needed here."""

    def encode_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, side, side) in [-1, 1] to mean and standard deviation, each (1, 4, side/8, side/8) on the CPU."""
        ...


class Latents:
    """What is known of a picture's latents: the posterior of the clean one, and c(I) of each degraded one.

    Pictures go through the VAE one at a time, so that neither batch nor worker nor resume changes a rounding.
    """

    def __init__(
        self,
        encoder: LatentEncoder,
        cleaner: Cleaner,
        degradation: Degradation,
        scaling_factor: float,
        side: int,
        seed: int,
    ) -> None:
        self._encoder, self.cleaner, self._degradation = encoder, cleaner, degradation
        self._scaling_factor, self._side, self._seed = scaling_factor, side, seed
        self._pictures: dict[str, np.ndarray] = {}
        self._posteriors: dict[str, tuple[Tensor, Tensor]] = {}
        self._conditions: dict[tuple[str, int], Tensor] = {}

    def clean(self, face: ReferenceFace, epoch: int) -> Tensor:
        """A sample of the clean picture's latents in an epoch: (4, side/8, side/8) float32."""
        if face.sample_id not in self._posteriors:
            self._posteriors[face.sample_id] = self._encode(self._picture(face))
        mean, std = self._posteriors[face.sample_id]
        noise = torch.randn(mean.shape, generator=key(self._seed, epoch, face.sample_id, "posterior"))
        return (mean + std * noise) * self._scaling_factor

    def condition(self, face: ReferenceFace, epoch: int) -> Tensor:
        """c(R(degraded picture)) of an epoch: (4, side/8, side/8) float32, the mode of the posterior."""
        place = (face.sample_id, epoch)
        if place not in self._conditions:
            return self._degraded(face, epoch)
        return self._conditions[place]

    def prepare(self, visits: Sequence[tuple[ReferenceFace, int]], progress: bool) -> None:
        """Compute what these visits (picture, epoch) need, so that VAE and cleaner can leave the device."""
        shown = tqdm(visits, desc="degrading pictures", unit="image", disable=None if progress else True)
        for face, epoch in shown:
            self.clean(face, epoch)
            if (face.sample_id, epoch) not in self._conditions:
                self._conditions[face.sample_id, epoch] = self._degraded(face, epoch)
        self._pictures.clear()

    def degraded(self, face: ReferenceFace, epoch: int) -> np.ndarray:
        """The damaged picture, float32 (side, side, 3) in [0, 1]."""
        return degrade(self._picture(face), self._degradation, generator(self._seed, epoch, face.sample_id))

    def _degraded(self, face: ReferenceFace, epoch: int) -> Tensor:
        damaged = self.degraded(face, epoch)
        cleaned = self.cleaner(torch.from_numpy(damaged).permute(2, 0, 1)[None])
        mean, _ = self._encode(cleaned[0].permute(1, 2, 0).numpy())
        return mean * self._scaling_factor

    def _picture(self, face: ReferenceFace) -> np.ndarray:
        if face.sample_id not in self._pictures:
            self._pictures[face.sample_id] = read_face(face.path, self._side)
        return self._pictures[face.sample_id]

    def _encode(self, picture: np.ndarray) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] * 2.0 - 1.0
        mean, std = self._encoder.encode_posterior(images)
        return mean[0], std[0]


class RestorationBatches:
    """The optimizer steps of every epoch; an epoch is one pass over the faces.

    With `prior`, each part of a step has as many prior pictures as faces, with loss weight `prior_loss_weight`: the
    step's loss is the faces' mean loss + weight * the prior pictures' mean loss (eq. 2). `texts` holds what G reads for
    each prompt, (tokens, width).
    """

    def __init__(
        self,
        faces: Sequence[ReferenceFace],
        prior: Sequence[ReferenceFace],
        latents: Latents,
        texts: Mapping[str, Tensor],
        *,
        seed: int,
        batch_size: int = 1,
        geometry: Geometry | None = None,
        prior_loss_weight: float = 1.0,
    ) -> None:
        self.faces, self.prior, self.latents, self.texts = list(faces), list(prior), latents, texts
        self._seed, self._batch_size, self._geometry = seed, batch_size, geometry or Geometry()
        self._weight = prior_loss_weight
        # Orders of the epochs and of the prior's laps that are in use: a step asks for them several times.
        self._order = lru_cache(maxsize=2)(self._ordered)
        self._lap = lru_cache(maxsize=2)(
            lambda lap: permutation(len(self.prior), self._seed, lap, "order of prior pictures")
        )
        if self.prior and not prior_loss_weight:
            raise ValueError("prior pictures without a weight would be computed for nothing")
        names = [face.sample_id for face in [*faces, *prior]]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"two folders have the same name and a picture `{twice}` both; rename one of the folders")

    @property
    def steps_per_epoch(self) -> int:
        return len(self._order(1))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[RestorationBatch]]:
        """One item per optimizer step: this process' micro-batches."""
        for number, global_batch in list(enumerate(self._order(epoch)))[start:]:
            parts = split(global_batch, self._batch_size, self._geometry)
            yield [self._batch(part, len(global_batch), epoch, self._prior_of(epoch, number, part)) for part in parts]

    def visits(self, first_step: int, last_step: int) -> list[tuple[ReferenceFace, int]]:
        """The (picture, epoch) that the steps from `first_step` (0-based) to `last_step` look at, on this process."""
        seen = []
        for step in range(first_step, last_step):
            epoch, number = step // self.steps_per_epoch + 1, step % self.steps_per_epoch
            for part in split(self._order(epoch)[number], self._batch_size, self._geometry):
                faces = [self.faces[i] for i in part.samples] + self._prior_of(epoch, number, part)
                seen += [(face, epoch) for face in faces]
        return list(dict.fromkeys(seen))

    def _ordered(self, epoch: int) -> list[list[int]]:
        """Global batches of face indices; a batch has one person's faces, whose G is used for all of it."""
        size = self._batch_size * self._geometry.parts
        people = list(dict.fromkeys(face.person for face in self.faces))
        batches: list[list[int]] = []
        for person in people:
            mine = [i for i, face in enumerate(self.faces) if face.person == person]
            shuffled = [mine[i] for i in permutation(len(mine), self._seed, epoch, f"order of faces {person}")]
            batches += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
        return [batches[i] for i in permutation(len(batches), self._seed, epoch, "order of batches")]

    def _prior_of(self, epoch: int, number: int, part: MicroBatch) -> list[ReferenceFace]:
        """The prior pictures beside a part: its faces' places in the whole run, counted through the prior's orders."""
        if not self.prior:
            return []
        chosen = []
        order = self._order(epoch)
        before = (epoch - 1) * len(self.faces) + sum(len(batch) for batch in order[:number])
        for sample in part.samples:
            place = before + order[number].index(sample)
            lap, index = divmod(place, len(self.prior))
            chosen.append(self.prior[self._lap(lap)[index]])
        return chosen

    def _batch(self, part: MicroBatch, true_count: int, epoch: int, prior: list[ReferenceFace]) -> RestorationBatch:
        faces = [self.faces[i] for i in part.samples]
        real = [1.0 if i < part.real else 0.0 for i in range(len(faces))]
        rows = faces + prior
        texts = torch.stack([self.texts[face.prompt] for face in rows])
        sizes = torch.zeros(len(rows), 2, dtype=torch.int64)  # SDXL's size conditioning, which no restorer has
        return RestorationBatch(
            epoch=epoch,
            # A prior picture may come twice in an epoch: the face beside it keeps its draws apart.
            sample_ids=[face.sample_id for face in faces]
            + [f"{other.sample_id} beside {face.sample_id}" for face, other in zip(faces, prior, strict=bool(prior))],
            files=[str(face.path) for face in rows],
            captions=[face.prompt for face in rows],
            latents=torch.stack([self.latents.clean(face, epoch) for face in rows]),
            hidden=TextEmbeddings(texts),
            weights=torch.tensor(real + [self._weight * weight for weight in (real if prior else [])]),
            true_count=true_count,
            original_sizes=sizes,
            crops=sizes,
            target_sizes=sizes,
            seed=self._seed,
            conditions=torch.stack([self.latents.condition(face, epoch) for face in rows]),
            person=faces[0].person,
        )
