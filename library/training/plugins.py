"""Modules that people name in their config: found, imported, and their options checked before anything is created."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from library.config.suggest import did_you_mean
from library.errors import UserError

# kohya's trainer puts its own folder on the path, so that `networks.lora` resolves wherever the script is started.
ROOT = Path(__file__).resolve().parents[2]


def import_plugin(name: str, option: str, functions: Sequence[str]) -> ModuleType:
    """The module `name`, which must offer `functions`.

    Raises `UserError` where it cannot be found or is no such plugin; an error inside the module keeps its traceback.
    """
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            f"`{option} = {name}` cannot be found; it is an import path such as networks.lora, "
            "looked up in the current environment, PYTHONPATH and this project's folder"
        )
    module = importlib.import_module(name)
    missing = [function for function in functions if not callable(getattr(module, function, None))]
    if missing:
        raise UserError(f"`{option} = {name}` has no function {missing[0]}(), so it is not a module for this option")
    return module


@contextlib.contextmanager
def telling(who: str) -> Iterator[None]:
    """A ValueError of a plugin, its way of refusing something, becomes a message without a traceback."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{who}: {error}") from error


def check_arguments(module: ModuleType, arguments: Mapping[str, str], option: str) -> None:
    """Refuse arguments that a module's declared options do not know; one that declares none checks them itself.

    What is known is its `OPTIONS`, or `known_options(arguments)` where that depends on the arguments.
    """
    known = module.known_options(arguments) if hasattr(module, "known_options") else getattr(module, "OPTIONS", None)
    if known is None:
        return
    for name in arguments:
        if name not in known:
            raise UserError(f"`{option}`: {module.__name__} has no option `{name}`{did_you_mean(name, known)}")
