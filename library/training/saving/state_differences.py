"""What differs between a state and the run that would resume it, by option, dataset key, picture and caption."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.errors import UserError

Fingerprint = Mapping[str, Any]
Details = Mapping[str, Any]
"""What a digest in a fingerprint was made of, under the digest's name."""

SUBSETS = "options of the datasets"
PICTURES = "images, masks, captions and buckets"
HELD_OUT = f"held-out {PICTURES}"
MODEL = "weights of the base model"
SOURCE = "base model"
"""Where the base model lay: written down for the message, never compared."""
INFORMATION = ("processes", "session", "begun", "output_name", SOURCE)  # written down, but not compared
PATHS_OF_MODELS = ("pretrained_model_name_or_path", "vae", "controlnet_model_name_or_path")
"""Compared by the weights alone; states of earlier versions name the paths, too."""
NOTED_LATER = (HELD_OUT, "validation_seed")
"""What states of earlier versions lack: where it is absent, nothing is compared."""
CONTENT = "sha256:"
"""Begins the digest of a file that an option names; earlier versions wrote the file's path."""
MOST_LINES = 8
WHAT = {"content": "the picture itself", "mask": "its mask", "bucket": "its bucket", "caption": "its caption"}


@dataclass(frozen=True)
class Difference:
    """One entry of the fingerprint that is another one, and a line for each thing that differs in it."""

    name: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Expected:
    """What a run expects of the state that it goes on from.

    A state whose differences touch nothing `fixed`, the options that give its tensors their shapes, may be gone on from
    `with_changes`. `details` are what digests in the fingerprint were made of; `presumed` is what a state means that
    says nothing.
    """

    fingerprint: Fingerprint
    details: Details = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    with_changes: bool = False
    presumed: Fingerprint = field(default_factory=dict)

    def changes(self, folder: Path, theirs: Fingerprint, details: Details) -> list[Difference]:
        """The differences of the state in `folder` that this run takes on purpose. Raises `UserError` for others."""
        found = list(differences({**self.presumed, **theirs}, self.fingerprint, details, self.details))
        fixed = [difference.name for difference in found if difference.name in self.fixed]
        if found and (fixed or not self.with_changes):
            raise UserError(_refusal(folder, found, fixed))
        return found


def differences(
    theirs: Fingerprint, ours: Fingerprint, their_details: Details | None = None, our_details: Details | None = None
) -> Iterator[Difference]:
    """Where a state's configuration (`theirs`) and this run's differ."""
    their_details, our_details = their_details or {}, our_details or {}
    for name in {**theirs, **ours}:
        if (name not in ours and name in PATHS_OF_MODELS) or name in INFORMATION:
            continue
        if name in NOTED_LATER and name not in theirs:
            continue
        if name not in theirs and not ours.get(name):
            continue  # an option that the version which wrote the state did not have, and that is off
        old, new = _plain(theirs.get(name)), _plain(ours.get(name))
        if isinstance(new, dict) and isinstance(old, list):
            old = dict(old)  # as earlier versions wrote it
        if old != new and not _is_path_of_before(old, new):
            lines = list(_explained(name, their_details.get(name), our_details.get(name)))
            if isinstance(old, dict) and isinstance(new, dict):
                lines = list(_of_files(old, new))
            yield Difference(name, lines or [_line(name, old, new, theirs, ours)])
    for name in (PICTURES, HELD_OUT):  # a fingerprint made before the pictures are read has no digest of them
        if name not in ours and name in their_details and name in our_details:
            lines = list(_explained(name, their_details[name], our_details[name]))
            if lines:
                yield Difference(name, lines)


def _refusal(folder: Path, found: Sequence[Difference], fixed: Sequence[str]) -> str:
    lines = [line for difference in found for line in shortened(difference.lines)]
    text = f"{folder} is a state of another configuration:\n" + "\n".join(f"  - {line}" for line in lines)
    text += "\nGive the state's values again to go on with it exactly"
    if fixed:
        text += f" ({', '.join(fixed)} cannot change within a run: the state's tensors are made for it)"
    else:
        text += ", add --resume_with_changes to go on with these differences on purpose"
    return f"{text}, or begin a new run from its weights{_weights_of(folder)}, without --resume"


def _weights_of(folder: Path) -> str:
    """How a new run takes up the weights that were saved with a state, if there are any."""
    stem = folder.name.removesuffix("-state")
    files = [folder.with_name(stem + extension) for extension in (".safetensors", ".ckpt", ".pt")]
    return next((f" (--network_weights {file})" for file in files if file.is_file()), " (--network_weights)")


def shortened(lines: Sequence[str]) -> Iterator[str]:
    """The first lines, and how many more there are."""
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"and {len(lines) - MOST_LINES} more like these"


def _line(name: str, old: Any, new: Any, theirs: Fingerprint, ours: Fingerprint) -> str:
    if name == MODEL:
        old, new = f"{old} ({theirs.get(SOURCE, 'a path not noted')})", f"{new} ({ours.get(SOURCE)})"
    return f"{name}: {old} in the state, {new} now"


def _explained(name: str, old: Any, new: Any) -> Iterable[str]:
    """Lines on what a digest was made of; none where one side does not tell."""
    if old is None or new is None:
        return ()
    old, new = _plain(old), _plain(new)
    return _of_subsets(old, new) if name == SUBSETS else _of_pictures(old, new, "held-out " if name == HELD_OUT else "")


def _of_subsets(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(old) != len(new):
        folders = [", ".join(str(subset.get("folder")) for subset in subsets) for subsets in (old, new)]
        yield f"folders of the datasets: {folders[0]} in the state, {folders[1]} now"
        return
    for one, other in zip(old, new, strict=True):
        for key in {**one, **other}:
            if key != "folder" and one.get(key) != other.get(key):
                yield f"`{key}` of {other.get('folder')}: {one.get(key)} in the state, {other.get(key)} now"


def _of_pictures(old: Mapping[str, Any], new: Mapping[str, Any], kind: str) -> Iterator[str]:
    for name in {**old, **new}:
        if name not in new:
            yield f"{kind}{name}: in the state, not there now"
        elif name not in old:
            yield f"{kind}{name}: not in the state, there now"
        else:
            yield from (f"{kind}{name}: {line}" for line in _of_picture(old[name], new[name]))


def _of_files(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    rows = [{name: {"content": content} for name, content in files.items()} for files in (old, new)]
    yield from _of_pictures(rows[0], rows[1], "")


def _of_picture(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key, spoken in WHAT.items():
        one, other = old.get(key), new.get(key)
        if one == other or (key == "content" and None in (one, other)):  # not read yet
            continue
        if key in ("content", "mask") and None not in (one, other):
            yield f"{spoken} is another one"
        else:
            yield f"{spoken} is {other!r} now, {one!r} in the state"


def _is_path_of_before(old: Any, new: Any) -> bool:
    """Whether a state of an earlier version names a path where content is compared now."""
    first_old, first_new = (value[0] if isinstance(value, list) and value else value for value in (old, new))
    return str(first_new).startswith(CONTENT) and first_old is not None and not str(first_old).startswith(CONTENT)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
