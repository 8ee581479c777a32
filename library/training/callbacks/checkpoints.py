"""What a run leaves on disk and takes up again: weights, states, and the oldest of both removed."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from library.atomic import atomic
from library.training.callbacks.overfit_verdict import Course
from library.training.callbacks.retention import Retention
from library.training.callbacks.state import read_changes, read_rates, read_state, write_state
from library.training.callbacks.validation import Validation
from library.training.clock import Clock
from library.training.saving.file_names import SavingSpec, due_stems, outdated
from library.training.saving.resume import LATEST, find_states
from library.training.saving.state_differences import Expected, shortened
from library.training.step import read_the_rest
from library.training.work import Work

Metadata = Callable[[Clock, str], dict[str, str]]
AVERAGED = {"ss_ema_weights": "True"}
"""What the header of a file of averaged weights says of them."""

CHANGES_KEY = "resume_changes"
"""The entry of a file's header with the differences that `--resume_with_changes` took: [{"step", "lines"}] as JSON."""


class Checkpoints:
    """Writes the trainables' files and the run's states when they are due.

    `metadata` gives the text that goes into a file of a kind written at the clock's place; `expected` is what a
    state must agree with; `resume` is the folder of the state to go on from; `validation` knows which step is the best;
    `rates` are the options that set the learning rates, with their values.
    """

    def __init__(
        self,
        spec: SavingSpec,
        metadata: Metadata,
        expected: Expected,
        resume: Path | None,
        validation: Validation,
        rates: Mapping[str, Any] | None = None,
    ) -> None:
        self._spec = spec
        self._metadata = metadata
        self._expected = expected
        self._resume = resume
        self._validation = validation
        self._rates = rates or {}
        self._retention = Retention()
        self.changes: list[Mapping[str, Any]] = []
        self._taken_now = False

    def restore(self, work: Work) -> None:
        """Take up the state that the run resumes, if it does. Raises `UserError` if it is of another configuration."""
        if self._resume is None:
            return
        changes = read_state(self._resume, work, self._validation, self._expected)
        self._take_back_best(work, self._resume)
        work.journal.resumed_from = self._resume
        work.journal.say(f"resumed from {self._resume} at step {work.clock.global_step} of {work.clock.total_steps}")
        lines = [line for change in changes for line in shortened(change.lines)]
        lines += rates_that_jump(self._resume, work)
        for line in lines:
            work.journal.say(line)
        self.changes = read_changes(self._resume)
        self._taken_now = bool(changes)
        if changes:
            self.changes.append({"step": work.clock.global_step, "lines": lines})

        self._retention.replace(work, self._outdated(work))  # what a kill may have left

    def review(self, work: Work) -> None:
        """After every step: tell good states from those that its loss speaks against, and remove what is outdated."""
        self._retention.review(work)

    def way_back(self) -> str:
        """A sentence: the last good state, and what to add to the command to go on from it with lower rates."""
        lower = " ".join(f"--{name} {_tenth(value)}" for name, value in self._rates.items())
        good = find_states(self._spec).good
        if good is None:
            return (
                f"No state from before was saved (`save_state`): begin anew with a lower learning rate, as with {lower}"
            )
        return (
            f"The last good state is {good}; to go on from it with a lower learning rate, add to the same command: "
            f"--resume {shlex.quote(str(good))} --resume_with_changes {lower}"
        )

    def note_changes(self, work: Work) -> None:
        """Write into the log, which is open by now, what the run takes on purpose at this start."""
        if self.changes and self._taken_now:
            work.journal.event("resumed with changes", work.clock, lines=self.changes[-1]["lines"])

    def due(self, clock: Clock) -> bool:
        return bool(due_stems(self._spec, clock))

    def write_if_due(self, work: Work) -> None:
        stems = due_stems(self._spec, work.clock)
        with work.journal.stopwatch.during("saving"):
            for stem in stems:
                written = self._write_both(work, stem)
                if self._spec.save_state:
                    written.append(self._write_state(work, stem))
                self._retention.wrote(work, written)
            if stems:
                self._retention.replace(work, self._outdated(work))

    def write_best(self, work: Work) -> None:
        """The weights of this step, in place of those of the best step before."""
        with work.journal.stopwatch.during("saving"):
            self._write_files(work, self._spec.best_stem, work.measured_weights())

    def best_files(self, work: Work) -> list[Path]:
        """The files of the best step so far, if one is kept."""
        if not self._validation.keeps_best or not self._validation.course.step:
            return []
        return [path for path in self._best_paths(work) if path.is_file()]

    def _best_paths(self, work: Work) -> list[Path]:
        return [self._spec.file(self._spec.best_stem + trainable.file_label) for trainable in work.trainables]

    def write_last(self, work: Work) -> None:
        """The file that the run was for, under its plain name."""
        with work.journal.stopwatch.during("saving"):
            if self._spec.save_state or self._spec.save_state_on_train_end or self._validation.has_seen_enough:
                self._write_state(work, self._spec.last_stem)  # first: it saves the training if no file can be written
            self._write_both(work, self._spec.last_stem)
            self._retention.finish(work)

    def write_at_stop(self, work: Work, reason: Exception) -> None:
        """A state of where the run is, when a signal, the guard or an error ends it.

        None is written where this start made no whole step, or where an update was cut in two.
        """
        if work.clock.global_step in (work.journal.first_step, 0) or work.updated_to != work.clock.global_step:
            work.journal.close()
            return
        work.journal.record(read_the_rest(work))
        stem = self._spec.step_stem(work.clock.global_step)
        if work.processes.is_main:
            self._state(work, self._spec.state(stem))
        self._retention.review(work)
        work.journal.event("stopped", work.clock, reason=str(reason), state=self._spec.state(stem).name)
        way_on = f"go on with --resume {LATEST}, which is --resume {self._spec.state(stem)}"
        if work.guard.doubt:
            way_on = f"the weights are in doubt: {work.guard.doubt}. {self.way_back()}"
        work.journal.say(f"stopped at step {work.clock.global_step}; {way_on}")
        work.journal.close()

    def _write_both(self, work: Work, stem: str) -> list[Path]:
        """The files of the weights, and beside them those of their average where one is kept."""
        paths = self._write_files(work, stem, work.optimizers.weights_for_use())
        if work.averages.is_on:
            paths += self._write_files(work, self._spec.average_stem(stem), work.averages.weights_for_use(), AVERAGED)
        return paths

    def _write_files(
        self, work: Work, stem: str, weights: AbstractContextManager[None], extra: Mapping[str, str] | None = None
    ) -> list[Path]:
        """Each trainable's file with these weights; its header says `said` of them."""
        paths = [self._spec.file(stem + trainable.file_label) for trainable in work.trainables]
        if work.processes.is_main:
            with weights:
                for trainable, path in zip(work.trainables, paths, strict=True):
                    trainable.save(path, self._header(work.clock, trainable.kind) | dict(extra or {}))
                    if path not in work.journal.saved:
                        work.journal.saved.append(path)
                    work.journal.event("saved", work.clock, file=path.name)
        work.processes.wait()
        return paths

    def _header(self, clock: Clock, kind: str) -> dict[str, str]:
        """A file's metadata, with what the run has taken on purpose since it was begun."""
        taken = {CHANGES_KEY: json.dumps(self.changes, ensure_ascii=False)} if self.changes else {}
        return self._metadata(clock, kind) | taken

    def _take_back_best(self, work: Work, state: Path) -> None:
        """Put the best step's files where the state knew them: what came later is not part of the resumed run."""
        if not self._validation.keeps_best:
            return
        kept = {path: state / path.name for path in self._best_paths(work)}
        if self._validation.course.step and not all(copy.is_file() for copy in kept.values()):
            work.journal.say(f"{state} holds no file of its best step; the best from here on is kept")
            self._validation.course = Course()
        elif self._validation.course.step and work.processes.is_main:
            for path, copy in kept.items():
                with atomic(path) as temporary:
                    shutil.copyfile(copy, temporary)
                work.journal.saved.append(path)

    def _write_state(self, work: Work, stem: str) -> Path:
        folder = self._spec.state(stem)
        if work.processes.is_main:
            self._state(work, folder)
            work.journal.saved.append(folder)
            work.journal.event("saved state", work.clock, folder=folder.name)
        work.processes.wait()
        return folder

    def _state(self, work: Work, folder: Path) -> None:
        write_state(folder, work, self._validation, self._expected, self.best_files(work), self.changes)

    def _outdated(self, work: Work) -> list[Path]:
        """Files and states that those written after the step just done replace."""
        stems, states = outdated(self._spec, work.clock)
        stems += [self._spec.average_stem(stem) for stem in stems]
        return [
            self._spec.file(stem + trainable.file_label) for stem in stems for trainable in work.trainables
        ] + states


def rates_that_jump(state: Path, work: Work) -> Iterator[str]:
    """A line for each learning rate that goes on elsewhere than where the state left it.

    A schedule is laid over the whole length of a run: a run made longer gets another one, also where it is now.
    Reads the optimizer's groups as the state left them.
    """
    left = read_rates(state)
    step, total = work.clock.global_step, work.clock.total_steps
    before, after = work.optimizers.rates_of(step - 1), work.optimizers.rates_of(step)
    if before is None or after is None or step == 0 or work.clock.finished:
        return
    for name, old, expected, new in zip(work.optimizers.descriptions, left, before, after, strict=False):
        if old is not None and abs(old - expected) > 1e-3 * max(abs(old), abs(expected)):
            yield (
                f"the learning rate of {name} was {old:.3g} at step {step} and is {new:.3g} now: "
                f"its schedule is laid over {total} steps, and the rate is not the one that the state was trained with"
            )


def _tenth(value: Any) -> str:
    """A tenth of a learning rate, or of each in a list, as the command line takes it."""
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join(f"{0.1 * float(item):.6g}" for item in values)
