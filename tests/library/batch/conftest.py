"""Three small datasets and a jobs file on the tiny model, and the command as a function."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from library.batch.jobs.ledger import Ledger
from library.batch.read_batch import BatchOfJobs, BatchSpec, bring_up, read_batch
from library.config.options.batch import BATCH
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse


@pytest.fixture(autouse=True)
def _plugins_stay_those_of_the_other_tests() -> Iterator[None]:
    """A batch imports plugins anew for each job; other tests of this process go on with those that they know."""
    before = plugins_here()
    yield
    for name in plugins_here():
        del sys.modules[name]
    sys.modules.update(before)


def plugins_here() -> dict[str, ModuleType]:
    homes = ("networks", "embeddings", "lycoris")
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in homes}


@pytest.fixture
def styles(pictures: Path, tmp_path: Path) -> Path:
    """A folder with the datasets one, two and three, of two pictures each."""
    root = tmp_path / "styles"
    for i, name in enumerate(("one", "two", "three")):
        folder = root / name / "1_sks"
        folder.mkdir(parents=True)
        for number in (2 * i, 2 * i + 1):
            for ending in ("png", "txt"):
                shutil.copy(pictures / "1_sks" / f"{number}.{ending}", folder)
    return root


BASE = """
pretrained_model_name_or_path = "{model}"
caption_extension = ".txt"
resolution = "64,64"
cache_latents = true
network_train_unet_only = true
report = false
learning_rate = 1e-3
max_train_steps = {steps}
"""
JOBS = """
[batch]
output_dir = "{output}"
datasets = ["{styles}/*"]
min_free_disk = "0"
{batch}
[methods.lora]
network_module = "networks.lora"
network_dim = 2
{more}
"""


class Pretending:
    """Calls a function where a job would be trained."""

    device = "nothing"

    def __init__(self, train: Callable[[Any], Any]) -> None:
        self.train = train

    def close(self) -> None: ...


class Trying:
    """A batch in a temporary folder: `write` its files, `run` the command."""

    def __init__(self, folder: Path, styles: Path, model: Path) -> None:
        self.folder, self.styles, self.model = folder, styles, model
        self.output = folder / "out"
        self.ledger = Ledger(self.output)

    def write(self, *, more: str = "", batch: str = "", base: str = "", steps: int = 2) -> None:
        self.base, self.jobs = self.folder / "base.toml", self.folder / "jobs.toml"
        self.base.write_text(BASE.format(model=self.model, steps=steps) + base, encoding="utf-8")
        text = JOBS.format(output=self.output, styles=self.styles, batch=batch, more=more)
        self.jobs.write_text(text, encoding="utf-8")

    def run(self, *words: str, engine: str = "inline") -> int:
        from train_batch import main

        files = ["--config_file", str(self.base), "--jobs", str(self.jobs)]
        return main([*files, "--engine", engine, *words])

    def brought_up(self) -> BatchOfJobs:
        """The batch with its ledger, as a driver finds it."""
        words = ["--config_file", str(self.base), "--jobs", str(self.jobs)]
        settings = parse(words, BATCH, *ALL_TRAIN_NETWORK, prog="", description="")
        found = read_batch(settings)
        bring_up(found, settings.take(BatchSpec))
        return found

    def ledger_created(self) -> Ledger:
        self.ledger.create()
        return self.ledger

    def states(self) -> dict[str, str]:
        return {path.stem: self.ledger.read(path.stem).state for path in sorted(self.ledger.jobs.glob("*.json"))}


@pytest.fixture
def batch(tmp_path: Path, styles: Path, tiny_model: Path) -> Trying:
    trying = Trying(tmp_path, styles, tiny_model)
    trying.write()
    return trying


@pytest.fixture
def trained_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Put a function of an assignment in the place of what trains, so that no model is loaded."""

    def put(train: Callable[..., Any]) -> None:
        monkeypatch.setattr("train_batch.trainers", lambda settings, devices: [Pretending(train) for _ in devices])

    return put
