"""What a pivot is called, what decides its result, and whether it has been trained to its end already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from library.config.option import THROUGH, Option, Settings
from library.config.options.averaging import AVERAGES
from library.config.spec import declared
from library.errors import UserError
from library.files import file_hash, read_metadata
from library.training.saving.file_names import SavingSpec, states_of
from library.training.saving.fingerprint import by_content
from library.training.saving.resume import LATEST, ResumeSpec, is_state, read_position
from library.training.saving.state_differences import PATHS_OF_MODELS
from restoration.options import (
    DEGRADATION,
    FOLDERS_OF_FACES,
    OPTIMIZER_HERE,
    TEXT,
    PersonFileSpec,
    restoration_spec,
    settings_of,
)

FIRST_MARK = """
    pretrained_model_name_or_path controlnet_model_name_or_path cleaner prompt class_prompt pivot seed mixed_precision
    learning_rate prior_loss_weight in_context high_noise_text gamma min_timestep max_timestep train_batch_size
    network_module network_dim network_alpha network_args network_dropout scale_weight_norms resolution
    v_parameterization zero_terminal_snr
""".split()  # noqa: SIM905 (a fact about files of earlier versions, in the order of their digests: never to be changed)
OF_STEP_2 = ("identities", "unet_weights")  # they count with what their files hold
MARK = "pivot_settings"
"""The entry of a file's header that says by what it was decided."""


@restoration_spec
class PivotSpec:
    """The options of one pivot's training, as `settings_of` has them; field names are the options'."""

    learning_rate: float
    max_train_steps: int
    train_batch_size: int = declared
    prior_loss_weight: float = declared
    cache_conditions: bool = declared
    resolution: int | None = declared
    cleaner: str | None = declared
    network_module: str | None = declared
    network_args: Sequence[str] | None = declared
    config_file: Path | None = declared


def person_file(settings: Settings) -> Path:
    """The G_p that step 2 and restoring use."""
    return settings.take(PersonFileSpec).g_p


def decided_by(settings: Settings, pivot: str) -> str:
    """A digest of all that decides a pivot's result but its length: options, models, pictures, and for step 2 its G_p.

    Models and pictures count by what they hold, wherever they lie. An option at its default is left out, so that one
    that comes later makes no older file another one.
    """
    own = settings_of(settings, pivot)
    decisive = _decisive(own)
    facts = {name: _held(Path(v)) if name in PATHS_OF_MODELS else by_content(v) for name, v in decisive.items()}
    if pivot != TEXT:
        facts |= {"identities": own["identities"], "G": _held(person_file(settings))}
    return _digest(facts | _rate(own, pivot) | _pictures(own))


def _decisive(own: Settings) -> dict[str, Any]:
    names = [name for name, option in own.options.items() if _decides_a_pivot(option) and own[name] != option.default]
    return {name: own[name] for name in sorted(names)}


def _rate(own: Settings, pivot: str) -> dict[str, Any]:
    return {"learning_rate": own["learning_rate"], "pivot": pivot}


def _held(path: Path) -> Any:
    """A file, or the files below a folder, by their contents."""
    if path.is_dir():
        return [(str(file.relative_to(path)), file_hash(file)) for file in sorted(path.rglob("*")) if file.is_file()]
    return by_content(path)


def _decides_a_pivot(option: Option) -> bool:
    """Whether it decides a pivot's own file; its average lies in another, and a rate is known by the pivot's own."""
    if option in AVERAGES or option.inert or option.name in OF_STEP_2:
        return False
    return option.has_result or (option.decides is THROUGH and not option.in_tables)


def decided_by_before(settings: Settings, pivot: str) -> tuple[str, str]:
    """The same as files of two earlier versions have it, by paths and times, so that none of them is trained anew."""
    own = settings_of(settings, pivot)
    groups = (OPTIMIZER_HERE, DEGRADATION)
    names = [*FIRST_MARK, *(o.name for group in groups for o in group if not o.is_flag)]
    facts = _pictures(own)
    if pivot != TEXT:
        facts |= {"identities": own["identities"], "G": _mark_of(person_file(settings))}
    return _digest(_decisive(own) | _rate(own, pivot) | facts), _digest({name: own[name] for name in names} | facts)


def _pictures(own: Settings) -> dict[str, Any]:
    return {name: list(_contents(own[name])) if own[name] else None for name in FOLDERS_OF_FACES}


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]


def is_finished(settings: Settings, pivot: str) -> bool:
    """True where `--resume latest` finds the pivot's file with all its steps, decided by what would decide it now."""
    if settings.take(ResumeSpec).resume != LATEST:
        return False
    own = settings_of(settings, pivot)
    spec, steps = own.take(SavingSpec), own.take(PivotSpec).max_train_steps
    file = spec.file(spec.last_stem)
    if not file.is_file():
        return False
    try:
        header = read_metadata(file)
    except UserError:
        return False  # damaged: it is made again
    if any(_is_unfinished(state, file, steps) for state in states_of(spec)):
        return False
    finished = int(header.get("ss_steps", 0)) >= steps
    return finished and header.get(MARK) in (decided_by(settings, pivot), *decided_by_before(settings, pivot))


def _is_unfinished(state: Path, file: Path, steps: int) -> bool:
    """Whether a state is of a later run than the file, and has steps to go."""
    newer = state.stat().st_mtime > file.stat().st_mtime
    return newer and is_state(state) and read_position(state) < steps


def _contents(folder: Path) -> Iterator[tuple[str, str]]:
    yield from sorted((path.name, file_hash(path)) for path in folder.iterdir() if path.is_file())


def _mark_of(file: Path) -> Any:
    """What tells one writing of a file from another; None where there is no file."""
    if not file.is_file():
        return None
    try:
        written = read_metadata(file).get("ss_training_finished_at")
    except UserError:
        written = None
    return written or file.stat().st_mtime_ns
