"""What a part takes of the options is their declaration, not a copy of it."""

import dataclasses
from typing import Any

import pytest

from library.config.option import Group, Option, by_name
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.schedule_rules import ScheduleSpec
from library.config.spec import declared, option_of, spec, spec_of
from library.diffusion.loss import LossSpec
from library.training.clock import LengthSpec
from library.training.optim.optimizers import OptimizerSpec
from library.training.trained.network import NetworkSpec
from restoration.restoring.sampling import Sampling

MADE_UP: Any = Group("", [Option("p2_gamma", float, 0.5, "P2 weighting"), Option("p2_k", float, None, "its offset")])
OPTIONS = by_name(ALL_TRAIN_NETWORK)


@pytest.mark.parametrize("kind", [ScheduleSpec, LossSpec, LengthSpec, OptimizerSpec, NetworkSpec])
def test_each_field_carries_its_option_and_has_its_default(kind):
    for field in dataclasses.fields(kind):
        assert option_of(field) is OPTIONS[field.name]
        assert field.default == OPTIONS[field.name].default
    taken = parse([], *ALL_TRAIN_NETWORK, prog="", description="").take(kind)
    assert taken == kind()


def test_a_spec_of_other_groups_has_the_defaults_of_these():
    assert Sampling().seed == 231
    assert OPTIONS["seed"].default is None


def test_a_field_without_an_option_and_a_name_that_is_none_are_distinguished():
    @spec_of(MADE_UP)
    class P2Spec:
        p2_gamma: float = declared
        scratch: int = 7

    assert P2Spec() == P2Spec(0.5, 7)
    assert [option_of(field) for field in dataclasses.fields(P2Spec)] == [MADE_UP[0], None]
    with pytest.raises(dataclasses.FrozenInstanceError):
        P2Spec().p2_gamma = 1.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match=r"Wrong\.p2_gama is no option"):

        @spec
        class Wrong:
            p2_gama: float = declared
