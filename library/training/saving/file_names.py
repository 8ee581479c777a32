"""What a run's files are called and which old ones go, by kohya's rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from library.config.finished_work import EXTENSIONS
from library.config.spec import declared, spec
from library.errors import UserError
from library.training.clock import Clock, Epochs, Steps


@spec
class SavingSpec:
    """The options on what is saved and when; field names are the options'."""

    output_dir: Path
    output_name: str | None = declared
    save_model_as: str = declared
    save_precision: str | None = declared
    save_every_n_epochs: int | None = declared
    save_every_n_steps: int | None = declared
    save_n_epoch_ratio: int | None = declared
    save_last_n_epochs: int | None = declared
    save_last_n_epochs_state: int | None = declared
    save_last_n_steps: int | None = declared
    save_last_n_steps_state: int | None = declared
    save_state: bool = declared
    save_state_on_train_end: bool = declared

    @property
    def extension(self) -> str:
        return EXTENSIONS[self.save_model_as]

    def epoch_stem(self, epoch: int) -> str:
        return f"{self.output_name or 'epoch'}-{epoch:06d}"

    def step_stem(self, step: int) -> str:
        return f"{self.output_name or 'at'}-step{step:08d}"

    @property
    def last_stem(self) -> str:
        return self.output_name or "last"

    @property
    def best_stem(self) -> str:
        return f"{self.output_name}-best" if self.output_name else "best"

    @staticmethod
    def average_stem(stem: str) -> str:
        """That of the file of the averaged weights, beside the one called `stem`."""
        return f"{stem}-ema"

    def file(self, stem: str) -> Path:
        return self.output_dir / f"{stem}{self.extension}"

    def state(self, stem: str) -> Path:
        return self.output_dir / f"{stem}-state"

    @property
    def log(self) -> Path:
        return self.output_dir / f"{self.last_stem}-log.jsonl"

    @property
    def page(self) -> Path:
        """What `library.report` writes of that log."""
        return self.output_dir / f"{self.last_stem}-report.html"

    @property
    def sheet(self) -> Path:
        """The samples of before the training beside those of its end."""
        return self.output_dir / f"{self.last_stem}-before_after.png"

    def every_n_epochs(self, total_epochs: int) -> int | None:
        """`save_every_n_epochs`, or from `save_n_epoch_ratio`: at least that many files over the run."""
        if self.save_n_epoch_ratio:
            return max(1, total_epochs // self.save_n_epoch_ratio)
        return self.save_every_n_epochs


def check_names(spec: SavingSpec) -> None:
    """Refuse an `output_name` whose longest file name no file system takes, before anything is trained."""
    longest = f".{spec.step_stem(10**8)}-state.tmp-000000-0000000000-old"
    if len(longest.encode()) > 255:
        raise UserError(f"`output_name` is too long by {len(longest.encode()) - 255} bytes for the names of states")


def due_stems(spec: SavingSpec, clock: Clock) -> list[str]:
    """Stems of the intermediate files that are due after the step just done; the last epoch has no file of its own."""
    stems = []
    if spec.save_every_n_steps and clock.is_due(Steps(spec.save_every_n_steps)):
        stems.append(spec.step_stem(clock.global_step))
    every = spec.every_n_epochs(clock.total_epochs)
    if every and not clock.finished and clock.is_due(Epochs(every)):
        stems.append(spec.epoch_stem(clock.epochs_done))
    return stems


def outdated(spec: SavingSpec, clock: Clock) -> tuple[list[str], list[Path]]:
    """Stems of the files, and the state folders, that those written after this step replace, by `save_last_n_*`."""
    files: list[str] = []
    states: list[Path] = []
    every = spec.every_n_epochs(clock.total_epochs)
    if every and clock.is_due(Epochs(every)) and not clock.finished:
        stem = _epoch_to_remove(spec, clock.epochs_done, every, spec.save_last_n_epochs)
        files += [stem] if stem else []
        kept = spec.save_last_n_epochs_state or spec.save_last_n_epochs
        stem = _epoch_to_remove(spec, clock.epochs_done, every, kept)
        states += [spec.state(stem)] if stem else []
    if spec.save_every_n_steps and clock.is_due(Steps(spec.save_every_n_steps)):
        stem = _step_to_remove(spec, clock.global_step, spec.save_every_n_steps, spec.save_last_n_steps)
        files += [stem] if stem else []
        kept = spec.save_last_n_steps_state or spec.save_last_n_steps
        stem = _step_to_remove(spec, clock.global_step, spec.save_every_n_steps, kept)
        states += [spec.state(stem)] if stem else []
    return files, states


def _epoch_to_remove(spec: SavingSpec, epoch: int, every: int, kept: int | None) -> str | None:
    number = epoch - every * kept if kept else 0
    return spec.epoch_stem(number) if number > 0 else None


def _step_to_remove(spec: SavingSpec, step: int, every: int, kept_steps: int | None) -> str | None:
    # kohya counts steps here, not files, and rounds down to the last one that has a file.
    number = step - kept_steps - 1 if kept_steps else 0
    number -= number % every
    return spec.step_stem(number) if number > 0 else None


def states_of(spec: SavingSpec) -> Iterable[Path]:
    """State folders of this run's name in its output folder, finished or not."""
    stems = (re.escape(spec.last_stem), re.escape(spec.output_name or "epoch"), re.escape(spec.output_name or "at"))
    name = re.compile(rf"(?:{stems[0]}|{stems[1]}-\d{{6,}}|{stems[2]}-step\d{{8,}})-state")
    if spec.output_dir.is_dir():
        yield from (folder for folder in spec.output_dir.iterdir() if name.fullmatch(folder.name))
