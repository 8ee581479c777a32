"""The state of a run as a folder: place, optimizer, trainables, averages; enough to go on bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from library.errors import UserError
from library.files import read_manifest, read_tensors, write_json, write_tensors
from library.files import write_state as write_state_folder
from library.training.optimizer_state import join_optimizer_state, split_optimizer_state
from library.training.validation import Validation
from library.training.work import Work

Fingerprint = Mapping[str, Any]

PLACE = "train_state.json"
INFORMATION = ("processes", "session", "output_name")  # written down, but not compared
OPTIMIZER = "optimizer.safetensors"


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


def is_state(folder: Path) -> bool:
    """Whether `folder` is a finished state; one cut off while it was written has no manifest."""
    try:
        return bool(read_manifest(folder)) and (folder / PLACE).is_file()
    except (UserError, OSError):
        return False


def read_position(folder: Path) -> int:
    """The optimizer steps done in a state."""
    return int(_place(folder)["current_step"])


def read_fingerprint(folder: Path) -> Fingerprint:
    """The configuration that a state was written under."""
    return _place(folder)["fingerprint"]


def read_state(folder: Path, work: Work, validation: Validation, fingerprint: Fingerprint) -> None:
    """Put a run where the state was written. Raises `UserError` if it is of another configuration."""
    place = _place(folder)
    read_manifest(folder, full=True)
    refuse_differences(folder, place["fingerprint"], fingerprint)
    for trainable in work.trainables:
        tensors, _ = read_tensors(folder / f"{trainable.name}.safetensors")
        trainable.load_state_dict(tensors)
    tensors, _ = read_tensors(folder / OPTIMIZER)
    work.optimizers.load_state_dict(join_optimizer_state(tensors, place["optimizer"]))
    work.clock.global_step = work.updated_to = int(place["current_step"])
    work.journal.load_state_dict(place["journal"])
    validation.load_state_dict(place["validation"])
    work.guard.skipped = int(place["skipped_steps"])
    work.precision.load_state_dict(place["precision"])


def refuse_differences(folder: Path, theirs: Fingerprint, ours: Fingerprint) -> None:
    """Raise `UserError` that spells out what differs between a state's configuration and this run's."""
    compared = [name for name in {**theirs, **ours} if name not in INFORMATION]
    names = [name for name in compared if _plain(theirs.get(name)) != _plain(ours.get(name))]
    if names:
        lines = "\n".join(f"  - {name}: {theirs.get(name)} in the state, {ours.get(name)} now" for name in names)
        raise UserError(
            f"{folder} is a state of another configuration:\n{lines}\n"
            "Give the state's values again to go on with it, or train anew without --resume"
        )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _place(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / PLACE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a state of this trainer: {PLACE} cannot be read ({error})") from None
