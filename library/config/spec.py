"""What a part takes of the options, as a dataclass whose fields are the declared options themselves.

    @spec
    class LossSpec:
        loss_type: str = declared

The name of a field is the option's, and so is its default; `Settings.take(LossSpec)` fills it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, dataclass_transform

from library.config.option import Option, by_name
from library.config.options.train_network import ALL_TRAIN_NETWORK

T = TypeVar("T")
OPTIONS = by_name(ALL_TRAIN_NETWORK)

declared: Any = dataclasses.field()
"""The default of a field whose option says it."""


@dataclass_transform(frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """A frozen dataclass of options of train_network.py. An unknown one is a mistake in the program."""
    return _completed(cls, OPTIONS)


@dataclass_transform(frozen_default=True)
def spec_of(*groups: Iterable[Option]) -> Callable[[type[T]], type[T]]:
    """The same of the options of other groups."""
    options = by_name(groups)

    def decorate(cls: type[T]) -> type[T]:
        return _completed(cls, options)

    return decorate


def option_of(field: dataclasses.Field[Any]) -> Option | None:
    """The declaration that a field of a spec carries."""
    return field.metadata.get("option")


def _completed(cls: type[T], options: dict[str, Option]) -> type[T]:
    for name in inspect.get_annotations(cls):
        if cls.__dict__.get(name) is declared:
            if name not in options:
                raise TypeError(f"{cls.__name__}.{name} is no option")
            setattr(cls, name, dataclasses.field(default=options[name].default, metadata={"option": options[name]}))
    return dataclasses.dataclass(frozen=True)(cls)
