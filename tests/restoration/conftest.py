"""A tiny restorer: SD2's layout with random weights, and an E whose outputs are not zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.models.family import Family
from library.training.run import Run
from miniworld.tiny import build
from restoration.system import IRControlNet, System


def shaken(encoder: IRControlNet, seed: int = 0) -> IRControlNet:
    """The same E with noise on all weights: a new one's outputs are 0 and would show nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return encoder


@pytest.fixture
def system() -> System:
    model = build(Family.SD2)
    return System(model, shaken(IRControlNet.copy_of(model.unet)).requires_grad_(False))


@pytest.fixture(scope="session")
def faces() -> np.ndarray:
    """Twenty drawn portraits, float32 (20, 128, 128, 3) in [0, 1]."""
    from miniworld.sets import identity_set

    pictures = [picture.image for name in ("id01", "id02") for picture in identity_set(name, "test")]
    return np.stack(pictures) / np.float32(255)


@pytest.fixture(scope="session")
def restorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny restorer in diffusers' layout, as `restoration.convert` writes it."""
    from library.models.save import save_folder

    folder = tmp_path_factory.mktemp("models") / "restorer"
    model = build(Family.SD2)
    save_folder(model, folder)
    shaken(IRControlNet.copy_of(model.unet)).save_pretrained(folder / "controlnet")
    return folder


def write_faces(folder: Path, faces: np.ndarray, side: int = 64) -> Path:
    """Pictures of a folder, at `side` pixels."""
    folder.mkdir(parents=True)
    for number, face in enumerate(faces):
        image = Image.fromarray(np.uint8(face * 255)).resize((side, side))
        image.save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def words(tmp_path: Path, faces: np.ndarray, restorer_folder: Path) -> Callable[..., list[str]]:
    """The command line of `restoration/train.py` for a person of three pictures and four of the prior."""
    references = write_faces(tmp_path / "ana", faces[:3])
    prior = write_faces(tmp_path / "others", faces[10:14])

    def listed(**options: object) -> list[str]:
        defaults: dict[str, object] = {
            "pretrained_model_name_or_path": restorer_folder,
            "prompt": "a photo of a sks woman",
            "reference_dir": references,
            "reg_data_dir": prior,
            "output_dir": tmp_path / "out",
            "output_name": "ana",
            "text_max_train_steps": 2,
            "model_max_train_steps": 2,
            "text_learning_rate": 1e-3,
            "model_learning_rate": 1e-3,
            "save_precision": "float",
        }
        return [word for name, value in (defaults | options).items() for word in (f"--{name}", str(value))]

    return listed


@pytest.fixture
def person(words: Callable[..., list[str]]) -> Callable[..., int]:
    """`restoration/train.py`, options as keywords; the exit code."""
    from restoration.train import main

    return lambda **options: main(words(**options))


@pytest.fixture
def built(words: Callable[..., list[str]]) -> Callable[..., Run]:
    """The run of one pivot, put together and not yet begun."""
    from restoration.build import build_pivot
    from restoration.train import read_settings

    return lambda pivot, **options: build_pivot(read_settings(words(**options)), pivot, lambda line: None)
