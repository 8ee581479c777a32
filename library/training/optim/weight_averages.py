"""An exponential moving average (EMA) of the trained weights, beside the weights themselves.

It costs no pass through the model, and is smoother than any single step. Polyak & Juditsky 1992 average iterates; that
the average forgets them exponentially, faster at the beginning, is what diffusion models are trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from library.config.spec import declared, spec
from library.models.accelerator import accelerator
from library.training.trainables import Trainable


@spec
class AverageSpec:
    """The options on averaged weights; field names are the options'."""

    ema_decay: float | None = declared
    ema_update_every: int | None = declared
    ema_device: str = declared
    ema_validate: bool = declared

    @property
    def is_on(self) -> bool:
        return bool(self.ema_decay)

    @property
    def every(self) -> int:
        return self.ema_update_every or 1


def decay_at(step: int, decay: float) -> float:
    """d_n = min(decay, (1 + n) / (10 + n)) at step n, counted from 1: the start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


def about_averages(spec: AverageSpec, optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """Lines worth knowing at the start."""
    if spec.is_on and spec.ema_device == "cpu":
        yield "the averaged weights are kept in the computer's memory (`ema_device`)"
    if spec.is_on and callable(getattr(optimizer, "eval", None)):
        yield f"{type(optimizer).__name__} averages its weights itself, so `ema_decay` averages them once more"


@dataclass
class _Average:
    """The average of one trainable's parameters after `steps` steps in which it was trained."""

    parameters: Sequence[Tensor]
    values: list[Tensor]
    steps: int = 0
    share: float = 0.0
    """How much of `taken` is still to go into `values`."""
    taken: list[Tensor] = field(default_factory=list)
    """A copy of the parameters that is under way to where the average is kept."""
    arrived: torch.Event | None = None


class WeightAverages:
    """The average of everything that `trainables` train: in float32, whatever the weights are trained in.

    After step n an average is d_n^k times itself and 1 - d_n^k times the weights, where k = `ema_update_every` and n
    counts a trainable's own steps. A larger k saves work and hardly changes how far back it reaches.
    """

    def __init__(self, spec: AverageSpec | None = None, trainables: Sequence[Trainable] = ()) -> None:
        self._spec = spec or AverageSpec()
        self._of: dict[str, _Average] = {}
        if self._spec.is_on:
            for trainable in trainables:
                self._of[trainable.name] = self._begun(trainable.parameters)

    @property
    def is_on(self) -> bool:
        return self._spec.is_on

    @property
    def are_measured(self) -> bool:
        """Whether validation, samples and the best step are those of the average."""
        return self._spec.is_on and self._spec.ema_validate

    def begin_again(self, trainable: Trainable) -> None:
        """Forget what came before: the weights of `trainable` were put into another form, not trained further."""
        if self._spec.is_on:
            self._of[trainable.name] = self._begun(trainable.parameters)

    @torch.no_grad()
    def update(self, trained: Sequence[Trainable]) -> None:
        """Take in the weights of those that were trained in this step. Nothing waits for the device."""
        if not self._spec.is_on:
            return
        for trainable in trained:
            average = self._of[trainable.name]
            average.steps += 1
            if average.steps % self._spec.every == 0:
                _settle(average)
                decay = decay_at(average.steps, self._spec.ema_decay or 0.0)
                _take(average, 1.0 - decay**self._spec.every)

    @contextmanager
    def weights_for_use(self) -> Iterator[None]:
        """Inside, the trainables have their averages as weights; afterwards exactly those of before."""
        kept = []
        with torch.no_grad():
            for average in self._of.values():
                _settle(average)
                kept.append([parameter.detach().clone() for parameter in average.parameters])
                _copy(average.parameters, average.values)
        try:
            yield
        finally:
            with torch.no_grad():
                for average, trained in zip(self._of.values(), kept, strict=True):
                    _copy(average.parameters, trained)

    def state_dict(self) -> dict[str, Tensor]:
        state = {}
        for name, average in self._of.items():
            _settle(average)
            state |= {f"{name}.{i}": value for i, value in enumerate(average.values)}
            state[f"{name}.steps"] = torch.tensor(average.steps)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state; one without averages begins them at the weights that it holds."""
        for name, average in self._of.items():
            if f"{name}.steps" not in state:
                self._of[name] = self._begun(average.parameters)
                continue
            average.steps = int(state[f"{name}.steps"])
            _copy(average.values, [state[f"{name}.{i}"] for i in range(len(average.values))])

    def _begun(self, parameters: Sequence[Tensor]) -> _Average:
        place = torch.device("cpu") if self._spec.ema_device == "cpu" else None
        return _Average(parameters, [p.detach().to(place or p.device, torch.float32, copy=True) for p in parameters])


def _take(average: _Average, share: float) -> None:
    """values + share (parameters - values), at once where both lie together, else when the copies have arrived."""
    device = average.parameters[0].device
    gpu = accelerator(device)
    if gpu is None or device.type == average.values[0].device.type:
        weights = [parameter.detach().float() for parameter in average.parameters]
        torch._foreach_lerp_(average.values, weights, share)
        return
    if not average.taken:
        average.taken = [torch.empty(p.shape, dtype=p.dtype, pin_memory=True) for p in average.parameters]
    for copy, parameter in zip(average.taken, average.parameters, strict=True):
        copy.copy_(parameter.detach(), non_blocking=True)
    average.arrived = arrived = gpu.Event()
    arrived.record()
    average.share = share


def _settle(average: _Average) -> None:
    """Put in what was under way: on a GPU whose average is kept on the CPU, the weights of one update before."""
    if average.arrived is None:
        return
    average.arrived.synchronize()
    average.arrived = None
    torch._foreach_lerp_(average.values, [copy.float() for copy in average.taken], average.share)


def _copy(into: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(into, values, strict=True):
        tensor.copy_(value)
