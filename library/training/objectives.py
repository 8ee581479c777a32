"""From a batch to a loss per sample: what a run minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from library.data.batches import Batch
from library.diffusion.loss import (
    LossSpec,
    huber_threshold,
    prediction_target,
    relative_error,
    sample_distance,
    squared_error,
)
from library.diffusion.noise import NoiseSpec, draw_input_noise, draw_noise, draw_timestep
from library.diffusion.schedule import add_noise, alphas_cumprod, signal_to_noise
from library.diffusion.weights import WeightSpec, timestep_weights
from library.models.accelerator import to_device
from library.models.conditioning import added_conditions
from library.models.family import StableDiffusion
from library.models.text import TextEmbeddings

Gather = Callable[[Any], list[Any]]
"""Gives every process what each of them has, in their order."""


@dataclass
class SampleLoss:
    """The loss of each sample, before the reduction over the batch.

    `per_sample` (batch,) is what is minimised, `relative_mse` (batch,) the unweighted squared error over the target's
    power. `weights` (batch,) holds each sample's weight, 0 for padding; `true_count` counts the real samples of the
    whole global batch, over all processes and accumulation steps.
    """

    per_sample: Tensor
    relative_mse: Tensor
    weights: Tensor
    true_count: int
    timesteps: Tensor
    files: list[str]

    def weighted_mean(self) -> Tensor:
        """This micro-batch's share of the global batch's mean loss."""
        return torch.sum(self.per_sample * self.weights) / self.true_count

    def sums(self) -> Tensor:
        """(2,): sums over the real samples of the weighted loss and of the relative error, detached."""
        real = (self.weights > 0).to(self.per_sample.dtype)
        return torch.stack([(self.per_sample * self.weights).sum(), (self.relative_mse * real).sum()]).detach()


class Objective(Protocol):
    """Turns a batch into a loss per sample; every draw comes from the batch's keys."""

    def step_starts(self, micro_batches: Sequence[Batch], gather: Gather) -> None:
        """Before the passes of an optimizer step over its global batch, of which these are this process' share."""
        ...

    def loss(self, batch: Batch) -> SampleLoss: ...

    def train(self, training: bool) -> None:
        """Put the models that are trained through into training mode, or out of it."""
        ...


class TextToImage:
    """What the objectives on captioned pictures share: the U-Net's answer, and how far it is off.

    `encode` embeds captions with gradients; it is asked only for batches that carry no cached embeddings.
    """

    def __init__(
        self,
        model: StableDiffusion,
        encode: Callable[[list[str]], TextEmbeddings],
        device: torch.device,
        distance: LossSpec,
    ) -> None:
        self._model = model
        self._encode = encode
        self._device = device
        self._distance = distance
        self.tell_timesteps: Sequence[Callable[[Tensor], None]] = ()
        """Who is told the timesteps (batch,) of each batch before it goes through the model."""

    def train(self, training: bool) -> None:
        self._model.unet.train(training)
        for text_encoder in self._model.text_encoders:
            text_encoder.train(training)

    def step_starts(self, micro_batches: Sequence[Batch], gather: Gather) -> None: ...

    def _tell(self, timesteps: Tensor) -> None:
        for listener in self.tell_timesteps:
            listener(timesteps)

    def _embed(self, batch: Batch) -> TextEmbeddings:
        return batch.hidden.to(self._device) if batch.hidden is not None else self._encode(batch.captions)

    def _predict(self, noisy: Tensor, timesteps: Tensor, text: TextEmbeddings, batch: Batch) -> Tensor:
        dtype = self._model.unet.dtype
        added = None
        if text.pooled is not None:
            added = added_conditions(text.pooled, batch.original_sizes, batch.crops, batch.target_sizes)
        return self._model.unet(
            noisy.to(dtype), timesteps, text.hidden.to(dtype), added_cond_kwargs=added, return_dict=False
        )[0]

    def _compared(
        self, batch: Batch, prediction: Tensor, target: Tensor, timesteps: Tensor, threshold: Tensor | None
    ) -> SampleLoss:
        """How far each prediction is off; `timesteps` and the loss' `threshold` are (batch,), on the CPU."""
        threshold = None if threshold is None else self._move(threshold)
        mask = None if batch.masks is None else self._move(batch.masks)
        error = sample_distance(self._distance.loss_type, prediction, target, threshold, mask)
        is_squared_error = self._distance.loss_type == "l2" and batch.masks is None
        squared = error.detach() if is_squared_error else squared_error(prediction.detach(), target)
        return SampleLoss(
            per_sample=error,
            relative_mse=relative_error(squared, target),
            weights=self._move(batch.weights),
            true_count=batch.true_count,
            timesteps=timesteps,
            files=batch.files,
        )

    def _move(self, tensor: Tensor) -> Tensor:
        return to_device(tensor, self._device)


class NoisePrediction(TextToImage):
    """Denoising score matching on text and image: the U-Net predicts the noise (or velocity) of a noised latent."""

    def __init__(
        self,
        model: StableDiffusion,
        encode: Callable[[list[str]], TextEmbeddings],
        device: torch.device,
        *,
        noise: NoiseSpec = NoiseSpec(),  # noqa: B008
        distance: LossSpec = LossSpec(),  # noqa: B008
        weighting: WeightSpec = WeightSpec(),  # noqa: B008
    ) -> None:
        super().__init__(model, encode, device, distance)
        self._noise = noise
        self._alpha_bar = alphas_cumprod(model.scheduler_config)
        # Tables over all timesteps, of the schedule that is trained with: (timesteps,) each.
        self._weight = timestep_weights(weighting, signal_to_noise(self._alpha_bar), model.prediction_type)
        self._threshold = huber_threshold(distance, self._alpha_bar)

    @property
    def timestep_count(self) -> int:
        return len(self._alpha_bar)

    def loss(self, batch: Batch) -> SampleLoss:
        draws = [partial(batch.generator, i) for i in range(len(batch))]
        timesteps = torch.stack([draw_timestep(self._noise, len(self._alpha_bar), draw) for draw in draws])
        return self.loss_at(batch, timesteps)

    def loss_at(self, batch: Batch, timesteps: Tensor) -> SampleLoss:
        """The loss at given timesteps (batch,), on the CPU; all other draws are the batch's own."""
        draws = [partial(batch.generator, i) for i in range(len(batch))]
        noise = [draw_noise(self._noise, latents, draw) for latents, draw in zip(batch.latents, draws, strict=True)]
        into_input = torch.stack([draw_input_noise(self._noise, n, d) for n, d in zip(noise, draws, strict=True)])
        self._tell(timesteps)
        alpha_bar = self._move(self._alpha_bar[timesteps])
        latents = self._move(batch.latents)  # (batch, 4, height/8, width/8)
        text = self._embed(batch)

        noisy = add_noise(latents, self._move(into_input), alpha_bar)
        prediction = self._predict(noisy, self._move(timesteps), text, batch)
        target = prediction_target(self._model.prediction_type, latents, self._move(torch.stack(noise)), alpha_bar)
        threshold = None if self._threshold is None else self._threshold[timesteps]
        found = self._compared(batch, prediction, target, timesteps, threshold)
        if self._weight is not None:
            found.per_sample = found.per_sample * self._move(self._weight[timesteps])
        return found
