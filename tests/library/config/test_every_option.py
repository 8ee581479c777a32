"""Every option, changed alone, shows within two steps: in weights, files, log, metadata or in what is said.

Options without effect say so when they are set; an option that is declared and stands in neither list fails. All runs
are of one model, Stable Diffusion 1 that predicts noise; for others see `test_options_on_every_model.py`.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from library.config.dataset_keys import KEYS
from library.config.dataset_specs import DatasetPlan
from library.config.datasets import plan_datasets
from library.config.option import by_name
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.models.family import Family
from library.training.plan import plan as planning
from library.training.setup import base_model, build
from miniworld.tiny import tiny_configs
from tests.library.config.every_option.cases import CASES, WORD
from tests.library.config.every_option.observation import Observation, observe
from tests.library.config.every_option.world import load_micro_model, make_world
from train_network import main

OPTIONS = by_name(ALL_TRAIN_NETWORK)
INERT = {name: option for name, option in OPTIONS.items() if option.inert}
BASE: dict[str, Any] = {
    "pretrained_model_name_or_path": "{model}",
    "train_data_dir": "{pictures}",
    "output_dir": "out",
    "output_name": "t",
    "resolution": "64",
    "caption_extension": ".txt",
    "network_module": "networks.lora",
    "network_dim": 2,
    "learning_rate": 1e-3,
    "train_batch_size": 2,
    "max_train_steps": 2,
    "seed": 7,
    "no_report": True,
}


def words(options: dict[str, Any], world: Path) -> list[str]:
    argv = []
    for name, value in options.items():
        if value is True:
            argv.append(f"--{name}")
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            argv += [f"--{name}", *(_with_path(str(item), world) for item in values)]
    return argv


def _with_path(text: str, world: Path) -> str:
    return str(world / text[1:-1]) if text.startswith("{") else text


class Trainer:
    """Runs the trainer in folders of its own, and each combination only once."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = root / "world"
        self.world.mkdir()
        make_world(self.world)
        self._root, self._monkeypatch = root, monkeypatch
        self._model: Any = None
        self._parts: dict[str, str] = {}
        self._seen: dict[str, Observation] = {}
        self._folders: dict[str, Path] = {}
        monkeypatch.syspath_prepend(str(self.world))
        monkeypatch.setattr(base_model, "load_model", load_micro_model)
        monkeypatch.setattr(planning, "model_configs", lambda path: (Family.SD1, tiny_configs(Family.SD1)))
        monkeypatch.setattr(build, "build_run", self._noting_parts(build.build_run))

    def _noting_parts(self, whole: Callable[..., Any]) -> Callable[..., Any]:
        """How a run was put together: where its latents and texts come from, its optimizer, checkpointing, threads."""
        encoded: list[int] = []

        def load(*arguments: Any, **keywords: Any) -> Any:
            model = load_micro_model(*arguments, **keywords)
            vae: Any = model.vae
            encode = vae.encode

            def counting(images: Any, *rest: Any, **more: Any) -> Any:
                encoded.append(len(images))
                return encode(images, *rest, **more)

            vae.encode = counting
            self._model = model
            return model

        self._monkeypatch.setattr(base_model, "load_model", load)

        def build_run(*arguments: Any) -> Any:
            encoded.clear()
            run = whole(*arguments)
            batches = vars(run.batches).get("_source", run.batches)  # captions made of templates wrap them
            self._parts |= {
                "latents": type(batches.latents).__name__,
                "text": type(batches.text).__name__,
                "threads": str(batches.workers),
                "optimizer": type(run.optimizers.optimizer).__name__,
                "recomputes": str(self._model.unet.is_gradient_checkpointing),
                "encoded at a time": str(encoded),
            }
            return run

        return build_run

    def folder_of(self, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Path:
        """Where a run of these options left its files."""
        seen = self.run(options, capsys)
        assert seen.code == 0, "\n".join(seen.said)
        return self._folders["\0".join(words({**BASE, **options}, self.world))]

    def run(self, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Observation:
        argv = words({**BASE, **options}, self.world)
        name = "\0".join(argv)
        if name not in self._seen:
            folder = self._root / f"run{len(self._folders)}"
            folder.mkdir()
            self._folders[name] = folder
            self._parts.clear()
            capsys.readouterr()
            with self._monkeypatch.context() as patch:
                patch.chdir(folder)
                self._seen[name] = observe(
                    lambda: main(argv), folder, lambda: "".join(capsys.readouterr()), self._parts
                )
        return self._seen[name]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory):
    for name in ("xformers", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        yield Trainer(tmp_path_factory.mktemp("options"), patch)
    for name in ("halved_lora", "wandb"):
        sys.modules.pop(name, None)


@pytest.fixture
def changed(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> Trainer:
    """The trainer, with files that an earlier run left: a network, its state and an embedding."""
    made = trainer.world / "trained.safetensors"
    if not made.exists():
        out = trainer.folder_of({"save_state_on_train_end": True}, capsys) / "out"
        shutil.copytree(out / "t-state", trainer.world / "trained-state")
        shutil.copytree(out, trainer.world / "finished")
        word = trainer.folder_of({**WORD, "learning_rate": 1e-2}, capsys) / "out"
        shutil.copy(
            next(file for file in word.glob("*.safetensors") if file.stem != "t"), trainer.world / "word.safetensors"
        )
        shutil.copy(out / "t.safetensors", made)
    return trainer


@pytest.mark.parametrize("name", CASES)
def test_an_option_changed_alone_shows(name: str, changed: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    without = changed.run(case.beside, capsys)
    with_it = changed.run({**case.beside, **case.asks_for, name: case.value}, capsys)
    assert with_it.code == case.code, "\n".join(with_it.said)
    assert set(case.shows) <= with_it.changed(without), "\n".join(with_it.said)


def test_every_option_is_changed_here_or_has_no_effect() -> None:
    assert set(CASES) | set(INERT) == set(OPTIONS)
    assert not set(CASES) & set(INERT)


@pytest.mark.parametrize("name", INERT)
def test_an_option_without_effect_says_so_when_it_is_set(name: str) -> None:
    option = OPTIONS[name]
    other = next((choice for choice in option.choices or () if choice not in (option.default, "no", 0)), None)
    written = "true" if option.is_flag else str(other if other is not None else 1)
    settings = parse([f"--{name}={written}"], *ALL_TRAIN_NETWORK, prog="", description="")
    assert settings.effect_notes() == [f"`--{name}` on the command line has no effect: {option.inert}"]


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.needs and not option.inert])
def test_an_option_that_needs_another_one_says_so_when_that_one_is_off(name: str) -> None:
    case = CASES[name]
    alone = parse(words({name: case.value}, Path()), *ALL_TRAIN_NETWORK, prog="", description="")
    beside = parse(words({**case.beside, name: case.value}, Path()), *ALL_TRAIN_NETWORK, prog="", description="")
    assert len([line for line in alone.effect_notes() if line.startswith(f"`--{name}`")]) == 1
    assert beside.effect_notes() == []


LEVELS = {"G": "[general]\nLINE\n[[datasets]]", "D": "[[datasets]]\nLINE", "S": "[[datasets]]"}
SUBSET = '[[datasets.subsets]]\nimage_dir = "{pictures/1_sks}"\n'
NEW_VALUES = {
    "resolution": "128",
    "bucket_reso_steps": "32",
    "max_bucket_reso": "2048",
    "resize_interpolation": '"nearest"',
    "face_crop_aug_range": "[1.0, 2.0]",
    "skip_image_resolution": '"32"',
    "custom_attributes": "{ mine = 1 }",
    "image_dir": '"{other_pictures/1_sks}"',
    "metadata_file": '"{captions.json}"',
    "conditioning_data_dir": '"{masks}"',
}


@pytest.mark.parametrize(
    ("key", "level"), [pytest.param(key, level, id=f"{key.name}-{level}") for key in KEYS for level in key.levels]
)
def test_every_key_of_a_dataset_description_changes_the_plan_wherever_it_may_be(key, level, changed, tmp_path):
    def plan(line: str) -> DatasetPlan:
        tables = LEVELS[level].replace("LINE", "" if level == "S" else line)
        subset = SUBSET if key.name != "image_dir" or not line else "[[datasets.subsets]]\n"
        text = f"{tables}\n{subset}{line if level == 'S' else ''}\n"
        file = tmp_path / "data.toml"
        file.write_text(re.sub(r"\{([\w./]+)\}", lambda path: str(changed.world / path[1]), text), encoding="utf-8")
        argv = words(
            {**BASE, "train_data_dir": None, "dataset_config": str(file), "masked_loss": True, "min_bucket_reso": 64},
            changed.world,
        )
        return plan_datasets(parse(argv, *ALL_TRAIN_NETWORK, prog="", description=""))

    plain = {bool: "true", int: "128", float: "0.5", str: '"mine"'}
    value = NEW_VALUES.get(key.name) or plain[key.option.type]
    assert plan(f"{key.name} = {value}") != plan("")
