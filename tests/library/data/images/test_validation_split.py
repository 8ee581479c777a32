"""Held-out pictures: which they are, and that training and measuring never share one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.data.batches import Batches
from library.data.caches.latents_cache import DiskLatents, MemoryLatents
from library.data.caches.text_encoder_cache import captions_to_come
from library.data.dataset import Dataset, build
from library.data.images.validation_split import held_out
from library.errors import UserError

VARIED = {
    "flip_aug": True,
    "shuffle_caption": True,
    "caption_dropout_rate": 0.5,
    "caption_tag_dropout_rate": 0.5,
    "token_warmup_step": 100,
}


@pytest.fixture
def folder(tmp_path: Path, make) -> Path:
    for number in range(10):
        make.picture(tmp_path / "img" / f"{number}.png", caption=f"cat {number}, red, blue", seed=number)
    return tmp_path / "img"


def split(folder: Path, make, share: float = 0.3, seed: int | None = None, **options) -> Dataset:
    spec = {"validation_split": share, "validation_seed": seed}
    return build([make.dataset(make.subset(folder, num_repeats=3, **options), **spec)])


def names(dataset: Dataset | None) -> set[str]:
    return {picture.path.name for picture in dataset.pictures} if dataset else set()


def test_every_picture_is_trained_on_or_held_out_and_none_is_both(folder: Path, make):
    dataset = split(folder, make)
    assert len(names(dataset)) == 7
    assert len(names(dataset.validation)) == 3
    assert not names(dataset) & names(dataset.validation)
    assert len(dataset.samples) == 21
    assert dataset.validation is not None
    assert len(dataset.validation.samples) == 3  # each once, whatever its repeats
    assert len(dataset.all_pictures) == 10


def test_the_choice_is_that_of_its_seed(folder: Path, make):
    assert names(split(folder, make).validation) == names(split(folder, make).validation)
    assert len({frozenset(names(split(folder, make, seed=seed).validation)) for seed in range(8)}) > 3


@given(st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=40), st.floats(0, 1), st.integers(0, 99))
def test_a_share_is_held_out_and_one_name_more_changes_few(found: set[str], share: float, seed: int):
    chosen = held_out(sorted(found), share, seed)
    assert len(chosen) == round(len(found) * share)
    assert chosen <= found
    more = held_out(sorted({*found, "one more"}), share, seed)
    assert len(chosen - more) <= 1


def test_what_is_held_out_is_seen_and_called_alike_each_time(folder: Path, make, vae):
    dataset = split(folder, make, **VARIED)
    latents = MemoryLatents(dataset, 1.0)
    latents.fill(vae, progress=False)
    assert dataset.validation is not None
    batches = Batches(dataset.validation, latents, None, seed=0, workers=0)
    first, second = ([batch for (batch,) in batches.epoch(0)] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.captions == other.captions
        assert all(caption.endswith(", red, blue") for caption in one.captions)
        assert torch.equal(one.latents, other.latents)
        assert one.weights.tolist() == [1.0] * len(one)
        assert torch.equal(
            torch.rand(5, generator=one.generator(0, "noise")), torch.rand(5, generator=other.generator(0, "noise"))
        )


def test_caches_hold_what_is_held_out_too(folder: Path, make, vae):
    dataset = split(folder, make)
    disk = DiskLatents(dataset, 1.0, vae_hash="v", fallback=None)
    assert disk.fill(vae, progress=False).made == 10
    captions = captions_to_come(dataset)
    assert captions is not None
    assert sorted(captions) == [f"cat {number}, red, blue" for number in range(10)]


def test_regularisation_images_are_never_held_out(folder: Path, tmp_path: Path, make):
    for number in range(4):
        make.picture(tmp_path / "reg" / f"r{number}.png")
    subsets = [make.subset(folder), make.subset(tmp_path / "reg", is_reg=True)]
    dataset = build([make.dataset(*subsets, validation_split=0.5)])
    assert len(names(dataset.validation)) == 5
    assert not any(name.startswith("r") for name in names(dataset.validation))
    assert sum(sample.picture.subset.is_reg for sample in dataset.samples) == 5  # filled up to what is trained on


def test_a_dataset_may_be_there_for_measuring_alone(folder: Path, tmp_path: Path, make):
    make.picture(tmp_path / "train" / "t.png")
    plan = [make.dataset(make.subset(tmp_path / "train")), make.dataset(make.subset(folder), validation_split=1.0)]
    dataset = build(plan)
    assert (names(dataset), len(names(dataset.validation))) == ({"t.png"}, 10)
    with pytest.raises(UserError, match="no image to train on: `validation_split` holds out all 10"):
        split(folder, make, share=1.0)


def test_a_folder_that_is_trained_at_two_sizes_has_the_same_pictures_held_out_at_both(folder: Path, make):
    plan = [
        make.dataset(make.subset(folder), index=i, resolution=(size, size), validation_split=0.3, enable_bucket=False)
        for i, size in enumerate((64, 128))
    ]
    dataset = build(plan)
    assert len(names(dataset.validation)) == 3
    assert len(names(dataset)) == 7


def test_too_few_pictures_to_hold_any_out_are_reported(folder: Path, make):
    dataset = split(folder, make, share=0.01)
    assert dataset.validation is None
    assert "10 images are too few to hold out 0.01 of them; all are trained on" in dataset.warnings[0]
