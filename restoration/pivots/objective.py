"""The loss of both pivots: the system's prediction error on a noised picture, given the same picture damaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from library.config.spec import declared
from library.data.batches import Batch
from library.diffusion.noise import NoiseSpec
from library.models.text import TextEmbeddings
from library.training.objectives import NoisePrediction
from restoration.options import restoration_spec
from restoration.pivots.batches import RestorationBatch
from restoration.restoring.sampling import lowest_noise_timesteps
from restoration.system.system import Controls, System


class Restoration(NoisePrediction):
    """mean |B(x_t, text, I_LQ) - eps|^2 for every sample of a batch.

    - Step 1, in-context textual pivoting (eq. 6): G is trained inside B, E is frozen and computed without a graph.
      `in_context` False leaves E out: plain textual pivoting of G alone (eq. 5), for comparison.
    - Step 2, model-based pivoting (eq. 7): `trains_encoder`; the gradient reaches E through the frozen G.
      `null_above` is the timestep from which G reads the null text, as eq. 8 will run it; None: the prompt always.

    `before` is called with whose pictures a batch shows, before G reads their prompt.
    """

    def __init__(
        self,
        system: System,
        device: torch.device,
        *,
        noise: NoiseSpec,
        in_context: bool = True,
        trains_encoder: bool = False,
        null_above: int | None = None,
        before: Callable[[str], None] = lambda person: None,
    ) -> None:
        super().__init__(system.model, self._no_captions, device, noise=noise)
        self._system = system
        self._in_context = in_context
        self._trains_encoder = trains_encoder
        self._null_above = null_above
        self._before = before

    def train(self, training: bool) -> None:
        """Only what is trained changes its mode, and the trainables see to that."""

    def _predict(self, noisy: Tensor, timesteps: Tensor, text: TextEmbeddings, batch: Batch) -> Tensor:
        faces = cast(RestorationBatch, batch)
        self._before(faces.person)
        hidden = text.hidden
        if self._null_above is not None:
            null = self._system.null.to(hidden.device, hidden.dtype).expand_as(hidden)
            hidden = torch.where((timesteps >= self._null_above)[:, None, None], null, hidden)
        controls = self._controls(noisy, timesteps, faces) if self._in_context else None
        return self._system.predict(noisy, timesteps, hidden, controls)

    def _controls(self, noisy: Tensor, timesteps: Tensor, faces: RestorationBatch) -> Controls:
        with torch.set_grad_enabled(self._trains_encoder):
            return self._system.controls(noisy, timesteps, self._move(faces.conditions))

    def _no_captions(self, captions: list[str]) -> TextEmbeddings:
        raise ValueError("batches of the pivots carry their text embeddings")


@restoration_spec
class RestorationSpec:
    """The options on the loss of the pivots; field names are the options'."""

    gamma: float = declared
    in_context: bool = declared
    high_noise_text: str = declared
    min_timestep: int | None = declared
    max_timestep: int | None = declared

    @property
    def text_timesteps(self) -> NoiseSpec:
        """The timesteps of step 1: those at which eq. 8 uses the prompt, unless a person has set others."""
        high = self.max_timestep or lowest_noise_timesteps(self.gamma)
        return NoiseSpec(min_timestep=self.min_timestep, max_timestep=high)

    @property
    def model_timesteps(self) -> NoiseSpec:
        """The timesteps of step 2: all, unless a person has set others."""
        return NoiseSpec(min_timestep=self.min_timestep, max_timestep=self.max_timestep)

    @property
    def null_above(self) -> int | None:
        """The timestep from which G reads the null text in step 2; None: the prompt always."""
        return lowest_noise_timesteps(self.gamma) if self.high_noise_text == "null" else None
