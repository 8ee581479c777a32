"""The state of a run as a folder: place, optimizer, trainables, averages; enough to go on bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from library.errors import UserError
from library.files import read_manifest, read_tensors, write_json, write_tensors
from library.files import write_state as write_state_folder
from library.training.callbacks.validation import Validation
from library.training.optim.state import join_optimizer_state, split_optimizer_state
from library.training.saving.resume import DETAILS, DOUBT, PLACE, read_details, read_place
from library.training.saving.state_differences import HELD_OUT, Difference, Expected
from library.training.work import Work

OPTIMIZER = "optimizer.safetensors"
AVERAGES = "averages.safetensors"


CHANGES = "changes"
"""What `--resume_with_changes` has taken up so far: {"step", "lines"} for each time."""


def write_state(
    folder: Path,
    work: Work,
    validation: Validation,
    expected: Expected,
    best: Sequence[Path] = (),
    changes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write all of it beside `folder` and put it in place at once; a state cut off by a kill is never taken for one.

    `expected` is what a resume must agree with, `best` are the files of the best step so far, which it gets copies of,
    `changes` those that the run has taken on purpose.
    """

    def write(into: Path) -> None:
        for trainable in work.trainables:
            tensors = {name: tensor.detach().contiguous() for name, tensor in trainable.state_dict().items()}
            write_tensors(into / f"{trainable.name}.safetensors", tensors, {})
        if work.averages.is_on:
            write_tensors(into / AVERAGES, work.averages.state_dict(), {})
        tensors, rest = split_optimizer_state(work.optimizers.state_dict())
        write_tensors(into / OPTIMIZER, tensors, {})
        place = {
            "optimizer": rest,
            "current_epoch": work.clock.epochs_done,
            "current_step": work.clock.global_step,
            "journal": work.journal.state_dict(),
            "validation": validation.state_dict(),
            "skipped_steps": work.guard.skipped,
            "guard": work.guard.state_dict(),
            DOUBT: work.guard.doubt,
            "precision": work.precision.state_dict(),
            "fingerprint": dict(expected.fingerprint),
            CHANGES: list(changes),
        }
        write_json(into / DETAILS, expected.details)
        for file in best:
            shutil.copyfile(file, into / file.name)
        write_json(into / PLACE, place)

    write_state_folder(folder, write)


def read_state(folder: Path, work: Work, validation: Validation, expected: Expected) -> list[Difference]:
    """Put a run where the state was written; returns the differences that it takes on purpose.

    Raises `UserError` if the state is of another configuration, or does not fit.
    """
    place = read_place(folder)
    read_manifest(folder, full=True)
    changes = expected.changes(folder, place["fingerprint"], read_details(folder))
    try:
        for trainable in work.trainables:
            tensors, _ = read_tensors(folder / f"{trainable.name}.safetensors")
            trainable.load_state_dict(tensors)
        averages = folder / AVERAGES
        work.averages.load_state_dict(read_tensors(averages)[0] if averages.is_file() else {})
        tensors, _ = read_tensors(folder / OPTIMIZER)
        state = join_optimizer_state(tensors, place["optimizer"])
        work.optimizers.load_state_dict(state, keeps_its_own=bool(changes))
    except (RuntimeError, ValueError, KeyError) as error:
        if not changes:
            raise
        raise UserError(f"{folder} does not fit a run with these changes: {error}; begin a new run instead") from error
    work.clock.global_step = work.updated_to = int(place["current_step"])
    work.journal.load_state_dict(place["journal"])
    if not any(change.name in (HELD_OUT, "validation_seed") for change in changes):
        validation.load_state_dict(place["validation"])  # losses on other pictures tell nothing of these
    work.guard.skipped = int(place["skipped_steps"])
    work.guard.load_state_dict({} if changes else place.get("guard", {}), work.clock.global_step)
    work.precision.load_state_dict(place["precision"])
    return changes


def read_rates(folder: Path) -> list[float | None]:
    """The learning rate of each parameter group in the last step before a state was written."""
    return [
        group.get("lr") if isinstance(group.get("lr"), float) else None
        for group in read_place(folder)["optimizer"]["groups"]
    ]


def read_changes(folder: Path) -> list[Mapping[str, Any]]:
    """What the run of a state had taken up on purpose before it was written."""
    return list(read_place(folder).get(CHANGES, ()))
