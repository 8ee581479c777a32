"""Where a trainer that tells AC-LoRA nothing lets its length and its epoch be seen.

Each finder looks at one place and gives what it found, or None. They are tried in order, the least intrusive first: the
trainer's options, objects that it holds, and last of all the variables of the functions that are running. None of them
changes anything. A trainer's parts move between versions (sd-scripts 0.11 cut its train() into several functions), so a
finder asks for names and kinds, not for places.
"""

from __future__ import annotations

from types import FrameType
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Optional, Sequence

import torch

CALLERS = 8  # functions up from the hook that are looked at
OPTIONS = ("args", "cfg", "config", "options")
HOLDERS = ("self", "trainer", "ctx", "context", "state", "run", *OPTIONS)
TOTALS = ("num_train_epochs", "total_epochs", "max_train_epochs", "num_epochs")


class Found(NamedTuple):
    """A number, and in words where it was found."""

    value: int
    way: str


class TrainerView(NamedTuple):
    """What can be seen from a hook: the trainer's options, where it handed them over, and its running functions."""

    options: Any
    scopes: Sequence[Mapping[str, Any]]


def view_from(frame: Optional[FrameType], options: Any) -> TrainerView:
    """From the function that called a hook, outwards."""
    scopes: list[Mapping[str, Any]] = []
    while frame is not None and len(scopes) < CALLERS:
        scopes.append(frame.f_locals)
        frame = frame.f_back
    return TrainerView(options, scopes)


Finder = Callable[[TrainerView], Optional[Found]]


def first_found(finders: Sequence[Finder], view: TrainerView) -> Optional[Found]:
    for finder in finders:
        found = finder(view)
        if found is not None:
            return found
    return None


def number(value: Any, least: int) -> Optional[int]:
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= least
    return value if is_number else None


def options_of(view: TrainerView) -> Iterator[Any]:
    """The options that were handed over, then those that the trainer's functions and objects have, and their parts."""
    if view.options is not None:
        yield view.options
    in_scopes = [scope[name] for scope in view.scopes for name in OPTIONS if name in scope]
    for options in [*in_scopes, *(value for name, value in held_by(view) if name in OPTIONS)]:
        yield options
        yield from (value for _, value in parts_of(options))


def parts_of(thing: Any) -> list[tuple[str, Any]]:
    """The attributes of a plain object; none of a model or a tensor."""
    if isinstance(thing, (torch.nn.Module, torch.Tensor, type)):
        return []
    return list(getattr(thing, "__dict__", {}).items())


def held_by(view: TrainerView) -> Iterator[tuple[str, Any]]:
    """Attributes of the objects by which trainers hold what belongs together."""
    for scope in view.scopes:
        for name in HOLDERS:
            yield from parts_of(scope.get(name))


# --- how many epochs


def total_epochs_in_options(view: TrainerView) -> Optional[Found]:
    for options in options_of(view):
        epochs = number(getattr(options, "max_train_epochs", None), 1)
        if epochs:
            return Found(epochs, "epochs from max_train_epochs")
    return None


def total_epochs_in_attributes(view: TrainerView) -> Optional[Found]:
    for name, value in held_by(view):
        if name in TOTALS and number(value, 1):
            return Found(value, f"epochs from the trainer's {name}")
    return None


def total_epochs_in_variables(view: TrainerView) -> Optional[Found]:
    for scope in view.scopes:
        for name in TOTALS:
            if number(scope.get(name), 1):
                return Found(scope[name], "epochs from the training function")
    return None


# --- which epoch, from 0


def epoch_in_shared_counter(view: TrainerView) -> Optional[Found]:
    """kohya's `current_epoch`, a counter that data loaders share; it counts from 1."""
    named = [(name, value) for scope in view.scopes for name, value in list(scope.items()) if name == "current_epoch"]
    for name, value in [*named, *held_by(view)]:
        epoch = number(getattr(value, "value", None), 1) if name == "current_epoch" else None
        if epoch:
            return Found(epoch - 1, "the epoch from current_epoch")
    return None


def epoch_in_attributes(view: TrainerView) -> Optional[Found]:
    for name, value in held_by(view):
        if name == "epoch" and number(value, 0) is not None:
            return Found(value, "the epoch from the trainer's attribute")
    return None


def epoch_in_variables(view: TrainerView) -> Optional[Found]:
    for scope in view.scopes:
        if number(scope.get("epoch"), 0) is not None:
            return Found(scope["epoch"], "the epoch from the training function")
    return None


# --- how many optimizer steps


def total_steps_in_options(view: TrainerView) -> Optional[Found]:
    for options in options_of(view):
        steps = number(getattr(options, "max_train_steps", None), 1)
        if steps:
            return Found(steps, "steps from max_train_steps")
    return None


def total_steps_in_variables(view: TrainerView) -> Optional[Found]:
    for scope in view.scopes:
        if number(scope.get("max_train_steps"), 1):
            return Found(scope["max_train_steps"], "steps from the training function")
    return None


TOTAL_EPOCHS: tuple[Finder, ...] = (total_epochs_in_options, total_epochs_in_attributes, total_epochs_in_variables)
EPOCH: tuple[Finder, ...] = (epoch_in_shared_counter, epoch_in_attributes, epoch_in_variables)
TOTAL_STEPS: tuple[Finder, ...] = (total_steps_in_options, total_steps_in_variables)
