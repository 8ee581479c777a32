"""The objective of rectified-flow models: the U-Net predicts the velocity of a straight path from picture to noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from library.data.batches import Batch
from library.data.keys import key
from library.diffusion.loss import LossSpec, huber_threshold_at, sample_distance
from library.diffusion.noise import NoiseSpec, draw_noise
from library.diffusion.rectified_flow import (
    TIMESTEPS,
    FlowSpec,
    draw_sigma,
    flow_velocity,
    interpolated,
    others,
    pair_by_cosine,
    signal_of,
)
from library.models.family import StableDiffusion
from library.models.text import TextEmbeddings
from library.training.objectives import Gather, SampleLoss, TextToImage


@dataclass(frozen=True)
class _Sample:
    """What one sample of a global batch gets from the others: its noise, and the target of another one."""

    noise: Tensor
    target_of_another: Tensor


class RectifiedFlow(TextToImage):
    """mean |v(x_sigma, 1000 sigma, text) - (eps - x_0)|^2 of every sample.

    `flow_use_ot` deals the noise of a global batch out anew among its samples; `contrastive_flow_matching` subtracts
    lambda times the squared distance to another sample's target. Both look at the whole global batch, however it is
    split, so accumulation and processes change nothing. What is measured on held-out pictures has neither.
    """

    def __init__(
        self,
        model: StableDiffusion,
        encode: Callable[[list[str]], TextEmbeddings],
        device: torch.device,
        flow: FlowSpec,
        *,
        noise: NoiseSpec = NoiseSpec(),  # noqa: B008
        distance: LossSpec = LossSpec(),  # noqa: B008
    ) -> None:
        super().__init__(model, encode, device, distance)
        self._flow, self._noise = flow, noise
        self._of_step: dict[str, _Sample] = {}

    @property
    def timestep_count(self) -> int:
        return TIMESTEPS

    def step_starts(self, micro_batches: Sequence[Batch], gather: Gather) -> None:
        """Look at the whole global batch, where that is asked for."""
        if not (self._flow.flow_use_ot or self._flow.contrast):
            return
        mine = {i: x for batch in micro_batches for i, x in zip(batch.sample_ids, batch.latents, strict=True)}
        everyone = {i: x for part in gather(mine) for i, x in part.items()}
        ids = sorted(everyone)
        first = micro_batches[0]
        noise = [draw_noise(self._noise, everyone[i], partial(key, first.seed, first.epoch, i)) for i in ids]
        if self._flow.flow_use_ot and len(ids) > 1:
            pairs = pair_by_cosine(torch.stack([everyone[i] for i in ids]), torch.stack(noise))
            noise = [noise[i] for i in gather(pairs)[0]]  # of the first, whatever another computer rounds to
        targets = [flow_velocity(everyone[i], eps) for i, eps in zip(ids, noise, strict=True)]
        self._of_step = {
            ids[i]: _Sample(noise[i], targets[other]) for i, other in enumerate(others(len(ids))) if ids[i] in mine
        }

    def loss(self, batch: Batch) -> SampleLoss:
        pixels = batch.target_sizes.prod(dim=1).tolist()
        draws = [partial(batch.generator, i) for i in range(len(batch))]
        drawn = [draw_sigma(self._flow, size, draw) for size, draw in zip(pixels, draws, strict=True)]
        sigma = torch.stack(drawn)
        if not self._of_step:
            return self._loss(batch, sigma, self._own_noise(batch))
        samples = [self._of_step[i] for i in batch.sample_ids]
        noise, away_from = (
            torch.stack(t) for t in zip(*((s.noise, s.target_of_another) for s in samples), strict=True)
        )
        return self._loss(batch, sigma, noise, away_from if batch.true_count > 1 else None)  # of one it is its own

    def loss_at(self, batch: Batch, timesteps: Tensor) -> SampleLoss:
        """The loss at given timesteps (batch,), 1000 sigma, with each sample's own noise."""
        return self._loss(batch, timesteps / TIMESTEPS, self._own_noise(batch))

    def _own_noise(self, batch: Batch) -> Tensor:
        rows = enumerate(batch.latents)
        return torch.stack([draw_noise(self._noise, latents, partial(batch.generator, i)) for i, latents in rows])

    def _loss(self, batch: Batch, sigma: Tensor, noise: Tensor, away_from: Tensor | None = None) -> SampleLoss:
        latents, eps = self._move(batch.latents), self._move(noise)  # (batch, 4, height/8, width/8)
        timesteps = TIMESTEPS * sigma
        self._tell(timesteps)
        prediction = self._predict(
            interpolated(latents, eps, self._move(sigma)), self._move(timesteps), self._embed(batch), batch
        )
        threshold = huber_threshold_at(self._distance, sigma, signal_of(sigma))
        found = self._compared(batch, prediction, flow_velocity(latents, eps), timesteps.long(), threshold)
        if away_from is not None and self._flow.contrast:
            mask = None if batch.masks is None else self._move(batch.masks)
            found.per_sample = found.per_sample - self._flow.contrast * sample_distance(
                "l2", prediction, self._move(away_from), mask=mask
            )
        return found
