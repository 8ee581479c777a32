"""Whatever stands in a config, the answer is settings or one clear error, never a traceback."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from library.config import checks
from library.config.dataset_keys import KEYS
from library.config.datasets import dataset_problems, plan_datasets
from library.config.option import by_name
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.toml_file import toml_text
from library.errors import UserError

SCALARS = (
    st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(
        [
            "",
            "0",
            "1e-4",
            "10%",
            "512,768",
            "a=b",
            "cats",
            "train",
            "latest",
            "none",
            "cosine",
            ".",
            "~",
            "/",
            "long " * 99,
        ]
    )
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from("ab"), SCALARS, max_size=2)
OPTION_NAMES = st.sampled_from([*sorted(by_name(ALL_TRAIN_NETWORK)), "general", "datasets", "x"])
TABLES = st.dictionaries(OPTION_NAMES, VALUES, max_size=12)
KEY_NAMES = st.sampled_from([*(key.name for key in KEYS), "subsets", "x"])
SUBSETS = st.dictionaries(KEY_NAMES, VALUES, max_size=6).map(lambda keys: {"image_dir": "cats", **keys})
DATASETS = st.builds(
    lambda keys, subsets: {"resolution": 64, **keys, "subsets": subsets},
    st.dictionaries(KEY_NAMES, VALUES, max_size=6),
    st.lists(SUBSETS, max_size=2),
)
often = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cats/a.png", "train/1_cat/a.png"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()


def train(*argv: str) -> None:
    both = (checks.problems, dataset_problems)
    plan_datasets(parse(argv, *ALL_TRAIN_NETWORK, prog="", description="", checks=both))


def ends_well(*argv: str) -> None:
    try:
        with contextlib.suppress(UserError):
            train(*argv)
    except SystemExit as answered:
        if answered.code:  # `explain = true` prints and ends with 0
            raise


@often
@given(values=TABLES)
@example(values={"explain": True})
def test_any_training_config_ends_well(values):
    Path("any.toml").write_text(toml_text(values), encoding="utf-8")
    ends_well("--config_file=any.toml")
    ends_well("--config_file=any.toml", "--strict_config", "--train_data_dir=train", "--resolution=64")


@often
@given(general=st.dictionaries(KEY_NAMES, VALUES, max_size=6), datasets=st.lists(DATASETS, max_size=2))
def test_any_dataset_description_ends_well(general, datasets):
    Path("any.toml").write_text(toml_text({"general": general, "datasets": datasets}), encoding="utf-8")
    ends_well("--dataset_config=any.toml")
    ends_well("--config_file=any.toml")


@often
@given(words=st.lists(OPTION_NAMES.map(lambda name: f"--{name}") | SCALARS.map(str), max_size=10))
def test_any_command_line_ends_well(words):
    ends_well(*[word for word in words if word not in ("--help", "-h", "--output_config")])


@often
@given(text=st.text(st.sampled_from("ab=[]{}\"'\\#.,\n 1"), max_size=40))
def test_any_text_in_a_config_ends_well(text):
    Path("any.toml").write_text(text, encoding="utf-8")
    ends_well("--config_file=any.toml")
    ends_well("--dataset_config=any.toml")
    Path("any.json").write_text(text, encoding="utf-8")
    ends_well("--dataset_config=any.json")
