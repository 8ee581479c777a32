"""A run put together from an objective, trainables and batches: what every command does alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.atomic import sweep_temporaries
from library.config.option import Settings
from library.console import Console, ConsoleSpec
from library.errors import DiskFull, raise_all
from library.files import check_free_space, check_writable
from library.training.callbacks.checkpoints import Checkpoints, Metadata
from library.training.callbacks.report import ReportSpec, RunReport
from library.training.callbacks.samples import Previews
from library.training.callbacks.validation import Validation
from library.training.clock import Clock
from library.training.log.header import Opening, settings_event
from library.training.log.journal import Journal
from library.training.log.timing import Stopwatch
from library.training.log.trackers import TrackerSpec, check_trackers, create_trackers
from library.training.nan_guard import Guard
from library.training.objectives import Objective
from library.training.optim.lr_schedulers import ScheduleSpec, create_schedule
from library.training.optim.optimizers import Optimizers, OptimizerSpec, create_optimizer, trial_optimizer
from library.training.optim.weight_averages import AverageSpec, WeightAverages
from library.training.run import Run
from library.training.runtime.distributed import Processes
from library.training.runtime.environment import Environment
from library.training.saving.file_names import SavingSpec, check_names
from library.training.saving.fingerprint import expected_state
from library.training.saving.lock import OutputLock
from library.training.saving.resume import ResumeSpec, read_fingerprint, state_to_resume
from library.training.saving.state_differences import Details, Fingerprint
from library.training.signals import Signals
from library.training.trainables import Trainable
from library.training.work import BatchSource


@dataclass(frozen=True)
class Resumed:
    """The state that a run goes on from, and the configuration that it was written under; both None for a new run."""

    folder: Path | None
    fingerprint: Fingerprint | None


def check_surroundings(settings: Settings, *, tidy: bool = True) -> Resumed:
    """What can be wrong with outputs, optimizer, trackers and the state to resume. Raises `UserError`.

    `tidy` removes what killed runs left in the output folder.
    """
    saving = settings.take(SavingSpec)
    raise_all(check_writable(saving.output_dir))
    if tidy:
        sweep_temporaries(saving.output_dir)
    trial_optimizer(settings.take(OptimizerSpec))
    check_names(saving)
    check_trackers(settings.take(TrackerSpec))
    folder = state_to_resume(saving, settings.take(ResumeSpec).resume)
    return Resumed(folder, read_fingerprint(folder) if folder else None)


def check_free_disk(output_dir: Path, trainables: Sequence[Trainable]) -> None:
    """Refuse a disk that has no room for what the trainables write."""
    check_disk(output_dir, sum(parameter.nbytes for trainable in trainables for parameter in trainable.parameters))


def check_disk(output_dir: Path, weights: int) -> None:
    """Refuse a disk that has no room for a file of `weights` bytes, its temporary copy and a state."""
    raise_all(check_free_space(output_dir, 6 * weights + 2**20), DiskFull)


def build_optimizers(
    settings: Settings, trainables: Sequence[Trainable], clock: Clock, processes: Processes
) -> tuple[Optimizers, list[str]]:
    """One optimizer over the groups of all trainables with its rates over the run, and lines worth knowing of them."""
    spec, schedule = settings.take(OptimizerSpec), settings.take(ScheduleSpec)
    groups = [group for trainable in trainables for group in trainable.parameter_groups()]
    names = [name for trainable in trainables for name in trainable.group_names]
    optimizer, notes = create_optimizer(spec, groups)
    rates = None if spec.has_own_rates else create_schedule(schedule, clock.total_steps, optimizer)
    return Optimizers(optimizer, rates, names, spec.max_grad_norm, spec.arguments), notes


def check_rates(settings: Settings, total_steps: int) -> None:
    """Refuse a schedule that does not fit the length of the run, before a model is loaded. Raises `UserError`."""
    spec = settings.take(OptimizerSpec)
    if not spec.has_own_rates:
        create_schedule(settings.take(ScheduleSpec), total_steps, trial_optimizer(spec))


def assemble(
    settings: Settings,
    environment: Environment,
    resumed: Resumed,
    *,
    objective: Objective,
    trainables: Sequence[Trainable],
    batches: BatchSource,
    clock: Clock,
    optimizers: Optimizers,
    metadata: Metadata,
    fingerprint: Fingerprint,
    details: Details | None = None,
    previews: Previews,
    rates: Mapping[str, Any] | None = None,
    validation: Validation | None = None,
    opening: Opening = (),
    stopwatch: Stopwatch | None = None,
) -> Run:
    """The run, ready for the loop. `fingerprint` is what a state must agree with, `details` what its digests were made
    of; `rates` are the options that set its learning rates (else those of every training), `opening` events for the
    log's beginning, and `stopwatch` has measured what came before the loop."""
    saving, processes = settings.take(SavingSpec), environment.processes
    marks = {**fingerprint, "session": environment.session, "output_name": saving.output_name, "begun": time.time()}
    if resumed.fingerprint and resumed.fingerprint.get("session") == environment.session:
        marks["begun"] = resumed.fingerprint.get("begun")
    trackers = create_trackers(settings.take(TrackerSpec), settings.public()) if processes.is_main else ()
    names = [trainable.name for trainable in trainables]
    console = Console(settings.take(ConsoleSpec))
    log = saving.log if processes.is_main else None
    started = {"session": environment.session, "resumed_from": resumed.folder.name if resumed.folder else None}
    opening = [settings_event(settings) | started, *opening]
    validation = validation or Validation()
    expected = expected_state(settings, marks, details)
    rates = (
        {n: settings[n] for n, option in settings.options.items() if option.is_rate and settings[n]}
        if rates is None
        else rates
    )
    checkpoints = Checkpoints(saving, metadata, expected, resumed.folder, validation, rates)
    return Run(
        objective=objective,
        trainables=trainables,
        optimizers=optimizers,
        batches=batches,
        clock=clock,
        checkpoints=checkpoints,
        journal=Journal(log, clock, trackers, names, console, opening, stopwatch),
        previews=previews,
        precision=environment.precision,
        guard=Guard(scaled=environment.precision.scaler.is_enabled()),
        signals=Signals(shared=processes.count > 1),
        lock=OutputLock(saving.output_dir if processes.is_main else None, saving.last_stem),
        processes=processes,
        seed=environment.seed,
        validation=validation,
        averages=WeightAverages(settings.take(AverageSpec), trainables),
        report=RunReport(log if settings.take(ReportSpec).report else None, (checkpoints, previews), (validation,)),
        updated_to=clock.global_step,
    )
