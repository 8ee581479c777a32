"""The state of a run as a folder: place, optimizer, trainables, averages; enough to go on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.errors import UserError
from library.files import read_tensors, read_torch, write_json, write_state_folder, write_tensors, write_torch

if TYPE_CHECKING:
    from library.training.run import Run

Fingerprint = Mapping[str, Any]

PLACE = "train_state.json"
OPTIMIZER = "optimizer.bin"


def write_state(folder: Path, run: Run, fingerprint: Fingerprint) -> None:
    """Write all of it beside `folder` and put it in place at once; a state cut off by a kill is never taken for one."""

    def write(into: Path) -> None:
        for trainable in run.trainables:
            tensors = {name: tensor.detach().contiguous() for name, tensor in trainable.state_dict().items()}
            write_tensors(into / f"{trainable.name}.safetensors", tensors, {})
        write_torch(into / OPTIMIZER, run.optimizers.state_dict())
        place = {
            "current_epoch": run.clock.epochs_done,
            "current_step": run.clock.global_step,
            "journal": run.journal.state_dict(),
            "guard": run.guard.state_dict(),
            "precision": run.precision.state_dict(),
            "fingerprint": dict(fingerprint),
        }
        write_json(into / PLACE, place)

    write_state_folder(folder, write)


def read_position(folder: Path) -> int:
    """The optimizer steps done in a state."""
    return int(_place(folder)["current_step"])


def read_state(folder: Path, run: Run, fingerprint: Fingerprint) -> None:
    """Put `run` where the state was written. Raises `UserError` if it is of another configuration."""
    place = _place(folder)
    refuse_differences(folder, place["fingerprint"], fingerprint)
    for trainable in run.trainables:
        tensors, _ = read_tensors(folder / f"{trainable.name}.safetensors")
        trainable.load_state_dict(tensors)
    run.optimizers.load_state_dict(read_torch(folder / OPTIMIZER))
    run.clock.global_step = int(place["current_step"])
    run.journal.load_state_dict(place["journal"])
    run.guard.load_state_dict(place["guard"])
    run.precision.load_state_dict(place["precision"])


def refuse_differences(folder: Path, theirs: Fingerprint, ours: Fingerprint) -> None:
    """Raise `UserError` that spells out what differs between a state's configuration and this run's."""
    names = [name for name in {**theirs, **ours} if _plain(theirs.get(name)) != _plain(ours.get(name))]
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
