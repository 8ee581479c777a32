"""A tiny restorer: SD2's layout with random weights, and an E whose outputs are not zero."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.models.family import Family
from library.training.run import Run
from miniworld.tiny import build
from restoration.system.system import IRControlNet, System


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
            "report": "false",  # a page takes as long as these trainings
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
    from restoration.pivots.build import build_pivot
    from restoration.train import read_settings

    def put_together(pivot: str, **options: object) -> Run:
        return build_pivot(read_settings(words(overwrite=True, **options)), pivot)

    return put_together


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may speak to anybody."""

    def refuse(*_, **__):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def one_picture(folder: Path, face: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.uint8(face * 255)).resize((64, 64)).save(folder / "a.png")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, restorer_folder: Path) -> Path:
    """An output folder with a G_p and an E_pr of a person, without training."""
    from library.files import write_tensors
    from library.models.load import load_model
    from restoration.pivots.person import Person, base_mark
    from restoration.system.load import load_encoder

    out = tmp_path_factory.mktemp("person")
    model = load_model(restorer_folder)
    generator = torch.Generator().manual_seed(9)
    mark = base_mark(model.unet)
    header = Person("a photo of a sks woman", "a photo of a woman", "sks", 0.3, mark).header()
    noise = {n: t + 0.02 * torch.randn(t.shape, generator=generator) for n, t in model.unet.state_dict().items()}
    write_tensors(out / "ana_G.safetensors", noise, header)
    encoder = load_encoder(restorer_folder / "controlnet", model).state_dict()
    write_tensors(out / "ana_E.safetensors", {n: t * 1.01 for n, t in encoder.items()}, header)
    return out


@pytest.fixture
def restored(trained: Path, restorer_folder: Path, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """`restoration/restore.py` with options as keywords; the exit code and the output folder."""
    from restoration.restore import main

    def run(source: Path, name: str = "restored", **options: object) -> tuple[int, Path]:
        argv = ["--pretrained_model_name_or_path", str(restorer_folder), "--output_dir", str(trained)]
        argv += ["--output_name", "ana", "--input", str(source), "--output", str(tmp_path / name), "--steps", "2"]
        for option, value in options.items():
            argv += [f"--{option}"] if value is True else [f"--{option}", str(value)]
        return main(argv), tmp_path / name

    return run
