"""What a run's files are called and which old ones go, by kohya's rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from library.training.clock import Clock, Epochs, Steps

EXTENSIONS = {"safetensors": ".safetensors", "ckpt": ".ckpt", "pt": ".pt"}


@dataclass(frozen=True)
class SavingSpec:
    """The options on what is saved and when; field names are the options'."""

    output_dir: Path
    output_name: str | None = None
    save_model_as: str = "safetensors"
    save_every_n_epochs: int | None = None
    save_every_n_steps: int | None = None
    save_n_epoch_ratio: int | None = None
    save_last_n_epochs: int | None = None
    save_last_n_epochs_state: int | None = None
    save_last_n_steps: int | None = None
    save_last_n_steps_state: int | None = None
    save_state: bool = False
    save_state_on_train_end: bool = False

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

    def file(self, stem: str) -> Path:
        return self.output_dir / f"{stem}{self.extension}"

    def state(self, stem: str) -> Path:
        return self.output_dir / f"{stem}-state"

    @property
    def log(self) -> Path:
        return self.output_dir / f"{self.last_stem}-log.jsonl"

    def every_n_epochs(self, total_epochs: int) -> int | None:
        """`save_every_n_epochs`, or from `save_n_epoch_ratio`: at least that many files over the run."""
        if self.save_n_epoch_ratio:
            return max(1, total_epochs // self.save_n_epoch_ratio)
        return self.save_every_n_epochs


def due_stems(spec: SavingSpec, clock: Clock) -> list[str]:
    """Stems of the intermediate files that are due after the step just done; the last epoch has no file of its own."""
    stems = []
    if spec.save_every_n_steps and clock.is_due(Steps(spec.save_every_n_steps)):
        stems.append(spec.step_stem(clock.global_step))
    every = spec.every_n_epochs(clock.total_epochs)
    if every and not clock.finished and clock.is_due(Epochs(every)):
        stems.append(spec.epoch_stem(clock.epochs_done))
    return stems


def outdated(spec: SavingSpec, clock: Clock) -> tuple[list[Path], list[Path]]:
    """The file(s) and the state folder(s) that the ones written after this step replace, by `save_last_n_*`."""
    files: list[Path] = []
    states: list[Path] = []
    every = spec.every_n_epochs(clock.total_epochs)
    if every and clock.is_due(Epochs(every)) and not clock.finished:
        stem = _epoch_to_remove(spec, clock.epochs_done, every, spec.save_last_n_epochs)
        files += [spec.file(stem)] if stem else []
        kept = spec.save_last_n_epochs_state or spec.save_last_n_epochs
        stem = _epoch_to_remove(spec, clock.epochs_done, every, kept)
        states += [spec.state(stem)] if stem else []
    if spec.save_every_n_steps and clock.is_due(Steps(spec.save_every_n_steps)):
        stem = _step_to_remove(spec, clock.global_step, spec.save_every_n_steps, spec.save_last_n_steps)
        files += [spec.file(stem)] if stem else []
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
    stem = spec.output_name
    patterns = [f"{stem}-state", f"{stem}-[0-9]*-state", f"{stem}-step[0-9]*-state"] if stem else []
    patterns += [] if stem else ["last-state", "epoch-[0-9]*-state", "at-step[0-9]*-state"]
    for pattern in patterns:
        yield from spec.output_dir.glob(_literal(pattern, stem))


def _literal(pattern: str, stem: str | None) -> str:
    if not stem:
        return pattern
    import glob

    return glob.escape(stem) + pattern[len(stem) :]
