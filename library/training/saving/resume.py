"""States on disk: which folders are whole, what they say of themselves, and which one a run goes on from."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.config.spec import declared, spec
from library.errors import UserError
from library.files import read_manifest, write_json
from library.training.saving.file_names import SavingSpec, states_of
from library.training.saving.state_differences import Details, Fingerprint

logger = logging.getLogger(__name__)

LATEST = "latest"
DOUBT = "doubt"
DOUBT_FILE = "doubt.json"
PLACE = "train_state.json"
DETAILS = "data.json"
"""The data that a state was trained on, picture by picture; states of earlier versions have none."""


@spec
class ResumeSpec:
    """The options on the state that a run goes on from; field names are the options'."""

    resume: str | None = declared
    resume_with_changes: bool = declared


def is_state(folder: Path) -> bool:
    """Whether `folder` is a finished state; one cut off while it was written has no manifest."""
    try:
        return bool(read_manifest(folder)) and (folder / PLACE).is_file()
    except (UserError, OSError):
        return False


def write_doubt(folder: Path, doubt: str | None) -> None:
    """Note beside a finished state what a later loss says against its weights; None takes it back."""
    write_json(folder / DOUBT_FILE, {DOUBT: doubt})


def read_doubt(folder: Path) -> str | None:
    """What speaks against the weights of a state: losses far outside of what its run had seen."""
    try:
        return json.loads((folder / DOUBT_FILE).read_text(encoding="utf-8"))[DOUBT]
    except (OSError, ValueError, KeyError, TypeError):
        return read_place(folder).get(DOUBT)


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


def state_to_resume(spec: SavingSpec, resume: str | None) -> Path | None:
    """The state folder that `resume` names: a path, or "latest" for the furthest good one of the newest run of a name.

    None for a new run, and for `latest` where there is no state yet, so that a run can be started again and again with
    the same command. Raises `UserError` for a folder that is no finished state, and where no state is good.
    """
    if not resume:
        return None
    if resume == LATEST:
        return _latest_state(spec)
    folder = Path(resume)
    if not is_state(folder):
        why = "is not a folder" if not folder.is_dir() else "has no complete manifest, so it is not a finished state"
        raise UserError(f"`resume = {resume}` {why}; give a folder ending in -state, or {LATEST}")
    if read_doubt(folder):
        logger.info(f"{folder} is gone on from although {read_doubt(folder)}")
    return folder


def _latest_state(spec: SavingSpec) -> Path | None:
    found = find_states(spec)
    for line in found.passed_over:
        logger.info(line)
    if found.good:
        return found.good
    if found.unchanged:
        logger.info(f"{found.unchanged} is taken all the same: there is no other, and steps left out change no weight")
        return found.unchanged
    if found.passed_over:
        raise UserError(
            f"`resume = {LATEST}`: {'; '.join(found.passed_over)}; there is no other state of this run. "
            "Delete these folders to start anew, or give one of them to go on from it all the same"
        )
    logger.info(f"`resume = {LATEST}`: no state of '{spec.last_stem}' is in {spec.output_dir}: this is a new run")
    return None


@dataclass(frozen=True)
class FoundStates:
    """The furthest good state of the newest run of a name, and a line for each that is further or cannot be read.

    `unchanged` is the furthest that is in doubt for steps alone that were left out, and so have changed no weight.
    """

    good: Path | None
    passed_over: list[str]
    unchanged: Path | None = None


def find_states(spec: SavingSpec) -> FoundStates:
    """Look for the state that `latest` means.

    Runs are told apart by the session in their states, and the newest is the one whose log lies there (a new run sets
    an older one's aside), else the one that was begun last. Folder times say nothing: copying changes them.
    """
    mine: dict[Path, Fingerprint] = {}
    passed_over = []
    for folder in sorted(states_of(spec)):
        try:
            marks = read_fingerprint(folder)
        except (UserError, KeyError, TypeError):
            passed_over.append(f"{folder} is damaged and cannot be read")
            continue
        if marks.get("output_name") == spec.output_name:
            mine[folder] = marks
    session, resumed_from = _session_of_log(spec.log)
    if session is None and mine:
        session = max(mine.items(), key=lambda item: _begun(*item))[1].get("session")
    of_run = [folder for folder, marks in mine.items() if marks.get("session") == session]
    before = [folder for folder in mine if folder.name == resumed_from and folder not in of_run]
    unchanged = None
    for folder in sorted(of_run, key=read_position, reverse=True) + before:
        damage = _damage(folder)
        against = damage or read_doubt(folder)
        if against is None:
            return FoundStates(folder, passed_over, unchanged)
        passed_over.append(f"{folder} is passed over: {against}")
        if unchanged is None and not damage and not read_place(folder).get("guard", {}).get("changed", True):
            unchanged = folder
    return FoundStates(None, passed_over, unchanged)


def _damage(folder: Path) -> str | None:
    try:
        read_manifest(folder, full=True)
    except (UserError, OSError) as error:
        return f"it is damaged and cannot be read ({error})"
    return None


def _begun(folder: Path, marks: Fingerprint) -> float:
    """When the run of a state was begun; states of earlier versions know only when they were written."""
    return float(marks.get("begun") or folder.stat().st_mtime)


def _session_of_log(log: Path) -> tuple[int | None, str | None]:
    """The session that wrote a log last, and the name of the state that it went on from; None where not known."""
    last: dict[str, Any] = {}
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"event": "settings"' in line[:100]:
                    with suppress(ValueError):
                        last = json.loads(line)
    except OSError:
        return None, None
    return last.get("session"), last.get("resumed_from")
