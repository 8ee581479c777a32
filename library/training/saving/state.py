"""The state of a run as a folder: place, optimizer, trainables, averages; enough to go on bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from library.files import read_manifest, read_tensors, write_json, write_tensors
from library.files import write_state as write_state_folder
from library.training.callbacks.validation import Validation
from library.training.optim.state import join_optimizer_state, split_optimizer_state
from library.training.saving.resume import PLACE, Fingerprint, read_place, refuse_differences
from library.training.work import Work

OPTIMIZER = "optimizer.safetensors"
AVERAGES = "averages.safetensors"


def write_state(
    folder: Path, work: Work, validation: Validation, fingerprint: Fingerprint, best: Sequence[Path] = ()
) -> None:
    """Write all of it beside `folder` and put it in place at once; a state cut off by a kill is never taken for one.

    `best` are the files of the best step so far, which it gets copies of.
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
            "precision": work.precision.state_dict(),
            "fingerprint": dict(fingerprint),
        }
        for file in best:
            shutil.copyfile(file, into / file.name)
        write_json(into / PLACE, place)

    write_state_folder(folder, write)


def read_state(folder: Path, work: Work, validation: Validation, fingerprint: Fingerprint) -> None:
    """Put a run where the state was written. Raises `UserError` if it is of another configuration."""
    place = read_place(folder)
    read_manifest(folder, full=True)
    refuse_differences(folder, place["fingerprint"], fingerprint)
    for trainable in work.trainables:
        tensors, _ = read_tensors(folder / f"{trainable.name}.safetensors")
        trainable.load_state_dict(tensors)
    averages = folder / AVERAGES
    work.averages.load_state_dict(read_tensors(averages)[0] if averages.is_file() else {})
    tensors, _ = read_tensors(folder / OPTIMIZER)
    work.optimizers.load_state_dict(join_optimizer_state(tensors, place["optimizer"]))
    work.clock.global_step = work.updated_to = int(place["current_step"])
    work.journal.load_state_dict(place["journal"])
    validation.load_state_dict(place["validation"])
    work.guard.skipped = int(place["skipped_steps"])
    work.precision.load_state_dict(place["precision"])
