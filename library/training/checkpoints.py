"""What a run leaves on disk and takes up again: weights, states, and the oldest of both removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from library.errors import UserError
from library.files import is_state
from library.training.clock import Clock
from library.training.file_names import SavingSpec, due_stems, outdated, states_of
from library.training.state import Fingerprint, read_position, read_state, write_state

if TYPE_CHECKING:
    from library.training.run import Run

LATEST = "latest"
Metadata = Callable[[Clock], dict[str, str]]


class Checkpoints:
    """Writes the trainables' files and the run's states when they are due.

    `metadata` gives the text that goes into a file written at the clock's place; `fingerprint` is what a state must
    agree with; `resume` is a state folder, or "latest" for the furthest one of this run's name.
    """

    def __init__(self, spec: SavingSpec, metadata: Metadata, fingerprint: Fingerprint, resume: str | None) -> None:
        self._spec = spec
        self._metadata = metadata
        self._fingerprint = fingerprint
        self._resume = resume

    def restore(self, run: Run) -> None:
        """Take up the state that `resume` names; a new run, and `latest` where there is none yet, start at the beginning.

        Raises `UserError` for a folder that is no state, or whose state is of another configuration.
        """
        if not self._resume:
            return
        folder = self.latest_state() if self._resume == LATEST else Path(self._resume)
        if folder is None:
            run.journal.say(f"no state of {self._spec.last_stem} in {self._spec.output_dir} yet: starting anew")
            return
        read_state(folder, run, self._fingerprint)
        run.journal.resumed_from = folder
        run.journal.say(f"resumed from {folder} at step {run.clock.global_step} of {run.clock.total_steps}")

    def latest_state(self) -> Path | None:
        """The complete state of this run's name that is furthest; half-written ones do not count."""
        states = [folder for folder in states_of(self._spec) if is_state(folder)]
        return max(states, key=lambda folder: (read_position(folder), folder.stat().st_mtime_ns), default=None)

    def due(self, clock: Clock) -> bool:
        return bool(due_stems(self._spec, clock))

    def write_if_due(self, run: Run) -> None:
        stems = due_stems(self._spec, run.clock)
        for stem in stems:
            self._write_files(run, stem)
            if self._spec.save_state:
                self._write_state(run, stem)
        if stems:
            self._prune(run)

    def write_last(self, run: Run) -> None:
        """The file that the run was for, under its plain name."""
        self._write_files(run, self._spec.last_stem)
        if self._spec.save_state or self._spec.save_state_on_train_end:
            self._write_state(run, self._spec.last_stem)

    def write_at_stop(self, run: Run, reason: Exception) -> None:
        """A state of where the run stands, when a signal or the guard ends it."""
        stem = self._spec.step_stem(run.clock.global_step)
        self._write_state(run, stem)
        run.journal.event("stopped", run.clock, reason=str(reason))
        run.journal.say(
            f"stopped at step {run.clock.global_step}; go on with --resume {self._spec.state(stem)} (or --resume {LATEST})"
        )
        run.journal.close()

    def _write_files(self, run: Run, stem: str) -> None:
        if run.processes.is_main:
            path = self._spec.file(stem)
            for trainable in run.trainables:
                trainable.save(path, self._metadata(run.clock))
            run.journal.saved.append(path)
            run.journal.event("saved", run.clock, file=path.name)
        run.processes.wait()

    def _write_state(self, run: Run, stem: str) -> None:
        if run.processes.is_main:
            folder = self._spec.state(stem)
            write_state(folder, run, self._fingerprint)
            run.journal.saved.append(folder)
            run.journal.event("saved state", run.clock, folder=folder.name)
        run.processes.wait()

    def _prune(self, run: Run) -> None:
        if not run.processes.is_main:
            return
        files, states = outdated(self._spec, run.clock)
        for path in files:
            path.unlink(missing_ok=True)
        for folder in states:
            shutil.rmtree(folder, ignore_errors=True)
        run.journal.saved = [path for path in run.journal.saved if path not in files + states]


def check_resume(resume: str | None) -> None:
    """Refuse a state that cannot be one, before a model is loaded."""
    if resume and resume != LATEST and not is_state(Path(resume)):
        folder = Path(resume)
        why = "is not a folder" if not folder.is_dir() else "has no complete manifest, so it is not a finished state"
        raise UserError(f"`resume = {resume}` {why}; give a folder ending in -state, or latest")
