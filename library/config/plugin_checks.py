"""What of the modules, classes and arguments that an option names would stop the start; nothing of them is imported.

A module is looked up as an import would find it; of torch's classes the text of its files is asked, which takes no
second where the import takes several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from library.config.declared_options import declared_options
from library.config.module_search import is_importable, is_nowhere, nearest_module, where_it_may_be
from library.config.optimizer_table import NAMES, known
from library.config.option import Settings
from library.config.plugin_arguments import parse_arguments
from library.config.suggest import did_you_mean
from library.config.values import plugin_arguments
from library.errors import Problem, UserError


def plugin_problems(settings: Settings) -> list[Problem]:
    """For `parse(checks=...)`."""
    checks = (
        the_network_module_is_there,
        plugins_know_their_arguments,
        arguments_are_literals,
        the_optimizer_is_there,
        the_scheduler_is_there,
    )
    return [replace(problem, understood=True) for check in checks for problem in check(settings)]


def the_network_module_is_there(settings: Settings) -> Iterator[Problem]:
    """Where no module of nearly the same name is, which `checks` tell."""
    name, config = settings["network_module"], settings["config_file"]
    if name is not None and is_nowhere(name, config) and nearest_module(name, config) is None:
        yield Problem(f"{settings.place('network_module')} is {name!r}, which cannot be found; {where_it_may_be(name)}")


def plugins_know_their_arguments(settings: Settings) -> Iterator[Problem]:
    """Of a module whose file declares its options; others are asked once they are imported."""
    for option, argument in (("network_module", "network_args"), ("embedding_initializer", "initializer_args")):
        name, arguments = settings[option], plugin_arguments(settings[argument])
        if not name or not arguments:
            continue
        known = declared_options(name, arguments, settings["config_file"])
        if known is None:
            continue
        for given in arguments:
            if given not in known:
                yield Problem(f"{settings.place(argument)}: {name} has no option `{given}`{did_you_mean(given, known)}")


def arguments_are_literals(settings: Settings) -> Iterator[Problem]:
    for name in ("optimizer_args", "lr_scheduler_args"):
        try:
            parse_arguments(settings[name] or (), name)
        except UserError as error:
            yield Problem(f"{str(error).replace(f'`{name}`', settings.place(name), 1)}.")


def the_optimizer_is_there(settings: Settings) -> Iterator[Problem]:
    name, place = settings["optimizer_type"], known(settings["optimizer_type"])
    if place.package and not is_importable(place.module):
        yield Problem(
            f"{settings.place('optimizer_type')} = {name} needs the package {place.package}: "
            f"`pip install {place.package}`, or choose another optimizer."
        )
    elif not place.package and not class_exists(place.module, place.class_name, "torch.optim"):
        yield Problem(
            f"{settings.place('optimizer_type')} = {name} is not an optimizer that can be imported"
            f"{did_you_mean(name, NAMES)} Known are {', '.join(NAMES)}, the classes of torch.optim, and any "
            "package.module.Class that is installed."
        )


def the_scheduler_is_there(settings: Settings) -> Iterator[Problem]:
    name = settings["lr_scheduler_type"]
    module, _, class_name = name.rpartition(".")
    if name and not class_exists(module or "torch.optim.lr_scheduler", class_name, "torch.optim.lr_scheduler"):
        ours = " (`lr_scheduler` = rex needs no class)" if class_name.lower().startswith("rex") else ""
        yield Problem(
            f"{settings.place('lr_scheduler_type')} = {name} is not a class that can be imported{ours}; give one of "
            "torch.optim.lr_scheduler, such as CosineAnnealingLR, or package.module.Class."
        )


def class_exists(module: str, class_name: str, of_torch: str) -> bool:
    """Whether a module can be found, and where it is torch's own, whether its text names the class."""
    if not class_name.isidentifier() or not is_importable(module):
        return False
    torch = find_spec("torch")
    if module != of_torch or torch is None or torch.origin is None:
        return True
    place = Path(torch.origin).parent.joinpath(*of_torch.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return True  # another layout of torch: the start will tell
    return re.search(rf"\b{class_name}\b", text) is not None
