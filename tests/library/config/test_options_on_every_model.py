"""Every option on noise, loss and the reading of captions, on every family and prediction type: it changes the loss of
a batch, or it is refused by name, or it is said why not.

`test_every_option.py` changes all options alone, on one model; what is here is what meets the model.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from library.config.option import Settings
from library.config.options.captions import CAPTIONS
from library.config.options.loss import LOSS
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.data.batches import Batch
from library.errors import UserError
from library.models.family import Family, StableDiffusion
from library.models.text import TextSpec
from library.training.runtime.distributed import CPU
from library.training.setup.base_model import apply_noise_schedule
from library.training.setup.build import build_conditioner, build_objective
from miniworld.tiny import build
from tests.library.config.every_option.cases import CASES
from tests.library.config.test_every_option import words

PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")
KINDS = [(family, prediction) for family, prediction in product(Family, PREDICTIONS)]
BEFORE_THE_MODEL = {
    option.name for option in CAPTIONS if option.name not in ("clip_skip", "max_token_length", "weighted_captions")
}
"""What is done to the caption itself, before any model reads it."""
NAMES = [option.name for option in (*CAPTIONS, *LOSS) if option.name not in BEFORE_THE_MODEL and not option.inert]


class Sum(torch.nn.Module):
    """Stands in for the U-Net, which no option here looks into: what it answers depends on all that it is given."""

    dtype = torch.float32

    def forward(self, noisy, timesteps, text, added_cond_kwargs=None, return_dict=False):
        added = sum(part.mean() for part in (added_cond_kwargs or {}).values())
        read = (text * torch.arange(text.shape[-1])).mean(dim=(1, 2))  # the mean alone is the same after each norm
        return (noisy * (1 + timesteps.view(-1, 1, 1, 1) / 1000) + read.view(-1, 1, 1, 1) + added,)


@pytest.fixture(scope="module")
def models() -> dict[Family, StableDiffusion]:
    models = {family: build(family) for family in Family}
    for model in models.values():
        model.unet = Sum()  # pyright: ignore[reportAttributeAccessIssue]
    return models


def settings_of(options: dict[str, Any]) -> Settings:
    return read(tuple(words(options, Path())))


@cache
def read(argv: tuple[str, ...]) -> Settings:
    return parse(list(argv), *ALL_TRAIN_NETWORK, prog="", description="")


def loss_of(model: StableDiffusion, settings: Settings) -> torch.Tensor:
    """Of three samples with a long and weighted caption, at timesteps from one end to the other."""
    model.scheduler_config.pop("rescale_betas_zero_snr", None)
    apply_noise_schedule(settings, model)
    conditioner = build_conditioner(settings.take(TextSpec), model)
    caption = "a (cat:1.5) and a dog " + "on the bridge of a boat " * 15
    names = [f"{i}" for i in range(3)]
    with torch.no_grad():
        batch = Batch(
            epoch=1,
            sample_ids=names,
            files=names,
            captions=[caption] * 3,
            latents=torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
            hidden=conditioner.encode([caption] * 3),
            weights=torch.ones(3),
            true_count=3,
            original_sizes=torch.full((3, 2), 64),
            crops=torch.zeros(3, 2, dtype=torch.int64),
            target_sizes=torch.full((3, 2), 64),
            seed=3,
        )
        return build_objective(settings, model, conditioner, CPU).loss(batch).per_sample


@pytest.mark.parametrize(("family", "prediction"), KINDS, ids=lambda value: getattr(value, "value", value))
def test_an_option_changes_the_loss_or_is_refused_or_reported_to_do_nothing(models, family, prediction):
    silent, untrue = [], []
    plain: dict[tuple[str, ...], torch.Tensor] = {}
    for name in NAMES:
        case, model = CASES[name], models[family]
        model.prediction_type = prediction
        beside = {key: value for key, value in case.beside.items() if key != "v_parameterization"}
        with_it = settings_of({**beside, name: case.value})
        without = tuple(words(beside, Path()))
        said = [line for line in with_it.model_notes(family.value, prediction) if f"{name}`" in line]
        try:
            if without not in plain:
                plain[without] = loss_of(model, read(without))
            changed = not torch.equal(loss_of(model, with_it), plain[without])
        except UserError as error:
            if f"`{name}`" not in str(error):
                raise
            continue
        if not changed and not said:
            silent.append(name)
        if changed and any("has no effect" in line for line in said):
            untrue.append(name)
    assert (silent, untrue) == ([], [])


@pytest.mark.parametrize(("family", "prediction"), KINDS, ids=lambda value: getattr(value, "value", value))
def test_an_option_that_is_meant_for_other_models_says_so_and_not_on_its_own(family, prediction):
    settings = settings_of({"clip_skip": 2, "zero_terminal_snr": True})
    said = settings.model_notes(family.value, prediction)
    expected = ["`--clip_skip` on the command line has no effect on SDXL"] if family is Family.SDXL else []
    expected += ["`--zero_terminal_snr` on the command line is meant for models of v-prediction"] * (
        prediction == "epsilon"
    )
    if prediction == "flow_prediction":
        expected = ["`--zero_terminal_snr` on the command line has no effect on this model", *expected]
    assert len(said) == len(expected)
    assert all(line.startswith(start) for line, start in zip(said, expected, strict=True))
    assert settings.model_notes("sd1", None) == []
