"""Whether a pivot has been trained to its end by an earlier start of the same command."""

from __future__ import annotations

from library.config.option import Settings
from library.errors import UserError
from library.files import read_metadata
from library.training.checkpoints import LATEST
from library.training.file_names import SavingSpec


def is_finished(settings: Settings) -> bool:
    """True where `--resume latest` finds the pivot's file with all its steps, made by the same words, rate and seed.

    The settings are the pivot's.
    """
    if settings["resume"] != LATEST:
        return False
    spec = settings.take(SavingSpec)
    file = spec.file(spec.last_stem)
    if not file.is_file():
        return False
    try:
        header = read_metadata(file)
    except UserError:
        return False  # damaged: it is made again
    same = {"pivot_prompt": "prompt", "ss_learning_rate": "learning_rate", "ss_seed": "seed"}
    agrees = all(header.get(entry) == str(settings[name]) for entry, name in same.items())
    return agrees and int(header.get("ss_steps", 0)) >= settings["max_train_steps"]
