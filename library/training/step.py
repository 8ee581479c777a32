"""One optimizer step: forward and backward over its micro-batches, one exchange between processes, the update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from library.data.batches import Batch
from library.training.guard import BadStep
from library.training.seeding import seed_generators
from library.training.trainables import Trainable

if TYPE_CHECKING:
    from library.training.run import Run


@dataclass
class StepFigures:
    """What is known of a step besides the numbers that are still on the device."""

    step: int  # 1-based: the number of optimizer steps done with it
    epoch: int
    count: int
    files: tuple[str, ...]
    timesteps: tuple[int, ...]
    learning_rates: dict[str, float]
    extra: dict[str, float | Tensor] = field(default_factory=dict)

    @property
    def on_device(self) -> dict[str, Tensor]:
        """Those of `extra` whose numbers have not arrived yet."""
        return {name: value for name, value in self.extra.items() if isinstance(value, Tensor)}


@dataclass
class Measured:
    """A step's figures once its numbers have arrived; `bad` is set where it had to be left out."""

    figures: StepFigures
    loss_sum: float
    relative_mse_sum: float
    gradient_norm: float
    bad: BadStep | None = None


def take_step(run: Run, micro_batches: Sequence[Batch]) -> list[Measured]:
    """Train on one global batch; returns the steps whose figures can be read by now (on a GPU: earlier ones)."""
    step = run.clock.global_step
    active = activate(run.trainables, step)
    run.optimizers.set_learning_rates(step)
    # Only dropout draws from torch's own generator (and a module that drops ranks from Python's): seeding them by the
    # position makes every step repeatable by itself.
    seed_generators(run.seed * 1_000_003 + step * 1009 + run.processes.index)

    sums, files, timesteps = _forward_and_backward(run, active, micro_batches)
    parameters = [parameter for trainable in active for parameter in trainable.parameters]
    message = torch.cat([sums, sums.new_tensor([float(run.signals.arrived is not None)])])
    message = run.processes.sum_gradients(parameters, message)
    run.precision.unscale(run.optimizers.optimizer, parameters)
    norm = run.optimizers.clip([p for trainable in active for p in trainable.clipped_parameters()])
    for trainable in active:
        trainable.gradients_ready()
    finite = torch.isfinite(norm) & torch.isfinite(message[0])
    rates = run.optimizers.learning_rates
    run.updated_to = step + 1
    run.optimizers.step(finite, run.precision)
    extra = {name: value for trainable in active for name, value in trainable.after_step().items()}

    count = micro_batches[0].true_count
    figures = StepFigures(step + 1, micro_batches[0].epoch, count, files, timesteps, rates, extra)
    still_there = [value.detach().reshape(1).to(message) for value in figures.on_device.values()]
    values = torch.cat([message, norm.reshape(1), *still_there])
    return [_measured(run, *arrived) for arrived in run.readback.push(figures, values)]


def activate(trainables: Sequence[Trainable], step: int) -> list[Trainable]:
    """The trainables that are trained at `step`; the others take no part in the backward pass."""
    active = [trainable for trainable in trainables if trainable.is_active(step)]
    for trainable in trainables:
        if trainable.start_step > 0 or trainable.stop_step is not None:
            for parameter in trainable.parameters:
                parameter.requires_grad_(trainable in active)
    return active


def _forward_and_backward(
    run: Run, active: Sequence[Trainable], micro_batches: Sequence[Batch]
) -> tuple[Tensor, tuple[str, ...], tuple[int, ...]]:
    """Accumulate the gradients of the global batch's share of this process; (2,) sums, files and timesteps."""
    sums = torch.zeros(2, device=run.processes.device)
    files: list[str] = []
    timesteps: list[int] = []
    shares = len(micro_batches) * run.processes.count
    for batch in micro_batches:
        for trainable in active:
            trainable.micro_batch_starts()
        with run.precision.autocast():
            loss = run.objective.loss(batch)
        total = loss.weighted_mean()
        for penalty in (trainable.penalty() for trainable in active):
            if penalty is not None:
                total = total + penalty / shares
        run.precision.backward(total)
        sums += loss.sums()
        files += loss.files
        timesteps += loss.timesteps.tolist()  # drawn on the CPU: nothing waits
    return sums, tuple(files), tuple(timesteps)


def read_the_rest(run: Run) -> list[Measured]:
    """The figures of all steps done so far; waits for the device."""
    return [_measured(run, *arrived) for arrived in run.readback.flush()]


def _measured(run: Run, figures: StepFigures, values: list[float]) -> Measured:
    loss_sum, relative_mse_sum, stop, norm, *rest = values
    figures.extra |= dict(zip(figures.on_device, rest, strict=True))
    if stop:
        run.signals.stop_all()
    loss = loss_sum / figures.count
    bad = run.guard.judge(BadStep(figures.step, loss, norm, figures.files, figures.timesteps))
    return Measured(figures, loss_sum, relative_mse_sum, norm, bad)
