"""What a network tool needs before it starts: a device to calculate on, and a place for its file."""

from __future__ import annotations

from pathlib import Path

import torch

from library.errors import UserError, raise_all
from library.files import check_writable


def chosen_device(name: str) -> torch.device:
    """The device that `device` names. Raises `UserError` where it is none or is not there."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device, dtype=torch.float64)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"`device` is `{name}`, which cannot be used here ({reason}); give cpu") from error
    return device


def check_target(path: Path, *, folder: bool = False) -> None:
    """Raise `UserError` if `path` cannot be written, is a folder where none is meant, or one with anything in it.

    A folder takes the place of what was there as a whole, so one that holds something is never written.
    """
    if path.is_dir() and not folder:
        raise UserError(f"`save_to` is the folder `{path}`; give the name of a file in it")
    if folder and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        raise UserError(f"`save_to` is `{path}`, which is there already; give the name of a new folder for the model")
    raise_all(check_writable(path.parent))
