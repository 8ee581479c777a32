"""One attempt at a job in this process: trained by the same code as train_network.py, on the resident model."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from library.atomic import NO_ROOM as NO_ROOM_NUMBERS
from library.batch.baseline import look_at_the_model
from library.batch.engines import assignment as kinds
from library.batch.engines.assignment import Assignment, Outcome
from library.batch.jobs.ledger import BY_USER, STOPPED
from library.batch.model_cache import ResidentModel
from library.batch.results.peak_memory import Peak
from library.batch.results.results import outputs_of, results_of, steps_in
from library.config.checks import problems
from library.config.datasets import dataset_problems, plan_datasets
from library.config.option import Settings
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.console import Console, ConsoleSpec, log_to, show
from library.errors import DiskFull, Interrupted, UserError
from library.training.loop import fit
from library.training.saving.file_names import SavingSpec
from library.training.setup.build import build_run
from library.training.setup.checks import check_before_loading
from library.training.signals import Signals

logger = logging.getLogger(__name__)

POLL = 0.5  # seconds between two looks for a stop file


class TrainerHere:
    """Trains in this process; the model stays between jobs."""

    def __init__(self, device: str = "") -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.models = ResidentModel()

    def train(self, assignment: Assignment) -> Outcome:
        """Make one attempt; what a job raises becomes its outcome, with the traceback of a fault on stderr."""
        peak, settings, steps = Peak(), None, 0
        if assignment.beside and assignment.beside not in sys.path:
            sys.path.append(assignment.beside)
        try:
            settings = read_settings(assignment)
            self._attempt(settings, assignment)
            saving = settings.take(SavingSpec)
            outcome = Outcome(outputs=outputs_of(saving), results=results_of(saving))
        except Exception as error:
            outcome = outcome_of(error)
        if outcome.stopped and any(map(os.path.exists, assignment.stop_files)):
            outcome = replace(outcome, message="asked to stop", signal=None)
        if settings is not None:
            steps = steps_in(settings.take(SavingSpec).log)
        forget_plugins(settings)
        gc.collect()
        if line := self.models.check():
            show(f"note: {line}", file=sys.stderr)
        return replace(outcome, steps=steps, peak_gb=peak.gigabytes())

    def _attempt(self, settings: Settings, assignment: Assignment) -> None:
        plan = plan_datasets(settings)
        log_to(Console(settings.take(ConsoleSpec)))
        for line in settings.notes():
            logger.info(line)
        checked = check_before_loading(settings, plan)
        if not assignment.trains:
            look_at_the_model(checked, self.models.load)
            return
        run = build_run(checked, load=self.models.load)
        with run.lock, run.signals, stopping_for(assignment.stop_files, run.signals):
            fit(run)

    def close(self) -> None:
        self.models.drop()


def read_settings(assignment: Assignment) -> Settings:
    """The options of the attempt, as train_network.py reads them from its file."""
    argv = ["--config_file", assignment.config, *(["--resume", "latest"] if assignment.resume else [])]
    checks = (problems, dataset_problems) if assignment.trains else (dataset_problems,)
    return parse(argv, *ALL_TRAIN_NETWORK, prog="train_network.py", description="", checks=checks)


@contextmanager
def stopping_for(files: tuple[str, ...], signals: Signals) -> Iterator[None]:
    """Ask the run to stop at the end of a step, with a state, once one of the files is there."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            if any(os.path.exists(file) for file in files):
                signals.arrived = signals.arrived or signal.SIGTERM
                return

    thread = threading.Thread(target=watch, name="stop file", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def outcome_of(error: Exception) -> Outcome:
    """What an exception says of its attempt: whose doing it was, in one sentence."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)  # pyright: ignore[reportArgumentType]
    if isinstance(error, Interrupted):
        number = error.exit_code - 128
        return Outcome(STOPPED, f"stopped by {signal.Signals(number).name}", signal=number)
    if any(isinstance(e, DiskFull) or (isinstance(e, OSError) and e.errno in NO_ROOM_NUMBERS) for e in chain):
        return Outcome(kinds.NO_ROOM, str(error))
    if any(isinstance(e, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(e) for e in chain):
        return Outcome(kinds.OUT_OF_MEMORY, str(error).splitlines()[0])
    if isinstance(error, UserError):
        show(f"error: {error}", file=sys.stderr)
        return Outcome(BY_USER, str(error))
    traceback.print_exception(error)
    return Outcome(kinds.FAULT, f"{type(error).__name__}: {error}")


def forget_plugins(settings: Settings | None) -> None:
    """Let the network module and the initializer of a job be imported anew by the next one.

    Some keep settings of one network in their classes (LyCORIS its preset): another network would begin with them.
    """
    names = [settings[name] for name in ("network_module", "embedding_initializer")] if settings else []
    homes = {name.partition(".")[0] for name in names if name} - {"library"}
    for name in [name for name in sys.modules if name.partition(".")[0] in homes]:
        del sys.modules[name]
