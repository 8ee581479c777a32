"""States on disk: which folders are whole, what they say of themselves, and which one a run goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from library.errors import UserError
from library.files import read_manifest
from library.training.saving.file_names import SavingSpec, states_of
from library.training.saving.state_differences import Details, Fingerprint

LATEST = "latest"
PLACE = "train_state.json"
DETAILS = "data.json"
"""The data that a state was trained on, picture by picture; states of earlier versions have none."""


def is_state(folder: Path) -> bool:
    """Whether `folder` is a finished state; one cut off while it was written has no manifest."""
    try:
        return bool(read_manifest(folder)) and (folder / PLACE).is_file()
    except (UserError, OSError):
        return False


def read_position(folder: Path) -> int:
    """The optimizer steps done in a state."""
    return int(read_place(folder)["current_step"])


def read_course(folder: Path) -> dict[str, Any]:
    """The held-out losses up to a state, as `Validation` takes them up."""
    return read_place(folder)["validation"]


def read_fingerprint(folder: Path) -> Fingerprint:
    """The configuration that a state was written under."""
    return read_place(folder)["fingerprint"]


def read_details(folder: Path) -> Details:
    """What the digests in a state's fingerprint were made of; empty where it does not tell."""
    try:
        return json.loads((folder / DETAILS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_place(folder: Path) -> dict[str, Any]:
    """All that a state says beside its tensors. Raises `UserError` where it cannot be read."""
    try:
        return json.loads((folder / PLACE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a state of this trainer: {PLACE} cannot be read ({error})") from None


def state_to_resume(spec: SavingSpec, resume: str | None, say: Callable[[str], None]) -> Path | None:
    """The state folder that `resume` names: a path, or "latest" for the furthest one of the newest run of this name.

    None for a new run, and for `latest` where there is no state yet, so that a run can be started again and again with
    the same command. Raises `UserError` for a folder that is no finished state, and where all states are damaged.
    """
    if not resume:
        return None
    if resume == LATEST:
        return _latest_state(spec, say)
    folder = Path(resume)
    if not is_state(folder):
        why = "is not a folder" if not folder.is_dir() else "has no complete manifest, so it is not a finished state"
        raise UserError(f"`resume = {resume}` {why}; give a folder ending in -state, or {LATEST}")
    return folder


def _latest_state(spec: SavingSpec, say: Callable[[str], None]) -> Path | None:
    folders = sorted(states_of(spec))
    whole = [folder for folder in folders if is_state(folder)]
    damaged = [folder for folder in folders if folder not in whole]
    if damaged and not whole:
        raise UserError(
            f"`resume = {LATEST}`: {', '.join(map(str, damaged))} cannot be read, and there is no other state; "
            "delete it to start anew, or give a state folder"
        )
    for folder in damaged:
        say(f"{folder} is damaged and passed over")
    mine = [folder for folder in whole if read_fingerprint(folder).get("output_name") == spec.output_name]
    if not mine:
        say(f"`resume = {LATEST}`: no state of '{spec.last_stem}' is in {spec.output_dir}: this is a new run")
        return None
    newest = max(mine, key=lambda folder: folder.stat().st_mtime_ns)
    session = read_fingerprint(newest).get("session")
    return max((f for f in mine if read_fingerprint(f).get("session") == session), key=read_position)
