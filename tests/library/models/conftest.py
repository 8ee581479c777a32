"""Tiny models on disk, made once for all tests of this folder; no test writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.models.family import Family, StableDiffusion
from library.models.save import save_folder, save_single_file
from miniworld.tiny import build


@pytest.fixture(scope="session")
def models() -> dict[Family, StableDiffusion]:
    return {family: build(family, seed=1) for family in Family}


@pytest.fixture(scope="session")
def folders(models: dict[Family, StableDiffusion], tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("folders")
    for family, model in models.items():
        save_folder(model, root / family.value)
    return {family: root / family.value for family in models}


@pytest.fixture(scope="session")
def files(models: dict[Family, StableDiffusion], tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("files")
    for family, model in models.items():
        save_single_file(model, root / f"{family.value}.safetensors")
    return {family: root / f"{family.value}.safetensors" for family in models}
