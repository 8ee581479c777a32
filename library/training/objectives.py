"""From a batch to a loss per sample: what a run minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from library.data.batches import Batch
from library.diffusion.loss import prediction_target, relative_error, squared_error
from library.diffusion.schedule import add_noise, alphas_cumprod
from library.models.conditioning import added_conditions
from library.models.family import StableDiffusion
from library.models.text import TextEmbeddings


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

    def loss(self, batch: Batch) -> SampleLoss: ...

    def train(self, training: bool) -> None:
        """Put the models that are trained through into training mode, or out of it."""
        ...


class NoisePrediction:
    """Denoising score matching on text and image: the U-Net predicts the noise (or velocity) of a noised latent.

    `encode` embeds captions with gradients; it is asked only for batches that carry no cached embeddings.
    """

    def __init__(
        self,
        model: StableDiffusion,
        encode: Callable[[list[str]], TextEmbeddings],
        device: torch.device,
        *,
        min_timestep: int = 0,
        max_timestep: int | None = None,
    ) -> None:
        self._model = model
        self._encode = encode
        self._device = device
        self._alpha_bar = alphas_cumprod(model.scheduler_config)
        self._timesteps = (min_timestep, max_timestep or len(self._alpha_bar))

    def train(self, training: bool) -> None:
        self._model.unet.train(training)
        for text_encoder in self._model.text_encoders:
            text_encoder.train(training)

    def loss(self, batch: Batch) -> SampleLoss:
        timesteps = torch.stack([self._draw_timestep(batch.generator(i, "timestep")) for i in range(len(batch))])
        noise = torch.stack([self._draw_noise(batch, i) for i in range(len(batch))])
        alpha_bar = self._move(self._alpha_bar[timesteps])
        latents, noise = self._move(batch.latents), self._move(noise)  # (batch, 4, height/8, width/8)
        text = batch.hidden.to(self._device) if batch.hidden is not None else self._encode(batch.captions)

        noisy = add_noise(latents, noise, alpha_bar)
        prediction = self._predict(noisy, self._move(timesteps), text, batch)
        target = prediction_target(self._model.prediction_type, latents, noise, alpha_bar)
        error = squared_error(prediction, target)
        return SampleLoss(
            per_sample=error,
            relative_mse=relative_error(error.detach(), target),
            weights=self._move(batch.weights),
            true_count=batch.true_count,
            timesteps=timesteps,
            files=batch.files,
        )

    def _predict(self, noisy: Tensor, timesteps: Tensor, text: TextEmbeddings, batch: Batch) -> Tensor:
        dtype = self._model.unet.dtype
        added = None
        if text.pooled is not None:
            added = added_conditions(text.pooled, batch.original_sizes, batch.crops, batch.target_sizes)
        return self._model.unet(
            noisy.to(dtype), timesteps, text.hidden.to(dtype), added_cond_kwargs=added, return_dict=False
        )[0]

    def _draw_timestep(self, generator: torch.Generator) -> Tensor:
        low, high = self._timesteps
        return torch.randint(low, high, (), generator=generator)

    def _draw_noise(self, batch: Batch, i: int) -> Tensor:
        return torch.randn(batch.latents.shape[1:], generator=batch.generator(i, "noise"))

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)
