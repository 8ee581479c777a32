"""Modules that people name in their config: found, imported, and their options checked before anything is created."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from library import kohya_names
from library.config.module_search import PACKAGES, where_it_may_be
from library.config.suggest import did_you_mean
from library.errors import Problem, UserError, raise_all

# kohya's trainer puts its own folder on the path, so that `networks.lora` resolves wherever the script is started.
ROOT = Path(__file__).resolve().parents[3]


def import_plugin(name: str, option: str, functions: Sequence[str], beside: Path | None = None) -> ModuleType:
    """The module `name`, which must offer `functions`; what it imports of kohya's `library` is there for it.

    It is looked up in the environment, PYTHONPATH and this project's folder; then in the current folder and in that of
    the file `beside`, a config. Raises `UserError` where it cannot be found, needs what is not there, or is no such
    plugin; any other error inside the module keeps its traceback.
    """
    kohya_names.offer()
    with _name_missing_parts(name, option):
        spec = _find(name, [Path.cwd(), *([beside.absolute().parent] if beside else [])])
        if spec is None:
            raise UserError(_not_found(name, option))
        module = importlib.import_module(spec.name)
    missing = [function for function in functions if not callable(getattr(module, function, None))]
    if missing:
        raise UserError(f"`{option} = {name}` has no function {missing[0]}(), so it is not a module for this option")
    return module


def _find(name: str, folders: Sequence[Path]) -> ModuleSpec | None:
    # `sd_scripts.networks.lora` is how LoRA_Easy_Training_Scripts names kohya's modules.
    names = dict.fromkeys([name, name.removeprefix("sd_scripts.")])
    importlib.invalidate_caches()  # a file may have come since the last look
    for folder in [None, ROOT, *folders]:
        if folder is not None and str(folder) not in sys.path:
            sys.path.append(str(folder))  # at the end: it hides nothing that was found without it
        for spelling in names:
            if (spec := _spec(spelling)) is not None:
                return spec
    return None


def _spec(name: str) -> ModuleSpec | None:
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        # A package on the way is not there; one that is there and fails to import says so itself.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise


def _not_found(name: str, option: str) -> str:
    text = f"`{option} = {name}` cannot be found"
    package = PACKAGES.get(name.partition(".")[0])
    if package:
        return f"{text}; it comes with the package {package}: pip install {package}"
    if name.endswith(".py") or "/" in name or "\\" in name:
        stem = re.split(r"[/\\]", name)[-1].removesuffix(".py")
        return f"{text}: a module is named without folder and ending. Put it beside the config and write `{stem}`"
    if name.removeprefix("sd_scripts.").startswith("networks."):
        text += f"; {where_it_may_be(name).rstrip('.')}"
    return (
        f"{text}; it is an import path such as networks.lora, looked up in the current environment, PYTHONPATH, "
        "this project's folder, the current folder and the config's"
    )


@contextlib.contextmanager
def _name_missing_parts(name: str, option: str) -> Iterator[None]:
    """An import that fails because of what is not there becomes a message with the name of what is missing."""
    try:
        yield
    except ImportError as error:
        if wanted := kohya_names.unknown_import(error):
            raise UserError(
                f"`{option} = {name}` imports `{wanted}`, a part of kohya's sd-scripts that is not here; what modules "
                f"may import of it is {kohya_names.offered_text()}"
            ) from error
        if isinstance(error, ModuleNotFoundError) and error.name:
            top = error.name.partition(".")[0]
            if top == "networks":
                raise UserError(
                    f"`{option} = {name}` imports `{error.name}`, which cannot be found; put that file beside the "
                    "module's, where it lies in sd-scripts too"
                ) from error
            raise UserError(
                f"`{option} = {name}` imports `{error.name}`, which cannot be found; install the package that it comes "
                f"with ({PACKAGES.get(top, top)}), or put the file beside the module's"
            ) from error
        if error.name == "networks.lora":
            raise UserError(
                f"`{option} = {name}` builds on the inside of kohya's own networks/lora.py ({error}), which is not "
                "that of this project; it runs in sd-scripts only"
            ) from error
        raise


def notes_on(module: ModuleType) -> list[str]:
    """What may go wrong with a module later, a line each: its functions import what of kohya's `library` is missing."""
    source = getattr(module, "__file__", None)
    if source is None or not source.endswith(".py"):
        return []
    return [
        f"{module.__name__} imports `{name}` of kohya's sd-scripts in a function ({source} line {line}); it is not "
        "here, and whatever calls that function fails"
        for line, name in kohya_names.unknown_imports_in_functions(Path(source))
    ]


@contextlib.contextmanager
def telling(who: str) -> Iterator[None]:
    """A ValueError of a plugin, its way of refusing something, becomes a message without a traceback.

    So does an assertion of a module that is not ours, with its place; one of ours is a bug and stays one.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(f"{who}: {error}") from error
    except AssertionError as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        if Path(place.filename).is_relative_to(ROOT) and not _is_installed(place.filename):
            raise
        what = str(error) or f"`{place.line}` does not hold"
        raise UserError(f"{who}: {what} ({place.filename} line {place.lineno}); look at its network_args") from error


def _is_installed(file: str) -> bool:
    return "site-packages" in Path(file).parts  # an environment may lie in this project's folder


def check_call(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
    """Raise `UserError` where a plugin's function does not take these arguments.

    Asked of the signature: what is raised inside the function is its own affair, a TypeError too.
    """
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except TypeError as error:
        name = f"{function.__module__}.{function.__name__}()"
        raise UserError(f"{name} does not take what kohya's trainers and `network_args` give it: {error}") from error


def taken(function: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `keywords` that a function's signature has room for."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(keywords)
    return {name: value for name, value in keywords.items() if name in parameters}


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


def check_length(module: ModuleType | None, arguments: Mapping[str, str], total_epochs: int, total_steps: int) -> None:
    """Refuse a run too short for a module's method to do anything, where the module can tell (`length_problems`)."""
    problems = getattr(module, "length_problems", None)
    if module is not None and problems is not None:
        with telling(f"`network_module = {module.__name__}`"):
            raise_all([Problem(line) for line in problems(arguments, total_epochs, total_steps)])
