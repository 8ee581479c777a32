"""The class of an optimizer by the name of `optimizer_type`. Packages that not every run needs are imported here."""

from __future__ import annotations

import importlib

import torch

from library.config.optimizer_table import NAMES, known
from library.config.suggest import did_you_mean
from library.errors import UserError


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class itself. Raises `UserError` for a name that leads nowhere, and for a package that is not installed."""
    place = known(name)
    try:
        found = getattr(importlib.import_module(place.module), place.class_name)
    except ImportError as error:
        if not place.package:
            raise UserError(_unknown(name)) from None
        raise UserError(
            f"`optimizer_type = {name}` needs the package {place.package}, which cannot be imported ({error}): "
            f"pip install {place.package}"
        ) from None
    except AttributeError:
        raise UserError(_unknown(name)) from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise UserError(f"`optimizer_type = {name}` is not a torch.optim.Optimizer")
    return found


OF_EASY_SCRIPTS = "LoraEasyCustomOptimizer"
"""A package that is not in the registry: it lies in the folder of the program."""


def _unknown(name: str) -> str:
    if name.startswith(f"{OF_EASY_SCRIPTS}."):
        return (
            f"`optimizer_type = {name}` comes with LoRA_Easy_Training_Scripts and is not installed here: pip install "
            "THE_FOLDER/backend/custom_scheduler, or choose another (`Came` is in came-pytorch)"
        )
    classes = [n for n, found in vars(torch.optim).items() if isinstance(found, type) and n != "Optimizer"]
    return (
        f"`optimizer_type = {name}` is not an optimizer that can be imported"
        f"{did_you_mean(name, [*NAMES, *classes])} Known are {', '.join(NAMES)}, the classes of torch.optim, "
        "and any package.module.Class"
    )
