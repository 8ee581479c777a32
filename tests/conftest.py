"""What many tests share: one thread, a tiny model on disk, a few pictures, and the main job as a function."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.console import ConsoleHandler

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A command that a test calls sets up logging for its process; the next test begins without it."""
    yield
    for name in (None, "library.batch", "train_batch"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler for handler in logger.handlers if not isinstance(handler, ConsoleHandler)]
        logger.propagate = True


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight SD1.x as a diffusers folder."""
    from library.models.family import Family
    from library.models.save import save_folder
    from miniworld.tiny import build

    folder = tmp_path_factory.mktemp("models") / "tiny sd1"
    save_folder(build(Family.SD1), folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `train_data_dir`: seven captioned pictures of 64 px in `1_sks`, so that batches of 2 or 4 leave a rest."""
    parent = tmp_path_factory.mktemp("pictures")
    folder = parent / "1_sks"
    folder.mkdir()
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"sks, a red circle, a {'cat' if i % 2 else 'dog'}", encoding="utf-8")
    return parent


@pytest.fixture
def train(tiny_model: Path, pictures: Path, tmp_path: Path) -> Callable[..., int]:
    """The main job on the tiny model: options as keywords, True for a flag; returns the exit code."""
    from train_network import main

    def run(*words: str, **options: object) -> int:
        defaults: dict[str, object] = {
            "pretrained_model_name_or_path": tiny_model,
            "train_data_dir": pictures,
            "output_dir": tmp_path / "out",
            "output_name": "t",
            "resolution": "64,64",
            "caption_extension": ".txt",
            "network_module": "networks.lora",
            "network_dim": 2,
            "learning_rate": 1e-3,
            "train_batch_size": 2,
            "max_train_steps": 4,
            "cache_latents": True,
            "seed": 7,
            "no_report": True,  # a page takes as long as a tiny training; where it matters, no_report=None
        }
        argv = list(words)
        for name, value in {**defaults, **options}.items():
            if value is True:
                argv.append(f"--{name}")
            elif isinstance(value, (list, tuple)):
                argv += [f"--{name}", *map(str, value)]
            elif value is not None and value is not False:
                argv += [f"--{name}", str(value)]
        return main(argv)

    return run
