"""One optimizer step with gradient accumulation: forward and backward over its micro-batches, one exchange between
processes, the update."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from library.data.batches import Batch
from library.data.keys import seed_generators
from library.training.nan_guard import BadStep
from library.training.step_figures import Measured, StepFigures
from library.training.trainables import Trainable
from library.training.work import Work


def take_step(work: Work, micro_batches: Sequence[Batch]) -> list[Measured]:
    """Train on one global batch; returns the steps whose figures can be read by now (on a GPU: earlier ones)."""
    step = work.clock.global_step
    active = activate(work.trainables, step)
    work.optimizers.set_learning_rates(step)
    # Only dropout draws from torch's own generator (and a module that drops ranks from Python's): seeding them by the
    # position makes every step repeatable by itself.
    seed_generators(work.seed * 1_000_003 + step * 1009 + work.processes.index)

    work.objective.step_starts(micro_batches, work.processes.gather)
    sums, files, timesteps = _forward_and_backward(work, active, micro_batches)
    parameters = [parameter for trainable in active for parameter in trainable.parameters]
    asked_to_stop = torch.full((1,), float(work.signals.arrived is not None), device=sums.device)
    message = torch.cat([sums, asked_to_stop])
    message = work.processes.sum_gradients(parameters, message)
    work.precision.unscale(work.optimizers.optimizer, parameters)
    norm = work.optimizers.clip([p for trainable in active for p in trainable.clipped_parameters()])
    for trainable in active:
        trainable.gradients_ready()
    finite = torch.isfinite(norm) & torch.isfinite(message[0])
    rates = work.optimizers.learning_rates
    work.updated_to = step + 1
    work.optimizers.step(finite, work.precision)
    extra = {name: value for trainable in active for name, value in trainable.after_step().items()}
    work.averages.update(active)

    count = micro_batches[0].true_count
    figures = StepFigures(step + 1, micro_batches[0].epoch, count, files, timesteps, rates, extra)
    still_there = [value.detach().reshape(1).to(message) for value in figures.on_device.values()]
    values = torch.cat([message, norm.reshape(1), *still_there])
    return [_measured(work, *arrived) for arrived in work.readback.push(figures, values)]


def activate(trainables: Sequence[Trainable], step: int) -> list[Trainable]:
    """The trainables that are trained at `step`; the others take no part in the backward pass."""
    active = [trainable for trainable in trainables if trainable.is_active(step)]
    for trainable in trainables:
        if trainable.start_step > 0 or trainable.stop_step is not None:
            for parameter in trainable.parameters:
                parameter.requires_grad_(trainable in active)
    return active


def _forward_and_backward(
    work: Work, active: Sequence[Trainable], micro_batches: Sequence[Batch]
) -> tuple[Tensor, tuple[str, ...], tuple[int, ...]]:
    """Accumulate the gradients of the global batch's share of this process; (2,) sums, files and timesteps."""
    sums = torch.zeros(2, device=work.processes.device)
    files: list[str] = []
    timesteps: list[int] = []
    shares = len(micro_batches) * work.processes.count
    for batch in micro_batches:
        for trainable in active:
            trainable.micro_batch_starts()
        with work.precision.autocast():
            loss = work.objective.loss(batch)
        total = loss.weighted_mean()
        for penalty in (trainable.penalty() for trainable in active):
            if penalty is not None:
                total = total + penalty / shares
        work.precision.backward(total)
        sums += loss.sums()
        files += loss.files
        timesteps += loss.timesteps.tolist()  # drawn on the CPU: nothing waits
    return sums, tuple(files), tuple(timesteps)


def read_the_rest(work: Work) -> list[Measured]:
    """The figures of all steps done so far; waits for the device."""
    return [_measured(work, *arrived) for arrived in work.readback.flush()]


def _measured(work: Work, figures: StepFigures, values: list[float]) -> Measured:
    loss_sum, relative_mse_sum, stop, norm, *rest = values
    figures.extra |= dict(zip(figures.on_device, rest, strict=True))
    if stop:
        work.signals.stop_all()
    loss = loss_sum / figures.count
    bad = work.guard.judge(BadStep(figures.step, loss, norm, figures.files, figures.timesteps))
    return Measured(figures, loss_sum, relative_mse_sum, norm, bad)
