from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.models.family import Family, StableDiffusion
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.previews import preview_name, seed_for, undisturbed, write_previews
from library.sampling.prompts import SamplePrompt
from miniworld.tiny import build

NOW = "20260102030405"


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    return build(Family.SD1, seed=4)


@pytest.mark.parametrize(
    ("name", "seed", "epoch", "step", "expected"),
    [
        ("style", 42, 3, 120, "style_e000003_00_20260102030405_42.png"),
        ("style", None, None, 120, "style_000120_00_20260102030405.png"),
        (None, 7, 1, 0, "e000001_00_20260102030405_7.png"),
        (None, None, None, 0, "000000_00_20260102030405.png"),
    ],
)
def test_names_are_sd_scripts_names(
    name: str | None, seed: int | None, epoch: int | None, step: int, expected: str
) -> None:
    assert preview_name(0, seed, NOW, output_name=name, epoch=epoch, step=step) == expected


def test_previews_are_pictures_that_say_how_they_were_made(model: StableDiffusion, tmp_path: Path) -> None:
    prompts = [
        SamplePrompt("a photo of a red cat 漢字", "sad", seed=5, sample_steps=2, scale=4.0),
        SamplePrompt("a dog", sample_steps=3, sample_sampler="ddim", width=96),
    ]
    folder = tmp_path / "sample"
    files = write_previews(
        model, TextConditioner(model), prompts, folder, output_name="style", epoch=2, sampler="euler_a"
    )
    assert sorted(files) == sorted(folder.iterdir())
    assert re.fullmatch(r"style_e000002_00_\d{14}_5\.png", files[0].name)
    assert re.fullmatch(r"style_e000002_01_\d{14}\.png", files[1].name)
    first, second = (Image.open(file) for file in files)
    assert first.info == {
        "prompt": "a photo of a red cat 漢字",
        "negative_prompt": "sad",
        "seed": "5",
        "steps": "2",
        "sampler": "euler_a",
        "scale": "4.0",
        "size": "64x64",
    }
    assert second.info["sampler"] == "ddim"
    again = SamplePrompt("a dog", seed=int(second.info["seed"]), sample_steps=3, width=96)  # the seed that was drawn
    assert np.array_equal(np.asarray(second), np.asarray(generate(model, TextConditioner(model), [again])[0]))


def test_a_prompt_without_a_seed_has_one_of_its_own_that_stays() -> None:
    prompts = [
        SamplePrompt("a cat"),
        SamplePrompt("a cat"),
        SamplePrompt("a cat", seed=5),
        SamplePrompt("", any_seed=True),
    ]
    first, again = ([seed_for(prompt, place, 7) for place, prompt in enumerate(prompts)] for _ in range(2))
    assert first[:3] == again[:3]
    assert first[0] != first[1]
    assert first[2] == 5
    assert first[3] != again[3]
    assert seed_for(prompts[0], 0, 8) != first[0]


def test_previews_leave_generators_and_training_modes_as_they_were(tmp_path: Path) -> None:
    model = build(Family.SD1)
    model.unet.train()
    model.unet.mid_block.eval()  # type: ignore[union-attr]
    modes = [module.training for part in model.modules.values() for module in part.modules()]
    before = (torch.get_rng_state(), random.getstate(), json.dumps(np.random.get_state()[1].tolist()))  # type: ignore[union-attr]
    write_previews(model, TextConditioner(model), [SamplePrompt("a cat", sample_steps=2)], tmp_path, step=10)
    after = (torch.get_rng_state(), random.getstate(), json.dumps(np.random.get_state()[1].tolist()))  # type: ignore[union-attr]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert modes == [module.training for part in model.modules.values() for module in part.modules()]


def test_generators_and_modes_come_back_when_drawing_fails() -> None:
    model = build(Family.SD1)
    model.unet.train()
    state = torch.get_rng_state()

    def draw_and_fail() -> None:
        with undisturbed(model):
            assert not model.unet.training
            torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        draw_and_fail()
    assert model.unet.training
    assert torch.equal(state, torch.get_rng_state())
