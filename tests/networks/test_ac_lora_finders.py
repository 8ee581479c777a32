"""What AC-LoRA can see of a trainer that tells it nothing: each finder alone."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from networks import ac_lora_finders as finders
from networks.ac_lora_finders import Found, TrainerView


def seen(options: Any = None, *scopes: dict[str, Any]) -> TrainerView:
    return TrainerView(options, scopes)


@pytest.mark.parametrize(
    "view",
    [
        seen(SimpleNamespace(max_train_epochs=12)),
        seen(None, {"args": SimpleNamespace(max_train_epochs=12)}),
        seen(None, {"cfg": SimpleNamespace(training=SimpleNamespace(max_train_epochs=12))}),
        seen(None, {"self": SimpleNamespace(args=SimpleNamespace(max_train_epochs=12))}),
    ],
    ids=["handed over", "variable", "part of it", "attribute"],
)
def test_epochs_are_read_from_the_options_wherever_the_trainer_has_them(view):
    assert finders.total_epochs_in_options(view) == Found(12, "epochs from max_train_epochs")


def test_options_that_give_steps_and_no_epochs_say_nothing_of_epochs():
    view = seen(SimpleNamespace(max_train_epochs=None, max_train_steps=1600))
    assert finders.total_epochs_in_options(view) is None
    assert finders.total_steps_in_options(view) == Found(1600, "steps from max_train_steps")


@pytest.mark.parametrize("name", ["self", "trainer", "ctx", "state"])
def test_epochs_are_read_from_what_the_trainer_holds(name):
    view = seen(None, {name: SimpleNamespace(num_train_epochs=9, epoch=4)})
    assert finders.total_epochs_in_attributes(view) == Found(9, "epochs from the trainer's num_train_epochs")
    assert finders.epoch_in_attributes(view) == Found(4, "the epoch from the trainer's attribute")


def test_epochs_are_read_from_the_nearest_function_that_has_them():
    view = seen(None, {"epoch": 3}, {"num_train_epochs": 8, "epoch": 99}, {"num_train_epochs": 1})
    assert finders.total_epochs_in_variables(view) == Found(8, "epochs from the training function")
    assert finders.epoch_in_variables(view) == Found(3, "the epoch from the training function")


@pytest.mark.parametrize("scope", [{"current_epoch": SimpleNamespace(value=5)}, {"ctx": None}])
def test_the_counter_that_data_loaders_share_counts_from_one(scope):
    if "ctx" in scope:
        scope["ctx"] = SimpleNamespace(current_epoch=SimpleNamespace(value=5))
    assert finders.epoch_in_shared_counter(seen(None, scope)) == Found(4, "the epoch from current_epoch")


@pytest.mark.parametrize("value", [True, 2.0, "3", None, -1])
def test_what_is_no_whole_number_is_not_found(value):
    view = seen(None, {"epoch": value, "num_train_epochs": value, "max_train_steps": value, "current_epoch": value})
    assert all(finder(view) is None for finder in [*finders.EPOCH, *finders.TOTAL_EPOCHS, *finders.TOTAL_STEPS])


def test_steps_are_read_from_a_variable():
    assert finders.total_steps_in_variables(seen(None, {"max_train_steps": 40})) == Found(
        40, "steps from the training function"
    )


def test_the_least_intrusive_finder_comes_first():
    scope = {"num_train_epochs": 7, "self": SimpleNamespace(total_epochs=8)}
    view = seen(SimpleNamespace(max_train_epochs=9), scope)
    assert finders.first_found(finders.TOTAL_EPOCHS, view) == Found(9, "epochs from max_train_epochs")
    assert finders.first_found(finders.TOTAL_EPOCHS, seen(None, scope)) == Found(
        8, "epochs from the trainer's total_epochs"
    )
    assert finders.first_found(finders.TOTAL_EPOCHS, seen()) is None


def test_models_and_tensors_are_not_looked_into():
    model = nn.Linear(2, 2)
    model.epoch = 3  # type: ignore[assignment]
    assert finders.epoch_in_attributes(seen(None, {"self": model})) is None


def test_the_functions_that_are_running_are_seen_from_the_inside_out():
    def inner() -> TrainerView:
        epoch = 2
        return finders.view_from(sys._getframe(0), epoch and None)

    def outer() -> TrainerView:
        num_train_epochs = 6
        return inner() if num_train_epochs else seen()

    view = outer()
    assert [set(scope) & {"epoch", "num_train_epochs"} for scope in view.scopes[:2]] == [
        {"epoch"},
        {"num_train_epochs"},
    ]
    assert len(view.scopes) == finders.CALLERS
