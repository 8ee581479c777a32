"""Each option decides or says that it does not: whether a state is refused, and whether a job is another job."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from library.adapters.metadata import ModelFacts, RunFacts, training_metadata
from library.batch.jobs.config import Prepared
from library.batch.jobs.datasets import DatasetSource
from library.batch.jobs.fingerprint import Digests, key_of
from library.batch.jobs.job import Job
from library.config.datasets import plan_datasets
from library.config.explain import explanation
from library.config.help_text import help_text
from library.config.option import JOB, NOTHING, PICTURES, RESULT, THROUGH, Group, Option, Settings, by_name
from library.config.options.config import CONFIG
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.reference import row
from library.data.dataset import Dataset
from library.data.dataset import build as build_dataset
from library.errors import UserError
from library.training.runtime.distributed import Processes
from library.training.runtime.environment import choose_geometry
from library.training.saving.fingerprint import (
    dataset_fingerprint,
    digest_of_weights,
    expected_state,
    facts_of_options,
)
from tests.library.config.every_option.cases import CASES
from tests.library.config.every_option.world import load_micro_model, make_world
from tests.library.config.test_every_option import BASE, words

OPTIONS = {name: option for name, option in by_name(ALL_TRAIN_NETWORK).items() if not option.inert}
ENDS_OR_SAYS_OTHERS = {option.name for option in CONFIG}
ONE_AT_A_TIME = {name: case for name, case in CASES.items() if case.code == 0 and name not in ENDS_OR_SAYS_OTHERS}
MADE_UP = Group(
    "Loss and noise",
    (Option("p2_gamma", float, 0.0, "P2 weighting", minimum=0, in_metadata=True, of_sd_scripts=False),),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    make_world(root)
    for name in ("model", "other_model", "other_vae"):
        (root / name / "weights").write_text(name, encoding="utf-8")
    return root


def read(world: Path, options: dict[str, Any], *more: Group) -> Settings:
    return parse(words({**BASE, **options}, world), *ALL_TRAIN_NETWORK, *more, prog="", description="")


def is_refused(state: dict[str, Any], settings: Settings, folder: Path) -> bool:
    ours = facts_of_options(settings.effective(), settings.options)
    try:
        expected_state(settings, ours).changes(folder, state, {})
    except UserError:
        return True
    return False


def state_of(settings: Settings) -> dict[str, Any]:
    return facts_of_options(settings.effective(), settings.options)


def key(settings: Settings) -> str:
    job = Job("a", DatasetSource("a", settings["train_data_dir"] or settings["dataset_config"]), "m", 7)
    return key_of(Prepared(job, settings), Digests()).hash


def pair(world: Path, name: str) -> tuple[Settings, Settings]:
    """The settings of a case without its option, and with it."""
    case = CASES[name]
    without = {} if name in ("in_json", "masked_loss") else case.beside  # which is no dataset without it
    beside = {} if name == "masked_loss" else case.beside
    return read(world, without), read(world, {**beside, **case.asks_for, name: case.value})


@pytest.mark.parametrize("name", ONE_AT_A_TIME)
def test_an_option_decides_what_it_says_that_it_decides(name: str, world: Path, tmp_path: Path) -> None:
    one, other = pair(world, name)
    changed = [OPTIONS[n] for n in OPTIONS if one[n] != other[n]]  # what it implies and asks for, too
    assert is_refused(state_of(one), other, tmp_path) == any(option.decides is RESULT for option in changed)
    if not any(option.decides is PICTURES for option in changed):
        assert (key(one) != key(other)) == any(option.decides not in (PICTURES, NOTHING) for option in changed)


@pytest.mark.parametrize("name", [name for name in OPTIONS if OPTIONS[name].decides in (THROUGH, PICTURES)])
def test_what_comes_of_an_option_is_compared_where_its_value_is_not(name: str, world: Path) -> None:
    def comes_of(settings: Settings) -> dict[str, Any]:
        if name not in ("pretrained_model_name_or_path", "vae"):
            geometry = choose_geometry(settings["gradient_accumulation_steps"], Processes(), None)
            seed = settings["validation_seed"] or 0
            return dataset_fingerprint(dataset_of(settings), seed) | {"parts": geometry.parts}
        model = load_micro_model(
            settings["pretrained_model_name_or_path"],
            vae=settings["vae"],
            prediction_type=None,
            dtype=None,
            vae_dtype=None,
            tokenizer_cache_dir=None,
        )
        return {"weights": digest_of_weights(model.modules.values())}

    one, other = pair(world, name)
    assert comes_of(one) != comes_of(other)
    assert key(one) != key(other)


def dataset_of(settings: Settings) -> Dataset:
    return build_dataset(plan_datasets(settings))


def test_an_option_that_decides_has_no_list_to_be_added_to(world: Path, tmp_path: Path) -> None:
    """A made-up option of the loss, declared once, is known wherever options are."""
    one, other = (read(world, {"p2_gamma": value}, MADE_UP) for value in (None, 1.0))
    assert is_refused(state_of(one), other, tmp_path)
    assert not is_refused(state_of(other), other, tmp_path)
    assert key(one) != key(other)
    groups = [*ALL_TRAIN_NETWORK, MADE_UP]
    assert "--p2_gamma" in help_text(groups, "train_network.py", "")
    assert "p2_gamma" in explanation(other, groups, [])
    assert row(MADE_UP[0]).startswith("| `p2_gamma` |")
    run = RunFacts(1, 0.0, 1, 1, 1, "AdamW", {}, 4, 1, 0)
    facts = training_metadata(other.effective(), ModelFacts("sd1", False, "m"), [], run, other.options)
    assert facts["ss_p2_gamma"] == "1.0"


def test_a_state_written_before_an_option_was_there_had_its_default(world: Path, tmp_path: Path) -> None:
    old = state_of(read(world, {}))
    assert not is_refused(old, read(world, {"p2_gamma": None}, MADE_UP), tmp_path)
    assert is_refused(old, read(world, {"p2_gamma": 1.0}, MADE_UP), tmp_path)


def test_nothing_is_reported_against_a_state_that_does_not_tell_what_earlier_versions_did_not(world, tmp_path) -> None:
    settings = read(world, {"masked_loss": True})
    old = {name: value for name, value in state_of(settings).items() if not settings.options[name].recorded_late}
    assert "masked_loss" not in old
    assert not is_refused(old, settings, tmp_path)


def test_a_record_of_an_earlier_version_that_knows_more_options_is_of_the_same_job(world: Path) -> None:
    settings = read(world, {})
    job = Job("a", DatasetSource("a", settings["train_data_dir"]), "m", 7)
    now = key_of(Prepared(job, settings), Digests())
    old = replace(now, options=now.options | {"gradient_checkpointing": True, "xformers": True})
    assert now.agrees(old.hash, asdict(old))
    other = replace(now, options=now.options | {"min_snr_gamma": 5.0})
    assert not now.agrees(other.hash, asdict(other))


def test_what_a_group_decides_is_what_its_options_do_not_say() -> None:
    group = Group("", [Option("a", int, 1, ""), Option("b", int, 1, "", decides=NOTHING)], decides=JOB)
    assert [option.decides for option in group] == [JOB, NOTHING]
